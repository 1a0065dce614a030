"""The cost model of the placement search: a step at the level of blocks and exchanges, not of instructions.

A step runs every block after those that it reads; a chip runs one block at a time, in block order. A block
takes its work, its exchanges between its chips, and hands its result on to each reader. `period` is what the
busiest chip does for a token: with enough tokens in flight no rack gives tokens faster.

Left out (docs/placement.md): that a block begins before all of its input is there and hands on before all of
its result is; waiting for lanes that exchanges of different blocks share; forwarding chips' SRAM and time;
that fewer tiles per chip pad worse on chips other than the ones measured on. So it ranks; `lpu compare` says
how well.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from compiler.place.exchange import Exchange, exchange
from compiler.place.problem import Placement, Shards, chips_of, words_by_chip
from compiler.place.tables import Tables
from fabric.rack import Rack


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What the model says of a placement. `value` is what searches make small: latency + alpha x period.

    link_cycles: of the most loaded link for a token. words: of the fullest chip. hop_words: words sent times
    links crossed.
    """

    latency: int
    period: int
    link_cycles: int
    words: int
    hop_words: int
    value: int


Exchanges = dict[tuple[tuple[int, ...], tuple[int, ...], int], Exchange]
"""By sources, targets and words; models of one rack may share them."""


class CostModel:
    """Estimates for one problem on one rack.

    A search leaves here: `evaluations`, the placements it evaluated that fit; `best`, (evaluations, value)
    whenever it got better; `proved`, whether it showed that no placement on its groups has a lower value.
    """

    def __init__(
        self, shards: Shards, rack: Rack, alpha: int = 0, exchanges: Exchanges | None = None
    ) -> None:
        self.shards, self.rack, self.alpha = shards, rack, alpha
        self.evaluations = 0
        self.proved = False
        self.best: list[tuple[int, int]] = []
        self._exchanges: Exchanges = {} if exchanges is None else exchanges

    def exchange(self, sources: tuple[int, ...], targets: tuple[int, ...], words: int) -> Exchange:
        """The exchange of `words` from each source to all targets, each computed once."""
        key = (sources, targets, words)
        if key not in self._exchanges:
            self._exchanges[key] = exchange(self.rack, sources, targets, words)
        return self._exchanges[key]

    def handed(self, kind: int, chips: tuple[int, ...], to: tuple[int, ...]) -> Exchange:
        """The result of a block of that kind going from its chips to those of a reader."""
        need = self.shards.need(kind, len(chips))
        return self.exchange(chips[: need.sources], to, need.handed)

    def inside(self, kind: int, chips: tuple[int, ...]) -> Exchange:
        """One exchange between the chips of a block; it has `rounds` of them."""
        return self.exchange(chips, chips, self.shards.need(kind, len(chips)).sent)

    def note(self, value: int) -> None:
        """Count an evaluation, and keep its value if it is the best so far."""
        self.evaluations += 1
        if not self.best or value < self.best[-1][1]:
            self.best.append((self.evaluations, value))

    def estimate(self, placement: Placement) -> Estimate:
        """Latency, period and the rest of a placement; its SRAM is not checked."""
        shards = self.shards
        chips = [chips_of(row) for row in placement]
        loads = np.zeros(len(self.rack.links), np.int64)
        busy = np.zeros(self.rack.chips, np.int64)
        hop_words = 0

        def send(one: Exchange, times: int = 1) -> int:
            nonlocal hop_words
            for link, cycles in one.loads:
                loads[link] += cycles * times
            hop_words += one.hop_words * times
            return one.cycles * times

        finish: list[int] = []
        free = [0] * self.rack.chips
        for i, (kind, mine) in enumerate(zip(shards.kinds, chips, strict=True)):
            need = shards.need(kind, len(mine))
            start = max((free[chip] for chip in mine), default=0)
            for before in shards.before[i]:
                arrival = finish[before] + send(self.handed(shards.kinds[before], chips[before], mine))
                start = max(start, arrival)
            finish.append(start + need.work + send(self.inside(kind, mine), need.rounds))
            for chip in mine:
                free[chip] = finish[-1]
            busy[list(mine)] += need.busy
        latency = max(finish)
        if shards.ring:
            latency += send(self.handed(shards.kinds[-1], chips[-1], chips[0]))
        period = int(busy.max())
        return Estimate(
            latency=latency,
            period=period,
            link_cycles=int(loads.max(initial=0)),
            words=int(words_by_chip(shards, placement, self.rack.chips).max()),
            hop_words=hop_words,
            value=latency + self.alpha * period,
        )

    def tables(self, groups: tuple[tuple[int, ...], ...]) -> Tables:
        """The same model for placements that keep every block on one of these groups of `tp` chips."""
        kinds = range(max(self.shards.kinds) + 1)
        shared: dict[tuple[int, int], list[list[int]]] = {}

        def hand(kind: int) -> list[list[int]]:
            need = self.shards.need(kind, self.shards.tp)
            key = (need.sources, need.handed)
            if key not in shared:
                shared[key] = [[self.handed(kind, a, b).cycles for b in groups] for a in groups]
            return shared[key]

        needs = [self.shards.need(kind, self.shards.tp) for kind in kinds]
        return Tables(
            shards=self.shards,
            groups=groups,
            alpha=self.alpha,
            alone=[
                [need.work + need.rounds * self.inside(kind, group).cycles for group in groups]
                for kind, need in zip(kinds, needs, strict=True)
            ],
            hand=[hand(kind) for kind in kinds],
            busy=[need.busy for need in needs],
            words=[max(need.words) for need in needs],
        )


Strategy = Callable[[Shards, Rack, CostModel, int, int], Placement]
"""place(shards, rack, cost, seed, budget) -> the chip of every shard, after at most `budget` evaluations."""
