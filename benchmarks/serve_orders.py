"""200 requests with stated arrivals, sent to `lpu serve` in 5 interleavings: equal tokens and modelled times.

`python benchmarks/serve_orders.py [synthetic|real]` starts a server of llama-tiny for each interleaving and
sends the same requests in another order over other numbers of connections; exit code 1 if an answer differs.
"""

import asyncio
import json
import random
import signal
import subprocess
import sys
from typing import Any

import httpx2 as httpx

NAME, REQUESTS = "llama-tiny", 200
ORDERS = ((0, 1), (1, 200), (2, 7), (3, 32), (4, 64))  # seed of the order, connections
COMMAND = [sys.executable, "-m", "lpu", "serve", NAME, "--rack", "quad", "--batch", "8", "--context", "64"]


def body(i: int) -> dict[str, Any]:
    """Request i: its prompt, its length, greedy or drawn."""
    draw = random.Random(i)
    prompt = [draw.randrange(256) for _ in range(draw.randrange(1, 12))]
    how = {"temperature": 0.8, "seed": i} if i % 2 else {}
    return {"model": NAME, "prompt": prompt, "max_tokens": draw.randrange(1, 12), "priority": i % 3} | how


async def answers(address: str, seed: int, connections: int) -> list[Any]:
    """Tokens and times of all requests, and the schedule of all together, in the order of the requests."""
    found: list[Any] = [None] * REQUESTS
    limits = httpx.Limits(max_connections=connections)
    async with httpx.AsyncClient(base_url=address, timeout=1800, limits=limits) as client:
        gate = asyncio.Semaphore(connections)

        async def one(i: int) -> None:
            headers = {"x-lpu-arrival-us": str(5 * (i // 4)), "x-request-id": f"{i:03}"}
            async with gate:
                answer = await client.post("/v1/completions", json=body(i), headers=headers)
            told = answer.json()
            found[i] = told["choices"][0]["token_ids"], told["metrics"]

        order = list(range(REQUESTS))
        random.Random(seed).shuffle(order)
        await asyncio.gather(*(one(i) for i in order))
        return [*found, (await client.get("/lpu/schedule")).json()]


def served(tokens: str, seed: int, connections: int) -> list[Any]:
    """The answers of a server of its own."""
    command = [*COMMAND, "--tokens", tokens, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        try:
            return asyncio.run(answers(address, seed, connections))
        finally:
            process.send_signal(signal.SIGTERM)


def main() -> int:
    tokens = sys.argv[1] if len(sys.argv) > 1 else "real"
    first, same = None, True
    for seed, connections in ORDERS:
        found = served(tokens, seed, connections)
        first = first or found
        equal = found == first
        same &= equal
        waits = [one["queue_time_ms"] for one in found[-1]["sequences"]]
        print(
            f"order {seed}, {connections} connections: {len(found) - 1} answers, "
            f"{'equal' if equal else 'DIFFERENT'}; queue in the schedule up to {max(waits):.4f} ms",
            flush=True,
        )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
