"""Many requests at once: modelled times whatever the order, slots that are freed, bounded queues."""

import asyncio
import random
import time
from dataclasses import replace
from typing import Any

import httpx2 as httpx
from starlette.types import ASGIApp

from lpu.serve.engine import SyntheticEngine
from lpu.serve.http.app import application
from lpu.serve.modelled import ServedTimes
from lpu.serve.options import ServeGpus, ServeOptions
from lpu.serve.service import Service
from lpu.serve.slots import SlotQueue
from lpu.serve.start import service_of

NAME = "llama-tiny"


def made(**how: Any) -> Service:
    about: Any = {"batch": 4, "context": 64}
    given: dict[str, Any] = {"tokens": "synthetic"} | how
    return service_of(NAME, ServeOptions(**given), ServeGpus(), "quad", keywords=about)


def speaking(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://lpu", timeout=60)


def told(seed: int, headers: dict[str, str], connections: int) -> dict[int, Any]:
    """The answers to 40 requests with stated arrivals, sent in an order of the seed's."""

    async def all_of_them() -> dict[int, Any]:
        gate, answers = asyncio.Semaphore(connections), {}
        async with speaking(application(made())) as client:

            async def one(i: int) -> None:
                body = {"model": NAME, "prompt": [i, 1, 2], "max_tokens": 1 + i % 20, "ignore_eos": True}
                stated = {"x-lpu-arrival-us": str(20 * (i // 5)), "x-request-id": str(i)}
                async with gate:
                    found = (await client.post("/v1/completions", json=body, headers=stated | headers)).json()
                answers[i] = found["choices"][0]["token_ids"], found["metrics"]

            order = list(range(40))
            random.Random(seed).shuffle(order)
            await asyncio.gather(*(one(i) for i in order))
            answers[-1] = (await client.get("/lpu/schedule")).json()
        return answers

    return asyncio.run(all_of_them())


def test_stated_arrivals_give_the_same_times_in_every_order() -> None:
    """One connection or many, any order: alone by default, and all together in the schedule."""
    found = [told(seed, {}, connections) for seed, connections in ((0, 1), (1, 40), (2, 7))]
    assert found[0] == found[1] == found[2]
    assert {metrics["queue_time_ms"] for i, (_, metrics) in list(found[0].items())[:40] if i >= 0} == {0}
    assert max(one["queue_time_ms"] for one in found[0][-1]["sequences"]) > 0


def test_a_run_that_says_how_many_it_is_queues_together() -> None:
    header = {"x-lpu-requests": "40", "x-lpu-run": "a"}
    found = [told(seed, header, 40) for seed in range(3)]
    assert found[0] == found[1] == found[2]
    by_schedule = {one["request"]: one["queue_time_ms"] for one in found[0][-1]["sequences"]}
    assert {str(i): found[0][i][1]["queue_time_ms"] for i in range(40)} == by_schedule


def test_a_full_queue_is_refused() -> None:
    async def crowd() -> list[int]:
        async with speaking(application(made(queue=2, tokens="real"))) as client:
            body = {"model": NAME, "prompt": [1], "max_tokens": 10, "ignore_eos": True}
            every = [client.post("/v1/completions", json=body) for _ in range(12)]
            return sorted(one.status_code for one in await asyncio.gather(*every))

    assert asyncio.run(crowd()) == [200] * 6 + [429] * 6


def test_the_lowest_priority_number_is_next() -> None:
    """All four slots are taken; of those that wait -1 goes before 0, and 0 before 5."""

    async def firsts() -> list[int]:
        slots, order = SlotQueue(4), []
        for _ in range(4):
            await slots.acquire(9)

        async def one(priority: int) -> None:
            await slots.acquire(priority)
            order.append(priority)
            slots.release()

        tasks = [asyncio.create_task(one(priority)) for priority in (5, 0, 7, -1, 0)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        slots.release()
        await asyncio.gather(*tasks, return_exceptions=True)
        return order

    assert asyncio.run(firsts()) == [-1, 0, 0, 5]


def test_priorities_order_a_run_and_their_times_are_those_of_a_replay() -> None:
    """Six requests at once for four slots: the last two to begin are those of the larger number."""

    async def begun() -> list[float]:
        async with speaking(application(made())) as client:

            async def one(i: int) -> float:
                body = {"model": NAME, "prompt": [1, 2, 3], "max_tokens": 5, "priority": 3 if i < 2 else 0}
                stated = {"x-lpu-arrival-us": "0", "x-lpu-requests": "6", "x-request-id": str(i)}
                found = (await client.post("/v1/completions", json=body, headers=stated)).json()
                return found["metrics"]["queue_time_ms"]

            return await asyncio.gather(*(one(i) for i in range(6)))

    found = asyncio.run(begun())
    assert min(found[:2]) > 0
    assert found[2:] == [0, 0, 0, 0]


def test_a_client_that_goes_frees_its_slots() -> None:
    async def leave() -> tuple[int, int, str]:
        service = made(tokens="real")
        app = application(service)
        scope: Any = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "raw_path": b"/v1/completions",
            "query_string": b"",
            "headers": [],
            "http_version": "1.1",
            "scheme": "http",
            "server": ("lpu", 80),
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        for stream in ("true", "false"):
            data = (
                f'{{"model": "{NAME}", "prompt": "a", "max_tokens": 60, "n": 4, "stream": {stream}}}'.encode()
            )
            first, started = [True], asyncio.Event()

            async def receive(data: bytes = data, first: list[bool] = first) -> Any:
                if first.pop() if first else False:
                    return {"type": "http.request", "body": data}
                while not service.running:
                    await asyncio.sleep(0.001)
                return {"type": "http.disconnect"}

            async def send(message: Any, started: asyncio.Event = started) -> None:
                started.set()

            await app(scope, receive, send)
            for _ in range(500):
                if not service.running:
                    break
                await asyncio.sleep(0.01)
        async with speaking(app) as client:
            left = await client.post(
                "/v1/completions", json={"model": NAME, "prompt": "a", "max_tokens": 2, "n": 4}
            )
        await asyncio.to_thread(service.engine.stop)
        return service.running, service.waiting, left.json()["choices"][3]["finish_reason"]

    assert asyncio.run(leave()) == (0, 0, "length")


def test_at_real_pace_no_token_comes_before_its_modelled_time() -> None:
    async def slow() -> tuple[float, float]:
        service = made(pace="real")
        slower = replace(service.served.machine, clock_hz=service.served.machine.clock_hz // 10_000)
        app = application(
            Service(
                replace(service.served, times=ServedTimes(machine=slower)),
                SyntheticEngine(service.served.vocab),
            )
        )
        async with speaking(app) as client:
            body = {"model": NAME, "prompt": [1, 2], "max_tokens": 5, "ignore_eos": True}
            begin = time.monotonic()
            found = await client.post("/v1/completions", json=body, headers={"x-lpu-arrival-us": "0"})
            told = found.json()["metrics"]
            return time.monotonic() - begin, told["time_to_first_token_ms"] + told["generation_time_ms"]

    took, modelled_ms = asyncio.run(slow())
    assert took * 1000 >= modelled_ms > 100
