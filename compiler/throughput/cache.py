"""Stages lowered so far, looked up by what they hold, and their placements on rings tried so far."""

from collections.abc import Hashable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock, input_lines
from compiler.lower.context import Group
from compiler.place.assignment import Assignment
from compiler.place.sizes import k_parts
from compiler.route.reuse import Reuse
from compiler.schedule.handed import arrived, sends_input
from compiler.steps import Progress, listed
from compiler.throughput.modulo import PlacedRows, place_rows
from compiler.throughput.rings import Masks
from compiler.throughput.stage import LoweredStage, lower_stage
from fabric.rack import Rack


def lower_stages(
    assignment: Assignment, blocks: tuple[ModelBlock, ...], rack: Rack, layout: str, progress: Progress
) -> "StageCache":
    """Lower every stage: the consecutive blocks that run on the same chips. Raises RoutingError."""
    cache, chips = StageCache(assignment, rack, layout), assignment.chips
    cuts = [i for i in range(len(blocks)) if not i or chips[i] != chips[i - 1]]
    for first, end in zip(cuts, [*cuts[1:], len(blocks)], strict=True):
        progress("lower", first, len(blocks))
        after = end % len(blocks)
        cache.call(blocks[first:end], chips[first], blocks[after], chips[after])
    return cache


class StageCache:
    """Stages by what they hold and where they hand it to; calls: each on its chips, in order."""

    def __init__(self, assignment: Assignment, rack: Rack, layout: str) -> None:
        self.assignment, self.rack, self.layout = assignment, rack, layout
        self.lowered: list[LoweredStage] = []
        self.calls: list[tuple[int, tuple[int, ...]]] = []
        self.blocks: list[tuple[ModelBlock, ...]] = []
        self._reuse = Reuse(rack)
        self._tried: dict[tuple[int, int, int, Masks, Masks], int] = {}
        self.placed: list[PlacedRows | None] = []

    @property
    def plan(self) -> Plan:
        """What all stages share."""
        return self.assignment.plan

    def __str__(self) -> str:
        context = max(self.plan.contexts)
        lines: list[str] = []
        for (index, chips), blocks in zip(self.calls, self.blocks, strict=True):
            rows = len(self.lowered[index].bodies[context].problem.rows)
            lines.append(
                f"stage {index}: {blocks[0].name} to {blocks[-1].name}, {rows} rows, chip {chips[0]}"
            )
        return "\n".join([f"{len(self.lowered)} stages, {len(lines)} calls of them", *listed(lines)])

    def call(
        self,
        blocks: tuple[ModelBlock, ...],
        chips: tuple[int, ...],
        reader: ModelBlock,
        after: tuple[int, ...],
    ) -> None:
        """The next stage, on `chips`; its result goes to the block `reader` on the chips `after`."""
        others = tuple(chip for chip in after if chip not in chips)
        ranks = {chip: rank for rank, chip in enumerate(chips + others)}
        targets = tuple(ranks[chip] for chip in after)
        wanted = self._wanted(reader, len(after))
        key = ("\n".join(block.kind for block in blocks), targets, wanted.tobytes())
        self.blocks.append(blocks)
        own = tuple(range(len(chips)))
        parts = k_parts(self.layout, len(chips))
        groups = [
            Group(ranks=len(chips), k_parts=parts, targets=own, wanted=self._wanted(block, len(chips)))
            for block in blocks[1:]
        ]
        groups.append(Group(ranks=len(chips), k_parts=parts, targets=targets, wanted=wanted))
        from_ = self._arrived(blocks[0], chips)
        known = self._found(key, chips + others, blocks, groups, any(from_))
        if known is None:
            groups[0] = replace(groups[0], arrived=from_)
            known = self._found((*key, from_), chips + others, blocks, groups)
            assert known is not None
        self.calls.append(known)

    def _arrived(self, block: ModelBlock, chips: tuple[int, ...]) -> tuple[bool, ...]:
        """Of each line of a block's input, whether its owner has it from another chip than made it."""
        if not self.calls:
            return ()
        before, at = self.calls[-1]
        body = self.lowered[before].bodies[max(self.plan.contexts)]
        return arrived(self.plan.demands, block, chips, body.problem.rows, body.offsets[-1], at)

    def _found(
        self,
        key: Hashable,
        chips: tuple[int, ...],
        blocks: tuple[ModelBlock, ...],
        groups: list[Group],
        keeping: bool = False,
    ) -> tuple[int, tuple[int, ...]] | None:
        """The stage of a key and its chips, lowered if there is none; keeping: None if it sends its input."""
        known = self._reuse.find(key, chips)
        if known is not None:
            return None if keeping and _sends_input(self.lowered[known[0]]) else known
        router = self._reuse.router(chips)
        made = lower_stage(self.plan, blocks, tuple(groups), router)
        if keeping and _sends_input(made):
            return None
        self._reuse.add(key, router, len(self.lowered))
        self.lowered.append(made)
        return len(self.lowered) - 1, tuple(router.chips)

    def _wanted(self, reader: ModelBlock, ranks: int) -> Bool[np.ndarray, "ranks lines"]:
        parts = k_parts(self.layout, ranks)
        return input_lines(self.plan.demands, reader, ranks, parts)

    def place(self, index: int, context: int, interval: int, free: Masks, held: Masks) -> int | None:
        """The number of the placement of a stage on rings that are free and held so, if there is one."""
        key = (index, context, interval, free, held)
        if key not in self._tried:
            body = self.lowered[index].bodies[context].problem
            self._tried[key] = len(self.placed)
            about = body.problem, interval, free, held
            ways = ((False, False), (True, False), (False, True), (True, True))
            found = (place_rows(*about, advance=advance, tight=tight) for advance, tight in ways)
            self.placed.append(next((one for one in found if one is not None), None))
        number = self._tried[key]
        return None if self.placed[number] is None else number


def _sends_input(made: LoweredStage) -> bool:
    rows = [body.problem.rows for body in made.bodies.values()]
    return any(sends_input(one.op, one.src_tag) for one in rows)
