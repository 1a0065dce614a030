"""List scheduling: each row starts as soon as what it waits for is done and its unit or lanes are free.

Events are canonical: everything that happens in a cycle is absorbed before anything is dispatched, and a unit
takes the ready row of lowest index. So equal blocks get equal schedules, whatever happened before them.
Source: facts scheduling.md section 3.
"""

import heapq
from typing import TypeVar

import numpy as np

from compiler.schedule.ports import PortLoad

_T = TypeVar("_T")


class _ByCycle(dict[int, list[_T]]):
    """What happens by cycle; a cycle that nothing happened in yet is put among those to come."""

    def __init__(self, cycles: list[int]) -> None:
        super().__init__()
        self._cycles = cycles

    def __missing__(self, cycle: int) -> list[_T]:
        heapq.heappush(self._cycles, cycle)
        made = self[cycle] = []
        return made


def dispatch(
    edges: np.ndarray,
    resource: list[int],
    hold: list[int],
    latency: list[int],
    width: list[int],
    free: dict[int, int],
    load: PortLoad | None = None,
    delay: list[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(start, first instance) per row; `free[resource]` masks instances, `width` is how many a row takes.

    edges: (earlier row, later row), by earlier rows. load: what is left of the activation ports; None: they
    are not counted. delay: cycles that each row waits besides, once all that it waits for is done.
    """
    size = len(resource)
    waiting = np.bincount(edges[:, 1], minlength=size).tolist()
    pointer = np.searchsorted(edges[:, 0], np.arange(size + 1)).tolist()
    successor = edges[:, 1].tolist()
    ready: dict[int, list[int]] = {name: [] for name in free}
    start, place = [-1] * size, [0] * size
    cycles: list[int] = []  # those to come, a heap
    done = _ByCycle[int](cycles)  # rows; ~row: all that it waits for, and its delay is over
    released = _ByCycle[tuple[int, int]](cycles)
    for row in range(size):
        if not waiting[row]:
            done[delay[row] if delay else 0].append(~row)
    while cycles:
        now = heapq.heappop(cycles)
        dirty: list[int] = []
        for name, mask in released.pop(now, ()):
            free[name] |= mask
            dirty.append(name)
        for row in (finished := done.pop(now, [])):  # grows by rows without a delay
            if row < 0:
                heapq.heappush(ready[resource[~row]], ~row)
                dirty.append(resource[~row])
                continue
            for after in successor[pointer[row] : pointer[row + 1]]:
                waiting[after] -= 1
                if waiting[after]:
                    continue
                late = delay[after] if delay else 0
                (done[now + late] if late else finished).append(~after)
        for name in dirty if load is None else ready:
            queue = ready[name]
            while queue:
                lanes = width[queue[0]]
                fits = free[name]
                for _ in range(lanes - 1):
                    fits &= fits >> 1
                if not fits or (load is not None and not load.take(queue[0], now)):
                    break
                row = heapq.heappop(queue)
                first = (fits & -fits).bit_length() - 1
                mask = ((1 << lanes) - 1) << first
                free[name] ^= mask
                start[row], place[row] = now, first
                released[now + hold[row]].append((name, mask))
                done[now + latency[row]].append(row)
    assert min(start, default=0) >= 0, "a cycle among the rows of a block"
    return np.array(start, np.int64), np.array(place, np.int64)
