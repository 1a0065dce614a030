"""One context bucket: the calls of a program in the order of time, and what its memory holds at the end."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from compiler.program.isa import ANGLES, KV, SHARED, SPACE_SHIFT
from compiler.program.program import Call, Program
from lpu.prove.follow.block_rows import LINE_BITS, BlockRows, block_rows
from lpu.prove.follow.overlap import Touched, out_of_order, placed, touched
from lpu.prove.follow.templates import Finds, Left, Maker, Templates, places
from lpu.prove.follow.walk import Memo
from lpu.prove.known import Known
from lpu.prove.models.record import ModelTerms
from lpu.prove.refused import RefusedError, need

_OFFSET = (1 << SPACE_SHIFT) - 1
Placed = tuple[int, int]  # chip, and line or word


@dataclass(slots=True)
class Memory:
    """What chips hold after some calls: lines that others read, by place; KV regions by chip and word."""

    lines: dict[int, int] = field(default_factory=dict[int, int])
    regions: dict[Placed, int] = field(default_factory=dict[Placed, int])


@dataclass(slots=True)
class StepProof:
    """The calls of a program, prepared for one context."""

    known: Known
    program: Program
    model: ModelTerms
    context: int
    rows: dict[int, BlockRows] = field(default_factory=dict[int, BlockRows])
    templates: dict[int, Templates] = field(default_factory=dict[int, Templates])
    shared: dict[Placed, str] = field(default_factory=dict[Placed, str])

    def __post_init__(self) -> None:
        self.known.context = self.context
        calls = self.program.calls
        for call in calls:
            self._prepare(call)
        self.shared = dict(_shared(self.program))
        asked = [places(self.rows[call.block].outside, call.chips) for call in calls]
        wanted = np.unique(np.concatenate([*asked, np.array(list(self._outputs()), np.int64)]))
        memo: Memo = {}
        for block, rows in self.rows.items():
            self.templates[block] = Templates(self.known, self.program.blocks[block], rows, memo, wanted)

    def _outputs(self) -> Iterable[int]:
        manifest = self.program.manifest
        for place in (*manifest.logits, *([manifest.token] if manifest.token else [])):
            need(
                0 <= place[0] < manifest.chips,
                f"manifest: an output is on chip {place[0]} of {manifest.chips}",
            )
            need(0 <= place[1] < 1 << LINE_BITS, f"manifest: an output is at word {place[1]}")
            yield place[0] << LINE_BITS | place[1] // manifest.rows

    def _prepare(self, call: Call) -> None:
        blocks = self.program.blocks
        need(0 <= call.block < len(blocks), f"call {call.name} is of block {call.block} of {len(blocks)}")
        if call.block not in self.rows:
            try:
                self.rows[call.block] = block_rows(blocks[call.block], self.context, self.program.manifest)
            except RefusedError as refused:
                raise RefusedError(refused.reason, layer=call.name, row=refused.row) from None
        rows, count = self.rows[call.block], len(call.chips)
        named = max(len(rows.spans), int(blocks[call.block].loads.chip.max(initial=-1)) + 1)
        need(named <= count, f"call {call.name} has {count} chips, its block names {named} ranks")
        chips = self.program.manifest.chips
        need(
            len(set(call.chips)) == count and all(0 <= chip < chips for chip in call.chips),
            f"call {call.name} names a chip twice, or one that is none of {chips}",
        )
        for name in ("weight_base", "kv_base", "shared_base"):
            bases = getattr(call, name)
            need(len(bases) == count and min(bases, default=0) >= 0, f"call {call.name}: {name} of its chips")
        slots = len(blocks[call.block].slots)
        need(
            len(call.tensors) == slots,
            f"call {call.name} names {len(call.tensors)} tensors for {slots} slots",
        )
        need(self.context in call.base, f"call {call.name} has no cycle for context {self.context}")

    def run(self) -> Memory:
        """All calls; what is left. Raises RefusedError."""
        order = sorted(
            range(len(self.program.calls)), key=lambda i: (self.program.calls[i].base[self.context], i)
        )
        self._one_after_another(order)
        self._chunks_apart()
        memory = Memory()
        for index in order:
            left = self.one(index, memory, -1)
            need(not left.given, f"call {self.program.calls[index].name} gives an answer, this is no hop")
            self._keep(self.program.calls[index], left, memory)
        return memory

    def one(self, index: int, memory: Memory, message: int) -> Left:
        """One call in the memory that earlier ones left."""
        call = self.program.calls[index]
        return self.templates[call.block].call(
            Finds(
                call=index,
                name=call.name,
                chips=call.chips,
                tensors=tuple(self._tensor(name) for name in call.tensors),
                shared=self._table(call),
                message=message,
                lines=memory.lines,
            )
        )

    def _tensor(self, name: str) -> int:
        need(name in self.model.tensors, f"{name!r} is no tensor of the model")
        return self.model.tensors[name]

    def _table(self, call: Call) -> int:
        """The tensor that a call reads in the shared space, the same on all of its chips."""
        places = self.rows[call.block].read.shared.tolist()
        names = {
            self.shared.get((call.chips[rank], call.shared_base[rank] + offset), "")
            for rank, offset in places
        }
        if not names:
            return -1
        need(names != {""} and len(names) == 1, f"call {call.name} reads {len(names)} shared tables, or none")
        return self._tensor(names.pop())

    def _keep(self, call: Call, left: Left, memory: Memory) -> None:
        for (rank, word), number in left.regions.items():
            assert word >> SPACE_SHIFT == KV
            place = call.chips[rank], call.kv_base[rank] + (word & _OFFSET)
            need(
                place not in memory.regions,
                f"call {call.name} appends to a KV region a second time in one step",
            )
            memory.regions[place] = number

    def _one_after_another(self, order: list[int]) -> None:
        """On every chip a call begins when the earlier ones are done with what it touches."""
        chips = self.program.manifest.chips
        last_read, last_commit = np.full(chips, -1), np.full(chips, -1)
        seen: dict[int, Touched] = {}
        for count, index in enumerate(order):
            call = self.program.calls[index]
            spans = self.rows[call.block].spans
            at = np.array(call.chips, np.int64)[: len(spans)]
            base = call.base[self.context]
            need(base >= 0, f"call {call.name} begins at cycle {base}")
            first_read, read, first_commit, commit = np.where(spans < 0, -1, spans + base).T
            early = (first_read >= 0) & (last_commit[at] > first_read)
            early |= (first_commit >= 0) & (
                (last_read[at] >= first_commit) | (last_commit[at] >= first_commit)
            )
            if early.any():
                self._apart(order[:count], index, seen)
            last_read[at] = np.maximum(last_read[at], read)
            last_commit[at] = np.maximum(last_commit[at], commit)

    def _apart(self, earlier: list[int], index: int, seen: dict[int, Touched]) -> None:
        """Every earlier call that has not ended when this one begins is done with what this one touches."""
        call = self.program.calls[index]
        ours = self._touched(call, seen)
        begins = call.base[self.context] + int(self.rows[call.block].spans[:, ::2].min())
        for other in (self.program.calls[i] for i in earlier):
            if other.base[self.context] + int(self.rows[other.block].spans.max(initial=-1)) < begins:
                continue
            for key in out_of_order(self._touched(other, seen), ours)[:1].tolist():
                chip, place = key >> LINE_BITS, key & ((1 << LINE_BITS) - 1)
                where = f"line {place:#x} of chip {chip}"
                raise RefusedError(f"call {call.name} takes {where} before {other.name} is done with it")

    def _touched(self, call: Call, seen: dict[int, Touched]) -> Touched:
        if call.block not in seen:
            columns = self.program.blocks[call.block].columns[self.context]
            seen[call.block] = touched(self.rows[call.block], columns, self.program.manifest.chip.planes)
        return placed(seen[call.block], call.chips, call.base[self.context])

    def _chunks_apart(self) -> None:
        """Where chunks follow each other, a chip is done with one before the next comes to it."""
        manifest = self.program.manifest
        if manifest.waves is None or manifest.chunk == 1:
            return
        need(self.context in manifest.waves.contexts, f"no interval of chunks for context {self.context}")
        interval = manifest.waves.contexts[self.context].interval
        first, last = np.full(manifest.chips, 1 << 62), np.full(manifest.chips, -1)
        for call in self.program.calls:
            spans = self.rows[call.block].spans
            at, base = np.array(call.chips, np.int64)[: len(spans)], call.base[self.context]
            begins = np.where(spans[:, ::2] < 0, 1 << 62, spans[:, ::2] + base).min(axis=1)
            ends = np.where(spans < 0, -1, spans + base).max(axis=1)
            np.minimum.at(first, at, begins)
            np.maximum.at(last, at, ends)
        for place in manifest.logits:  # the host reads them when the chunk ends
            last[place.chip] = max(last[place.chip], manifest.cycles[self.context])
        long = np.flatnonzero(last - first >= interval)
        if len(long):
            chip = int(long[0])
            raise RefusedError(
                f"chunks follow each other every {interval} cycles, one is on chip {chip} "
                f"for {last[chip] - first[chip] + 1}"
            )

    def origin(self, term: int) -> Maker | None:
        """Which row made a term."""
        for templates in self.templates.values():
            if term in templates.origins:
                return templates.origins[term]
        return None

    @property
    def followed(self) -> tuple[int, int]:
        """(templates that were followed, rows in them)."""
        counts = [(len(one.made), len(one.made) * len(one.rows)) for one in self.templates.values()]
        return sum(made for made, _ in counts), sum(rows for _, rows in counts)


def _shared(program: Program) -> Iterable[tuple[Placed, str]]:
    """Name of the tensor at each chip and word of the shared space."""
    seen: set[Placed] = set()
    for call in program.calls:
        loads = program.blocks[call.block].loads
        for i in np.flatnonzero(loads.addr >> SPACE_SHIFT == SHARED).tolist():
            rank, slot = int(loads.chip[i]), int(loads.tensor[i])
            need(0 <= slot < len(call.tensors), f"call {call.name}: a shared table is of slot {slot}")
            need(int(loads.kind[i]) == ANGLES, f"call {call.name}: what chips share is no RoPE table")
            place = call.chips[rank], call.shared_base[rank] + (int(loads.addr[i]) & _OFFSET)
            need(place not in seen, f"call {call.name}: two shared tables lie in one place")
            seen.add(place)
            yield place, call.tensors[slot]
