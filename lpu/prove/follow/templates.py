"""Blocks as templates: followed once, with slots for tensors and inputs for what it finds in memory.

A call whose tensors follow the same pattern of names and shapes, and that finds lines of the same kinds,
lanes and pattern of values, leaves the same with its own terms in the places of slots and inputs.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.program.program import Block
from lpu.prove.follow.block_rows import LINE_BITS, BlockRows
from lpu.prove.follow.preloads import BoundPreloads, check_maps
from lpu.prove.follow.walk import Memo, Region, Walked, walk
from lpu.prove.known import Known
from lpu.prove.lines import Chosen, StateLines, Statistic, Vector
from lpu.prove.refused import RefusedError, need
from lpu.prove.terms import INPUT, SLOT

_HANDED = (Vector, Statistic, Chosen)  # what a call may find that another left
_SHARED = -1  # the slot of what chips share


class Maker(NamedTuple):
    """Which row of which call made a term."""

    call: int
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finds:
    """What a call finds: tensors by slot as terms, the shared one (-1: none), its message, lines by place."""

    call: int
    name: str
    chips: tuple[int, ...]
    tensors: tuple[int, ...]
    shared: int
    message: int
    lines: dict[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a call leaves, in its own terms: KV regions, lines of an answer. Its lines are in memory."""

    regions: dict[Region, int]
    given: dict[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Template:
    """A block that was followed. found, kept: keys of lines from outside, of lines left, and their records.

    placed: by the chips of a call, where these keys are, and which of `kept` anything reads later.
    """

    pattern: tuple[Any, ...]
    found: Int[np.ndarray, " found"]
    records: list[int]
    walked: Walked
    kept: Int[np.ndarray, " kept"]
    left: Int[np.ndarray, " kept"]
    placed: dict[tuple[int, ...], tuple[list[int], list[int], list[int]]]


def places(keys: Int[np.ndarray, " keys"], chips: tuple[int, ...]) -> Int[np.ndarray, " keys"]:
    """Chip and line, as one number, of the lines of a block on the chips of a call."""
    return np.array(chips, np.int64)[keys >> LINE_BITS] << LINE_BITS | keys & ((1 << LINE_BITS) - 1)


@dataclass(slots=True)
class Templates:
    """The templates of one block in one context. wanted: places that are read later, in order."""

    known: Known
    block: Block
    rows: BlockRows
    memo: Memo
    wanted: Int[np.ndarray, " wanted"]
    made: list[_Template] = field(default_factory=list[_Template])
    origins: dict[int, Maker] = field(default_factory=dict[int, Maker])

    def call(self, finds: Finds) -> Left:
        """Follow one call; what it leaves. Raises RefusedError."""
        slots, pattern = self._slots(finds)
        for template in self.made:
            bound = self._match(template, finds, slots, pattern)
            if bound is not None:
                return self._bound(template, bound, finds)
        template, bound = self._follow(finds, slots, pattern)
        self.made.append(template)
        return self._bound(template, bound, finds)

    def _placed(self, template: _Template, chips: tuple[int, ...]) -> tuple[list[int], list[int], list[int]]:
        """Places of what a template finds; places and records of what it leaves for others."""
        if chips not in template.placed:
            at = places(template.kept, chips)
            spot = np.minimum(np.searchsorted(self.wanted, at), max(len(self.wanted) - 1, 0))
            read = self.wanted[spot] == at if len(self.wanted) else np.zeros(len(at), bool)
            template.placed[chips] = (
                places(template.found, chips).tolist(),
                at[read].tolist(),
                template.left[read].tolist(),
            )
        return template.placed[chips]

    def _slots(self, finds: Finds) -> tuple[list[int], tuple[Any, ...]]:
        """The slot of each tensor, the first of equal ones; with their shapes the pattern of a call."""
        terms = self.known.terms
        first = [finds.tensors.index(one) for one in finds.tensors]
        shapes = [terms.shape(one) for one in finds.tensors]
        slots = [terms.make(SLOT, (), (i,), shape) for i, shape in zip(first, shapes, strict=True)]
        cut: list[tuple[int, ...]] = []
        for slot, i, tensor in zip(slots, first, finds.tensors, strict=True):
            self.known.pieces.pop(slot, None)
            if pieces := self.known.pieces.get(tensor):
                cut.append((i, *(start for start, _, _ in pieces), *(count for _, count, _ in pieces)))
                self.known.pieces[slot] = [
                    (start, count, terms.make(SLOT, (), (i, start), terms.shape(piece)))
                    for start, count, piece in pieces
                ]
        shared = terms.shape(finds.shared) if finds.shared >= 0 else ()
        message = terms.shape(finds.message) if finds.message >= 0 else ()
        return slots, (tuple(first), tuple(shapes), tuple(cut), shared, message, self.known.wires)

    def _bind(self, finds: Finds, slots: list[int]) -> dict[int, int]:
        """The terms of a call by the slots that stand for them."""
        terms = self.known.terms
        bound = dict(zip(slots, finds.tensors, strict=True))
        for slot, tensor in list(bound.items()):
            for local, piece in zip(
                self.known.pieces.get(slot, ()), self.known.pieces.get(tensor, ()), strict=True
            ):
                bound[local[2]] = piece[2]
        if finds.shared >= 0:
            bound[terms.make(SLOT, (), (_SHARED,), terms.shape(finds.shared))] = finds.shared
        if finds.message >= 0:
            bound[self._message(finds)] = finds.message
        return bound

    def _message(self, finds: Finds) -> int:
        return self.known.terms.make(INPUT, (), ("message",), self.known.terms.shape(finds.message))

    def _follow(
        self, finds: Finds, slots: list[int], pattern: tuple[Any, ...]
    ) -> tuple[_Template, dict[int, int]]:
        """Follow the block for a call, and keep it as a template."""
        known, terms = self.known, self.known.terms
        shapes = dict(enumerate(pattern[1]))
        known.names = {
            slot: known.show(term) for slot, term in self._bind(finds, slots).items() if term != slot
        }
        names = {i: known.show(one) for i, one in enumerate(finds.tensors)}
        found: dict[int, int] = {}
        inputs: dict[int, int] = {}

        def outside(key: int) -> int:
            chip, line = finds.chips[key >> LINE_BITS], key & ((1 << LINE_BITS) - 1)
            number = finds.lines.get(chip << LINE_BITS | line, -1)
            need(number >= 0, f"reads line {line} of chip {chip}, which nothing has written yet")
            record = known.things[number]
            need(isinstance(record, _HANDED), "reads what an earlier block left unfinished")
            value = record.value
            if value not in inputs:
                inputs[value] = terms.make(INPUT, (), (len(inputs),), terms.shape(value))
                known.names[inputs[value]] = known.show(value)
            found[key] = known.number(record._replace(value=inputs[value]))
            return found[key]

        check_maps(self.block, shapes, names)
        shared = -1
        if finds.shared >= 0:
            shared = terms.make(SLOT, (), (_SHARED,), terms.shape(finds.shared))
        if len(self.rows.read.shared):
            need(shared >= 0, "reads a shared table, none lies there")
        known.message = self._message(finds) if finds.message >= 0 else -1
        preloads = BoundPreloads(known, self.block, self.rows.read, slots, shared)
        try:
            walked = walk(known, self.rows, preloads, self.memo, outside)
        except RefusedError as refused:
            raise RefusedError(refused.reason, layer=finds.name, row=refused.row) from None
        finally:
            known.names = {}
        kept, left = list(walked.lines), list(walked.lines.values())
        walked.lines = {}
        bound = self._bind(finds, slots) | {one: value for value, one in inputs.items()}
        template = _Template(
            pattern=pattern,
            found=np.array(list(found), np.int64),
            records=list(found.values()),
            walked=walked,
            kept=np.array(kept, np.int64),
            left=np.array(left, np.int64),
            placed={},
        )
        return template, bound

    def _match(
        self, template: _Template, finds: Finds, slots: list[int], pattern: tuple[Any, ...]
    ) -> dict[int, int] | None:
        """The terms of a call by slots and inputs of a template; None if it is not the same."""
        if template.pattern != pattern:
            return None
        things, terms = self.known.things, self.known.terms
        bound = self._bind(finds, slots)
        have = [finds.lines.get(place, -1) for place in self._placed(template, finds.chips)[0]]
        for number, local in set(zip(have, template.records, strict=True)):
            record, wanted = things[number], things[local]
            if number < 0 or type(record) is not type(wanted):
                return None
            value = bound.setdefault(wanted.value, record.value)
            if record != wanted._replace(value=value) or terms.shape(value) != terms.shape(wanted.value):
                return None
        return bound

    def _bound(self, template: _Template, bound: dict[int, int], finds: Finds) -> Left:
        known, terms = self.known, self.known.terms
        rows = template.walked.made

        def made(term: int, local: int) -> None:
            self.origins.setdefault(term, Maker(finds.call, rows.get(local, -1)))

        numbers: dict[int, int] = {}

        def line(number: int) -> int:
            if number not in numbers:
                record = known.things[number]
                if isinstance(record, _HANDED):
                    record = record._replace(value=terms.bind(record.value, bound, made))
                numbers[number] = known.number(record)
            return numbers[number]

        regions: dict[Region, int] = {}
        for place, number in template.walked.regions.items():
            head = known.things[number]
            if isinstance(head, StateLines):
                bound_state = head._replace(value=terms.bind(head.value, bound, made))
                regions[place] = known.number(bound_state)
                continue
            keys, values = (terms.bind(one, bound, made) for one in (head.keys, head.values))
            regions[place] = known.number(head._replace(keys=keys, values=values))
        _, at, left = self._placed(template, finds.chips)
        bound_lines = {number: line(number) for number in set(left)}
        finds.lines.update(zip(at, [bound_lines[number] for number in left], strict=True))
        return Left(
            regions=regions,
            given={i: line(number) for i, number in template.walked.given.items()},
        )
