"""Templates of the blocks of a step, each made once for all groups of chips that it suits."""

from collections.abc import Hashable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from compiler.lower.blocks import ModelBlock, input_lines
from compiler.lower.context import Group
from compiler.place.assignment import Assignment
from compiler.place.sizes import k_parts
from compiler.place.stripes import Beside, ranked
from compiler.route.reuse import Reuse
from compiler.schedule.handed import arrived, sends_input
from compiler.schedule.template import Template, template
from compiler.scheduled import TemplateCall
from fabric.rack import Rack


class Where(NamedTuple):
    """The chips of a block by rank, and those beside them."""

    chips: tuple[int, ...]
    beside: Beside = ()


class TemplateCache:
    """Templates made so far, looked up by block kind, parity and routes."""

    def __init__(self, assignment: Assignment, rack: Rack, layout: str) -> None:
        self.plan, self.rack, self.layout = assignment.plan, rack, layout
        self.templates: list[Template] = []
        self._needs: dict[tuple[str, int], Bool[np.ndarray, "ranks lines"]] = {}
        self._reuse = Reuse(rack, thrifty=self.plan.demands.somewhere_everywhere)
        self._hops: dict[tuple[str, tuple[int, ...]], TemplateCall] = {}

    def call(
        self,
        block: ModelBlock,
        where: Where,
        reader: ModelBlock,
        after: tuple[int, ...],
        parity: int,
        arrived: tuple[bool, ...] = (),
        less: Bool[np.ndarray, "targets lines"] | None = None,
    ) -> TemplateCall:
        """The block where it runs, its result going to the block `reader` on the chips `after`.

        arrived: see `Group`. less: what is not wanted there.
        """
        wanted = self.wanted(reader, len(after))
        return self._call(block, where, after, wanted if less is None else wanted & ~less, parity, arrived)

    def arrived(
        self, block: ModelBlock, chips: tuple[int, ...], before: TemplateCall | None
    ) -> tuple[bool, ...]:
        """Of each line of a block's input, whether its owner has it from another chip."""
        if before is None:
            return ()
        made = self.templates[before.template]
        columns = made.columns[max(made.columns)]
        return arrived(self.plan.demands, block, chips, columns, made.uids, before.chips)

    def last(self, block: ModelBlock, where: Where, parity: int) -> TemplateCall:
        """The block where it runs, its result staying on the first of its chips."""
        return self._call(block, where, where.chips[:1], np.ones((1, 1), bool), parity)

    def hop(self, block: ModelBlock, chips: tuple[int, ...]) -> TemplateCall:
        """The hop on `chips`, its result going to the host lanes."""
        if (block.kind, chips) not in self._hops:
            found = self._call(block, Where(chips), (), np.zeros((0, 0), bool), 0)
            self._hops[block.kind, chips] = found
        return replace(self._hops[block.kind, chips], block=block)

    def _call(
        self,
        block: ModelBlock,
        where: Where,
        after: tuple[int, ...],
        wanted: Bool[np.ndarray, "targets lines"],
        parity: int,
        arrived: tuple[bool, ...] = (),
    ) -> TemplateCall:
        everyone, beside, targets = ranked(where.chips, where.beside, after)
        ranks = len(where.chips)
        parts = k_parts(self.layout, ranks)
        group = Group(ranks=ranks, k_parts=parts, targets=targets, wanted=wanted, beside=beside)
        key = (block.kind, ranks, beside, targets, wanted.tobytes(), parity)
        known = self._found(key, everyone, block, group, parity, any(arrived))
        if known is None:
            known = self._found((*key, arrived), everyone, block, replace(group, arrived=arrived), parity)
            assert known is not None
        return TemplateCall(block=block, template=known[0], chips=known[1])

    def _found(
        self,
        key: Hashable,
        chips: tuple[int, ...],
        block: ModelBlock,
        group: Group,
        parity: int,
        keeping: bool = False,
    ) -> tuple[int, tuple[int, ...]] | None:
        """The template of a key and its chips, made if there is none; keeping: None if it sends its input."""
        known = self._reuse.find(key, chips)
        if known is not None:
            return None if keeping and _sends_input(self.templates[known[0]]) else known
        made = template(self.plan, block, group, self._reuse.router(chips), parity)
        if keeping and _sends_input(made):
            return None
        self._reuse.add(key, made.router, len(self.templates))
        self.templates.append(made)
        return len(self.templates) - 1, tuple(made.router.chips)

    def only(self, calls: list[TemplateCall]) -> list[TemplateCall]:
        """The calls, with no template kept that none of them uses."""
        used = sorted({call.template for call in calls})
        self.templates = [self.templates[one] for one in used]
        return [replace(call, template=used.index(call.template)) for call in calls]

    def wanted(self, reader: ModelBlock, ranks: int) -> Bool[np.ndarray, "ranks lines"]:
        """The lines of its input that a block reads on each of its ranks."""
        key = (reader.kind, ranks)
        if key not in self._needs:
            self._needs[key] = input_lines(self.plan.demands, reader, ranks, k_parts(self.layout, ranks))
        return self._needs[key]


def _sends_input(made: Template) -> bool:
    return any(sends_input(columns.op, columns.src_tag) for columns in made.columns.values())
