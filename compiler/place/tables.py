"""Tables: the cost model for blocks on whole groups, as plain lists that a search reads millions of times."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.place.problem import Placement, Shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """By kind: cycles of a block alone on each group, of handing on from group to group, busy cycles, words.

    words: of the fullest rank; while their sum is within the room of a chip, no rank is over capacity.
    """

    shards: Shards
    groups: tuple[tuple[int, ...], ...]
    alpha: int
    alone: list[list[int]]
    hand: list[list[list[int]]]
    busy: list[int]
    words: list[int]

    def latency(self, at: Sequence[int]) -> int:
        """Cycles of a step with block i on group at[i]; equal to the cost model's."""
        shards = self.shards
        kinds, finish = shards.kinds, [0] * len(at)
        free = [0] * len(self.groups)
        for i, group in enumerate(at):
            start = free[group]
            for before in shards.before[i]:
                arrival = finish[before] + self.hand[kinds[before]][at[before]][group]
                if arrival > start:
                    start = arrival
            finish[i] = free[group] = start + self.alone[kinds[i]][group]
        ring = self.hand[kinds[-1]][at[-1]][at[0]] if shards.ring else 0
        return max(finish) + ring

    def period(self, at: Sequence[int]) -> int:
        """Busy cycles of the busiest group."""
        total = [0] * len(self.groups)
        for kind, group in zip(self.shards.kinds, at, strict=True):
            total[group] += self.busy[kind]
        return max(total)

    def used(self, at: Sequence[int]) -> list[int]:
        """Words on the fullest rank of each group, at most."""
        total = [0] * len(self.groups)
        for kind, group in zip(self.shards.kinds, at, strict=True):
            total[group] += self.words[kind]
        return total

    def fits(self, at: Sequence[int]) -> bool:
        """Whether every group has room."""
        return max(self.used(at)) <= self.shards.room

    def value(self, at: Sequence[int]) -> int:
        """Latency + alpha x period."""
        return self.latency(at) + (self.alpha * self.period(at) if self.alpha else 0)

    def placement(self, at: Sequence[int]) -> Placement:
        """The chips of every shard."""
        return np.array([self.groups[group] for group in at], np.int64)

    def order(self) -> list[int]:
        """The groups as a walk that always goes on to where handing on is fastest, beginning at the first."""
        total = [
            [sum(table[a][b] for table in self.hand) for b in range(len(self.groups))]
            for a in range(len(self.groups))
        ]
        walk = [0]
        left = list(range(1, len(self.groups)))
        while left:
            after = min(left, key=lambda group: (total[walk[-1]][group], group))
            walk.append(after)
            left.remove(after)
        return walk
