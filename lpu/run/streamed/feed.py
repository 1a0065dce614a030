"""Feed: the tiles of one call after another, read or drawn by threads while the call before is computed.

Two stores of tiles take turns. Every job writes its own part of a store, so the bytes do not depend on which
thread takes it, nor when.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, UInt8

from compiler.program.isa import F32_LANES, TILE, TILE_ROWS
from lpu.run.error import MachineError
from lpu.run.fill import row_reader, shape_of, tile_jobs, with_tiles
from lpu.run.image import Image, ImagePlan, Weights, tile_bytes
from models.sources.host_arrays import aligned_zeros, borrow

THREADS = 2  # that read or draw weights, beside those that XLA computes with
WHOLE_BYTES = 5  # per weight of a matrix that comes whole: its code, and the f32 value that it is made of


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRate:
    """What a step of a streamed program reads or draws, and how long (measured) a sample of it took here."""

    step_bytes: int
    sample_bytes: int
    sample_seconds: float

    @property
    def step_seconds(self) -> float:
        """Of the weights of a step at the rate of the sample; what is computed meanwhile is not counted."""
        return self.sample_seconds * self.step_bytes / max(self.sample_bytes, 1)


class Feed:
    """Images of calls in order; each is valid until the next one is asked for.

    waited_seconds: measured, how long callers waited for weights so far.
    """

    def __init__(self, plans: Sequence[ImagePlan]) -> None:
        self.plans = tuple(plans)
        bytes_ = tile_bytes(max((plan.tiles for plan in plans), default=0))
        self.waited_seconds = 0.0
        self._stores = [aligned_zeros((bytes_,)), aligned_zeros((bytes_,))]

    def images(self, weights: Weights, tokens: Int32[np.ndarray, " batch"]) -> Iterator[Image]:
        """The image of every call; of embedding tables only the rows of these tokens, one after another."""
        with ThreadPoolExecutor(THREADS, "weights") as threads:
            ahead = self._start(threads, 0, weights)
            try:
                for i, plan in enumerate(self.plans):
                    start = time.perf_counter()
                    for job in ahead:
                        job.result()
                    self.waited_seconds += time.perf_counter() - start
                    ahead = self._start(threads, i + 1, weights)
                    seen = TableRows(weights, plan.tables, tokens)
                    yield with_tiles(plan, seen, borrow(self._tiles(i)))
            finally:
                for job in ahead:
                    job.cancel()

    def measured(self, weights: Weights) -> StreamRate:
        """What a step takes, and the rate at which the first call that has tiles gets them here."""
        first = next((i for i, plan in enumerate(self.plans) if plan.tiles), 0)
        start = time.perf_counter()
        with ThreadPoolExecutor(THREADS, "weights") as threads:
            for job in self._start(threads, first, weights):
                job.result()
        return StreamRate(
            step_bytes=sum(tile_bytes(plan.tiles) for plan in self.plans),
            sample_bytes=tile_bytes(self.plans[first].tiles),
            sample_seconds=time.perf_counter() - start,
        )

    def _tiles(self, call: int) -> UInt8[np.ndarray, "tiles 320 80"]:
        tiles = self.plans[call].tiles
        held = self._stores[call % 2][: tile_bytes(tiles)] if tiles else aligned_zeros((tile_bytes(1),))
        return held.reshape(-1, TILE_ROWS, F32_LANES)

    def _start(self, threads: ThreadPoolExecutor, call: int, weights: Weights) -> list[Future[None]]:
        """Put the jobs of a call into the queue; its store is free, as the call two before is done."""
        if call >= len(self.plans) or not self.plans[call].tiles:
            return []
        jobs = tile_jobs(self.plans[call], weights, self._tiles(call))
        return [threads.submit(job) for group in jobs for job in group]


class TableRows(Mapping[str, np.ndarray]):
    """Weights whose tables hold the rows of these tokens only."""

    def __init__(self, weights: Weights, tables: Sequence[str], tokens: Int32[np.ndarray, " batch"]) -> None:
        self._weights, self._tables, self._tokens = weights, tables, tokens

    def __getitem__(self, name: str) -> np.ndarray:
        """The tensor of that path, or the rows."""
        if name not in self._tables:
            return self._weights[name]
        read = row_reader(self._weights, name)
        if read is None:
            return self._weights[name][self._tokens]
        return np.concatenate([read(int(token), int(token) + 1) for token in self._tokens])

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def stream_bytes(plans: Sequence[ImagePlan], weights: Weights) -> int:
    """Host bytes of images in turn: the tiles of two calls, and the largest matrix that comes whole."""
    tiles = [tile_bytes(plan.tiles) for plan in plans]
    if not tiles:
        raise MachineError("run: the program has no calls.")
    names = {plan.slots[slot][0] for plan in plans for slot in np.unique(plan.wanted[TILE][:, 0])}
    whole = [name for name in sorted(names & weights.keys()) if row_reader(weights, name) is None]
    matrix = max((int(np.prod(shape_of(weights, name)[0])) for name in whole), default=0)
    return max(a + b for a, b in zip(tiles, [*tiles[1:], 0], strict=True)) + WHOLE_BYTES * matrix
