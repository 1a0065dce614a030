"""Many connections against `lpu serve`: 1,000 requests, 32 at a time, then 30 s with half of them cut.

`python benchmarks/serve_load.py [seconds]` starts a server of llama-tiny and prints what it counted.
"""

import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import time

import httpx2 as httpx

NAME = "llama-tiny"
COMMAND = [sys.executable, "-m", "lpu", "serve", NAME, "--rack", "quad", "--batch", "32", "--context", "64"]
REQUESTS, CONCURRENCY, CONNECTIONS = 1000, 32, 64


def gauge(text: str, name: str) -> float:
    """A value of /metrics."""
    found = re.search(rf"^vllm:{name}{{.*}} (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def memory_mb(process: int) -> float:
    """Resident memory of a process."""
    with open(f"/proc/{process}/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


async def stream(client: httpx.AsyncClient, seed: int, cut: bool) -> bool:
    """One streamed completion; whether it was whole. cut: go after a few events."""
    draw = random.Random(seed)
    body = {"model": NAME, "prompt": f"{seed}", "max_tokens": 24, "stream": True, "ignore_eos": True}
    left = draw.randrange(12) if cut else 10**9
    news, done = 0, False
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            news += '"choices": [{' in line
            done |= line == "data: [DONE]"
            left -= 1
            if left < 0:
                return False
    return done and news == 24


async def measured(address: str, process: int, seconds: float) -> None:
    limits = httpx.Limits(max_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as client:
        gate, begin = asyncio.Semaphore(CONCURRENCY), time.monotonic()

        async def one(i: int) -> bool:
            async with gate:
                return await stream(client, i, cut=False)

        whole = await asyncio.gather(*(one(i) for i in range(REQUESTS)))
        print(f"{sum(whole)} of {REQUESTS} whole, {CONCURRENCY} at a time, {time.monotonic() - begin:.1f} s")
        before, counts, end = memory_mb(process), [0, 0, 0], time.monotonic() + seconds

        async def cutting(worker: int) -> None:
            i = worker
            while time.monotonic() < end:
                cut = random.Random(i).random() < 0.5
                good = await stream(client, i, cut)
                counts[0 if cut else 1 if good else 2] += 1
                i += CONNECTIONS

        await asyncio.gather(*(cutting(i) for i in range(CONNECTIONS)))
        await asyncio.sleep(2)
        text = (await client.get("/metrics")).text
        held = [gauge(text, f"num_requests_{name}") for name in ("running", "waiting")]
        print(
            f"{counts[0]} cut, {counts[1]} whole, {counts[2]} broken; {held[0]:g} in slots, {held[1]:g} wait"
        )
        print(f"memory {before:.0f} MB before, {memory_mb(process):.0f} MB after")


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30
    command = [*COMMAND, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        try:
            asyncio.run(measured(address, process.pid, seconds))
        finally:
            process.send_signal(signal.SIGTERM)
        print(f"exit code after SIGTERM {process.wait(60)}")


if __name__ == "__main__":
    main()
