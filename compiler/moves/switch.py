"""Weights of another model as a program: what its chips need, from the DDR5 of their trays over their lanes.

A word is written while the program before still runs where that holds nothing and leaves the ports room in
every cycle; the others when it has stopped. Source: facts/hardware.md section 2.1 (a lane for each LPU).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.analyse.holds import holds
from compiler.errors import CapacityError, OptionError
from compiler.lower.rows import Kernels
from compiler.program.instruction_set import unit_classes
from compiler.program.instructions.host import LoadKernel
from compiler.program.isa import (
    COLUMNS,
    HOST_IN,
    SHARED,
    SPACE_SHIFT,
    TAGS,
    WORD_BYTES,
    Columns,
    Op,
    ceil_div,
)
from compiler.program.manifest import Manifest, Region, Switch, Waves
from compiler.program.program import LOADS, Block, Call, Loads, Program
from compiler.program.store import sealed
from compiler.schedule.ports import RATE, Moves, word_rates
from compiler.timing import timing
from fabric.host import RESERVOIR, Reservoir, hubs

_EVERYTHING = (Region(0, 1 << SPACE_SHIFT),)


class _Piece(NamedTuple):
    """Neighbouring preloaded words of a rank of a block."""

    rank: int
    space: int
    first: int
    words: int


class _Part(NamedTuple):
    """Words that one row brings: of a rank, to a word of a space, from a word of its FPGA's DDR5 on."""

    rank: int
    space: int
    word: int
    source: int
    words: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    before: Program
    after: Program
    kernel: LoadKernel
    beside: frozenset[int]
    source: tuple[int, ...]


def compile_switch(
    before: Program,
    after: Program,
    reservoir: Reservoir = RESERVOIR,
    *,
    serving: bool = True,
    keeps: bool = False,
) -> Program:
    """The program that brings the weights of `after` in, for a rack on which `before` runs.

    serving: `before` goes on while words come that it leaves room for; else it stops at cycle 0. keeps: its
    users go on with their KV, which is that of `after` too.
    Raises OptionError for programs of two racks, CapacityError for a DDR5 that is too small.
    """
    _check(before.manifest, after.manifest)
    clock = after.manifest.clock_hz
    kernel = LoadKernel(host_slot=reservoir.slot_cycles(clock))
    waves = isinstance(before.manifest.body, Waves)
    beside = frozenset[int]() if waves or not serving else _with_room(before, kernel)
    asked = _Asked(
        before=before,
        after=after,
        kernel=kernel,
        beside=beside,
        source=_sources(after.manifest, reservoir),
    )
    lanes = _Lanes(asked)
    first = lanes.calls(True)
    step = before.manifest.cycles[before.manifest.longest]
    stop = step if waves else step * int(ceil_div(lanes.end, step))
    lanes.wait(stop)
    calls = (*first, *lanes.calls(False))
    body = Switch(
        before=before.manifest.digest,
        after=after.manifest.digest,
        stop=stop,
        held=before.manifest.regions,
        reservoir=reservoir,
        keeps=keeps,
    )
    return _program(after.manifest, lanes, calls, body)


def _check(before: Manifest, after: Manifest) -> None:
    for name in ("rack", "chip", "links"):
        ours, theirs = getattr(before, name), getattr(after, name)
        if replace(ours, planes=1) != replace(theirs, planes=1) if name == "chip" else ours != theirs:
            reason = f"is for {before.rack}, the other for {after.rack}, with another {name}"
            raise OptionError("switch", "the program before", reason, "Compile both for one rack.")


def _sources(manifest: Manifest, reservoir: Reservoir) -> tuple[int, ...]:
    """By chip the first word of its weights in the DDR5 of its FPGA. Raises CapacityError."""
    out = [0] * manifest.chips
    levels = manifest.levels
    trays = levels[0].groups if levels and levels[0].kind != "links" else ()
    for chips in hubs(trays, manifest.chips):
        at = 0
        for chip in chips:
            out[chip] = at
            at += manifest.regions[chip].weights.words
        if not reservoir.holds(at * WORD_BYTES):
            reason = f"needs {at * WORD_BYTES} bytes, its DDR5 has {reservoir.capacity}"
            raise CapacityError("switch", f"FPGA of chip {chips[0]}", reason, "Raise --tp or --pp.")
    return tuple(out)


def _with_room(before: Program, kernel: LoadKernel) -> frozenset[int]:
    """Chips whose steps leave the lane alone, and the ports room for its words in every cycle."""
    manifest = before.manifest
    limit, context = RATE * manifest.chip.activation_ports, manifest.longest
    taken = np.zeros(manifest.chips, np.int64)
    known: dict[int, Int[np.ndarray, " ranks"]] = {}
    lane = unit_classes() == HOST_IN
    for call in before.calls:  # one after another
        if call.block not in known:
            rows = before.expand_call(call, context)
            hold = holds(rows, manifest)
            moved = Moves(
                rate=word_rates(rows, manifest.kernels, hold, manifest.rows),
                rank=before.blocks[call.block].columns[context].chip,
                arrival=before.blocks[call.block].columns[context].peer,
                limit=limit,
            )
            known[call.block] = moved.peaks(rows.t0, rows.t1, hold, len(call.chips))
            known[call.block][moved.rank[lane[rows.op]]] = limit
        chips = list(call.chips)
        taken[chips] = np.maximum(taken[chips], known[call.block])
    rate = int(ceil_div(RATE, kernel.host_slot))
    return frozenset(np.flatnonzero(taken + rate <= limit).tolist())


def _pieces(block: Block) -> tuple[_Piece, ...]:
    """What a block has preloaded, rank by rank, in order of words."""
    loads = block.loads
    order = np.lexsort((loads.addr, loads.chip))
    rank, at, words = loads.chip[order], loads.addr[order], loads.words[order]
    joined = np.zeros(len(order), bool)
    joined[1:] = (rank[1:] == rank[:-1]) & (at[1:] == at[:-1] + words[:-1])
    begin = np.flatnonzero(~joined)
    total = np.add.reduceat(words, begin) if len(begin) else words
    mask = (1 << SPACE_SHIFT) - 1
    columns = (rank[begin], at[begin] >> SPACE_SHIFT, at[begin] & mask, total)
    return tuple(_Piece(*row) for row in zip(*(column.tolist() for column in columns), strict=True))


def _cut(first: int, stop: int, held: tuple[Region, ...], outside: bool) -> Iterator[tuple[int, int]]:
    """The words from `first` to `stop` that lie outside, or inside, of regions."""
    for base, words in sorted(held):
        begin, end = max(first, base), min(stop, base + words)
        if begin < end:
            if outside and first < begin:
                yield first, begin
            if not outside:
                yield begin, end
            first = end
    if outside and first < stop:
        yield first, stop


class _Lanes:
    """Rows that bring words, one after another on the lane of each chip, all lanes side by side."""

    def __init__(self, asked: _Asked) -> None:
        self.asked = asked
        self.kernels = Kernels()
        self.blocks: list[Block] = []
        self._made: dict[tuple[_Part, ...], int] = {}
        self._pieces: dict[int, tuple[_Piece, ...]] = {}
        self._free = [0] * asked.after.manifest.chips

    @property
    def end(self) -> int:
        """The cycle at which the last word so far is there."""
        return max(self._free)

    def wait(self, cycle: int) -> None:
        """No lane takes anything before a cycle."""
        self._free = [max(cycle, one) for one in self._free]

    def calls(self, beside: bool) -> tuple[Call, ...]:
        """The calls that bring what may come beside the program before, or else the rest."""
        out: list[Call] = []
        for call in self.asked.after.calls:
            parts = tuple(self._parts(call, beside))
            if parts:
                out.append(self._call(call, parts))
        return tuple(out)

    def _parts(self, call: Call, beside: bool) -> Iterator[_Part]:
        """Of the words of a call those outside, or inside, what the program before holds."""
        asked = self.asked
        if call.block not in self._pieces:
            self._pieces[call.block] = _pieces(asked.after.blocks[call.block])
        for rank, space, first, words in self._pieces[call.block]:
            chip = call.chips[rank]
            base = (call.shared_base if space == SHARED else call.weight_base)[rank]
            word = base + first
            held = asked.before.manifest.regions[chip] if chip in asked.beside else _EVERYTHING
            source = asked.source[chip] - asked.after.manifest.regions[chip].weights.base
            for begin, stop in _cut(word, word + words, held, beside):
                yield _Part(rank, space, begin - base, source + begin, stop - begin)

    def _call(self, call: Call, parts: tuple[_Part, ...]) -> Call:
        rows = self._rows(parts)
        chips = [call.chips[rank] for rank in rows.chip.tolist()]
        base = max(self._free[chip] for chip in chips)
        for chip, done in zip(chips, rows.t1.tolist(), strict=True):
            self._free[chip] = max(self._free[chip], base + done)
        context = self.asked.after.manifest.longest
        if parts not in self._made:
            self._made[parts] = len(self.blocks)
            self.blocks.append(
                Block(
                    name=call.name,
                    columns={context: rows},
                    cycles={context: int(rows.t1.max())},
                    loads=Loads(**{name: np.zeros(0, np.int64) for name in LOADS}),
                    maps=(),
                    slots=(),
                )
            )
        return replace(call, block=self._made[parts], tag=0, tensors=(), base={context: base})

    def _rows(self, parts: tuple[_Part, ...]) -> Columns:
        """A row for each part; those of one rank one after another."""
        manifest, kernel = self.asked.after.manifest, self.asked.kernel
        rank, space, word, source, words = np.array(parts, np.int64).T
        hold = timing(Op.LOAD, words, kernel, manifest.chip, manifest.rows)[0]
        t0 = np.array([int(hold[:i][rank[:i] == rank[i]].sum()) for i in range(len(rank))], np.int64)
        lane = 2 * manifest.chip.planes + manifest.chip.vxm_chains
        same = {"op": int(Op.LOAD), "unit": lane, "aux": self.kernels.index(kernel)}
        columns = {name: np.full(len(rank), same.get(name, -1), np.int64) for name in COLUMNS + TAGS}
        columns |= {"chip": rank, "n": words, "src3": source, "t0": t0, "t1": t0 + hold}
        columns |= {"dst": word + (space << SPACE_SHIFT)}
        return Columns(**columns)


def _program(after: Manifest, lanes: _Lanes, calls: tuple[Call, ...], body: Switch) -> Program:
    context = after.longest
    manifest = replace(
        after,
        body=body,
        contexts=(context,),
        cycles={
            context: max(call.base[context] + lanes.blocks[call.block].cycles[context] for call in calls)
        },
        kernels=tuple(lanes.kernels.items),
        sources=after.sources + body.reservoir.sources,
        search=(),
        prefill=0,
        logits=(),
        token=None,
    )
    return sealed(Program(manifest=manifest, blocks=tuple(lanes.blocks), calls=calls))
