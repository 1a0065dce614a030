"""Modulo scheduling: each row of a wave gets a cycle such that a new wave may come every `interval` cycles.

Every plane, drain, chain and lane is a ring of `interval` cycles; a row that holds it from cycle t on takes
the places t mod interval, and no place is taken twice. Rows are placed one after another, each at the first
cycle at which its operands are there and its ring has room. An accumulator is a ring too, taken from the
first product of a tile until its write-back.
Source: Rau, iterative modulo scheduling (MICRO 1994), without the backtracking: a longer interval is tried
instead.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

NEAR = 512  # cycles that are looked at before the whole ring is
STEPS = 64  # delays tried for a tile that finds no free accumulator
LONG = 4  # a row that holds a plane this many times as long as any product may get its place in advance,
SHARE = 32  # and so may a row that holds a unit for more than such a part of the interval
LATER = 4  # of an interval: how long a narrow row may wait for a place where no wide one fits
ALIGNED = 8  # cycles that places made in advance begin at multiples of


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """Rows that share an accumulator: products, and their write-back; `place` names the plane."""

    products: tuple[int, ...]
    drain: int
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Rows to place. By row: latency and hold in cycles, resource, how many neighbouring instances it takes.

    before, after: by row, the rows that it waits for and that wait for it. By resource: instances, whether
    its rows take one each, so that their places may be chosen before they are (movable).
    tiles: the chains on accumulators; places: the planes that they are on; accumulators: what each has.
    """

    hold: list[int]
    latency: list[int]
    resource: list[int]
    width: list[int]
    before: list[list[int]]
    after: list[list[int]]
    instances: list[int]
    movable: list[bool]
    tiles: tuple[Tiles, ...]
    places: int
    accumulators: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRows:
    """Start and first instance of every row, the accumulator of every chain, and the rings: free, held."""

    start: np.ndarray
    instance: np.ndarray
    accumulator: list[int]
    free: list[list[int]]
    held: list[list[int]]


class Ring:
    """Masks of free cycles, modulo an interval; kept twice side by side, so that runs may wrap around."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.full = (1 << interval) - 1
        self.empty = (1 << 2 * interval) - 1

    def first(self, starts: int, ready: int) -> int:
        """The first cycle from `ready` on whose place is among `starts`, or -1."""
        place = ready % self.interval
        later = starts >> place
        if later:
            return ready + (later & -later).bit_length() - 1
        return ready + self.interval - place + (starts & -starts).bit_length() - 1 if starts else -1

    def room(self, free: int, hold: int, ready: int) -> int:
        """The first cycle from `ready` on at which `hold` free cycles in a row begin, or -1."""
        near = NEAR + 2 * hold
        if near < self.interval:
            starts = runs(free >> ready % self.interval & (1 << near) - 1, hold)
            if starts:
                return ready + (starts & -starts).bit_length() - 1
        return self.first(runs(free, hold) & self.full, ready)

    def taken(self, start: int, hold: int) -> int:
        """The mask of a hold, twice side by side."""
        mask = ((1 << hold) - 1) << start % self.interval
        return (mask | mask << self.interval | mask >> self.interval) & self.empty

    def turned(self, free: int, cycles: int) -> int:
        """The mask as seen from `cycles` later."""
        one = free >> cycles % self.interval & self.full
        return one | one << self.interval


def _all_free(rings: Sequence[int]) -> int:
    """The cycles that are free on all of these rings."""
    common = rings[0]
    for one in rings[1:]:
        common &= one
    return common


def _multiples(cut: int, interval: int) -> int:
    """The mask of the cycles of a ring at which holds of `cut` cycles leave nothing free between them."""
    out = 0
    for i in range(0, interval - cut + 1, cut):
        out |= 1 << i
    return out


def runs(free: int, hold: int) -> int:
    """The places at which `hold` free cycles in a row begin."""
    have = 1
    while have < hold:
        step = min(have, hold - have)
        free &= free >> step
        have += step
    return free


def place_rows(
    problem: Problem,
    interval: int,
    free: Sequence[Sequence[int]],
    held: Sequence[Sequence[int]],
    advance: bool,
    tight: bool = False,
) -> PlacedRows | None:
    """Place every row, or None if one finds no room.

    advance: long rows get their places on planes first, so that short ones do not cut what is left to pieces.
    tight: rows begin where nothing is left between them that none can use, and narrow ones go where wide ones
    find no room any more, even if that is a little later.

    free[resource][instance], held[place][accumulator]: the rings to begin with, free and taken cycles.
    """
    if max(problem.hold, default=0) > interval:
        return None
    placing = _Placing(problem, interval, free, held, tight)
    return None if advance and not placing.advance() else placing.run()


class _Placing:
    def __init__(
        self,
        problem: Problem,
        interval: int,
        free: Sequence[Sequence[int]],
        held: Sequence[Sequence[int]],
        tight: bool,
    ) -> None:
        self.tight = tight
        self.problem, self.ring = problem, Ring(interval)
        self.free = [list(one) for one in free]
        size = len(problem.hold)
        self.start, self.ready, self.instance = [-1] * size, [0] * size, [0] * size
        self.accumulator = [-1] * len(problem.tiles)
        self.held = [list(one) for one in held]
        self.places: dict[tuple[int, int], list[int]] = {}
        common, self.widest = [0] * len(self.free), [0] * len(self.free)
        for row, one in enumerate(problem.resource):
            self.widest[one] = max(self.widest[one], problem.width[row])
            common[one] = gcd(common[one], problem.hold[row])
        self.aligned = [_multiples(cut, interval) if tight and cut > 1 else None for cut in common]

    def advance(self) -> bool:
        """Set places aside for long rows, evenly over the ring of each instance; False: no room."""
        p, ring = self.problem, self.ring
        products: dict[int, int] = {}
        chained = [False] * len(p.hold)
        for tiles in p.tiles:
            for row in (*tiles.products, tiles.drain):
                chained[row] = True
                products[p.resource[row]] = max(products.get(p.resource[row], 0), p.hold[row])
        long: dict[tuple[int, int], list[int]] = {}
        for row, one in enumerate(p.resource):
            least = min(LONG * products.get(one, ring.interval), ring.interval // SHARE)
            if not chained[row] and p.movable[one] and p.hold[row] > least:
                rings = range(p.instances[one])
                which = min(rings, key=lambda i, one=one: sum(long.get((one, i), ())))
                long.setdefault((one, which), []).append(p.hold[row])
        return all(self._set_aside(one, which, holds) for (one, which), holds in long.items())

    def _set_aside(self, one: int, which: int, holds: list[int]) -> bool:
        """Places evenly apart, or, if they do not fit so, close together behind what is taken."""
        ring, whole = self.ring, self.free[one][which]
        gap = max(0, ring.interval - sum(holds)) // len(holds) // ALIGNED * ALIGNED
        edges = whole & ~ring.turned(whole, -1) & ring.full  # free cycles behind taken ones
        for apart, start in ((gap, 0), (0, (edges & -edges).bit_length() - 1 if edges else 0)):
            free, starts = whole, list[int]()
            for hold in holds:
                start = ring.room(free, hold, start)
                if start < 0:
                    break
                free &= ~ring.taken(start, hold)
                starts.append(start)
                start += hold + apart
            else:
                self.free[one][which] = free
                for hold, begin in zip(holds, starts, strict=True):
                    kept = self.places.setdefault((one, hold), [0] * self.problem.instances[one])
                    kept[which] |= 1 << begin % ring.interval
                return True
        return False

    def run(self) -> PlacedRows | None:
        """Groups (chains, other rows alone) in order of their first row, once what they read is placed."""
        p = self.problem
        group = list(range(len(p.hold)))
        chain: dict[int, int] = {}
        for i, tiles in enumerate(p.tiles):
            head = tiles.products[0]
            chain[head] = i
            for row in (*tiles.products, tiles.drain):
                group[row] = head
        waiting = [0] * len(group)
        for row, rows in enumerate(p.before):
            waiting[group[row]] += sum(group[one] != group[row] for one in rows)
        queue = [row for row in range(len(group)) if group[row] == row and not waiting[row]]
        heapq.heapify(queue)
        left = len(group)
        while queue:
            head = heapq.heappop(queue)
            tiles = p.tiles[chain[head]] if head in chain else None
            rows = (*tiles.products, tiles.drain) if tiles else (head,)
            if not (self._chain(tiles, chain[head]) if tiles else self._row(head)):
                return None
            left -= len(rows)
            for row in rows:
                done = self.start[row] + p.latency[row]
                for one in p.after[row]:
                    self.ready[one] = max(self.ready[one], done)
                    if group[one] != head:
                        waiting[group[one]] -= 1
                        if not waiting[group[one]]:
                            heapq.heappush(queue, group[one])
        assert not left, "a cycle among the rows of a stage"
        return PlacedRows(
            start=np.array(self.start, np.int64),
            instance=np.array(self.instance, np.int64),
            accumulator=self.accumulator,
            free=self.free,
            held=self.held,
        )

    def _row(self, row: int) -> bool:
        p, ring = self.problem, self.ring
        hold, width, ready = p.hold[row], p.width[row], self.ready[row]
        kept = self.places.get((p.resource[row], hold))
        if kept and any(kept):
            starts = [(ring.first(one, ready), i) for i, one in enumerate(kept) if one]
            self.start[row], self.instance[row] = min(starts)
            kept[self.instance[row]] &= ~(1 << self.start[row] % ring.interval)
            return True
        rings, widest = self.free[p.resource[row]], self.widest[p.resource[row]]
        best, at = -1, -1
        sides = range(0, len(rings) - width + 1, width)  # side by side, so that no lanes are cut off
        for tight in (True, False) if self.tight and width < widest else (False,):
            for first in reversed(sides) if self.tight and width < widest else sides:
                common = _all_free(rings[first : first + width])
                if tight:
                    side = first // widest * widest
                    common &= ~_all_free(rings[side : side + widest])
                start = self._room(p.resource[row], common, hold, ready)
                if start >= 0 and (best < 0 or start < best):
                    best, at = start, first
                    if start == ready:
                        break
            if best >= 0 and (not tight or best - ready <= ring.interval // LATER):
                break
            if tight:
                best, at = -1, -1
        if best < 0:
            return False
        taken = ring.taken(best, hold)
        for i in range(at, at + width):
            rings[i] &= ~taken
        self.start[row], self.instance[row] = best, at
        return True

    def _room(self, one: int, free: int, hold: int, ready: int) -> int:
        """The first cycle from `ready` on for a row: where its ring is cut evenly, at the cuts."""
        aligned = self.aligned[one]
        if aligned is None:
            return self.ring.room(free, hold, ready)
        starts = runs(free, hold) & self.ring.full
        start = self.ring.first(starts & aligned, ready)
        return start if start >= 0 else self.ring.first(starts, ready)

    def _chain(self, tiles: Tiles, index: int) -> bool:
        """Products close together, so that the accumulator is soon free: none before the last can follow."""
        p, ring = self.problem, self.ring
        products = sorted(tiles.products, key=lambda row: (self.ready[row], row))
        floor, length = 0, 0
        for row in products:
            floor = max(floor, self.ready[row] - length)
            length += p.hold[row]
        plane, drain = self.free[p.resource[products[0]]], self.free[p.resource[tiles.drain]]
        for _ in range(STEPS):
            free, done = plane[0], 0
            starts: list[int] = []
            for row in products:
                hold = p.hold[row]
                start = ring.room(free, hold, max(floor, self.ready[row]))
                if start < 0:
                    return False
                free &= ~ring.taken(start, hold)
                done = max(done, start + p.latency[row])
                starts.append(start)
            last = ring.room(drain[0], p.hold[tiles.drain], max(done, self.ready[tiles.drain]))
            span = last + 1 - min(starts)
            if last < 0:
                return False
            if span <= ring.interval:
                taken = ring.taken(min(starts), span)
                for slot, held in enumerate(self.held[tiles.place]):
                    if not held & taken:
                        self.held[tiles.place][slot] |= taken
                        self.accumulator[index] = slot
                        plane[0] = free
                        drain[0] &= ~ring.taken(last, p.hold[tiles.drain])
                        for row, start in zip((*products, tiles.drain), (*starts, last), strict=True):
                            self.start[row] = start
                        return True
            floor += max(1, ring.interval // STEPS)
        return False
