"""A program as text: one line for each row, with its cycles, chip, unit, mnemonic and named operands.

`embed  0..21  chip 0  chain 0  EMBED  n 1  f32 v1[0:1] @t:0x2 <- table embed.table[:, 0:80] @w:0xfe`
An operand says what it holds, which lines of which value (or which part of which tensor), and after @ the
space (t transient, k KV, w weights) and SRAM word where it begins. `docs/programs.md` has the whole format.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import (
    KV,
    LOAD_NAMES,
    SPACE_LETTERS,
    TAG_SHIFT,
    TRANSFER,
    TRANSIENT,
    Columns,
    Holds,
    Instruction,
    Kernel,
    Operand,
    is_transfer,
)
from compiler.program.preloaded import Preloaded
from compiler.program.program import Call, Program


class Named(NamedTuple):
    """One operand in words: its column, what it holds and of what, where it lies. chip: if not the row's."""

    column: str
    holds: str
    part: str
    place: str
    chip: int | None = None

    def __str__(self) -> str:
        there = "" if self.chip is None else f"of chip {self.chip}"
        return " ".join(word for word in (self.holds, self.part, self.place, there) if word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row in words.

    counted: what `n` counts. kernel: index of the manifest's kernels, None where that has nothing to say.
    """

    call: str
    t0: int
    t1: int
    chip: int
    unit: str
    op: str
    n: int
    counted: str
    writes: tuple[Named, ...]
    reads: tuple[Named, ...]
    kernel: int | None

    def cells(self) -> tuple[str, ...]:
        """The words before the operands, one for each column of a listing."""
        cycles, count = (str(self.t0), str(self.t1)), f"{self.counted} {self.n}"
        return (self.call, *cycles, f"chip {self.chip}", self.unit, self.op, count)

    def operands(self) -> str:
        """What is written, an arrow, what is read, and the kernel."""
        left, right = (", ".join(map(str, each)) for each in (self.writes, self.reads))
        text = f"{left} <- {right}" if left else f"<- {right}"
        return text if self.kernel is None else f"{text}  kernel {self.kernel}"

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        operands = {
            "writes": [one._asdict() for one in self.writes],
            "reads": [one._asdict() for one in self.reads],
        }
        return {**asdict(self), **operands}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which rows of a step: of these calls (by index), this chip, these units (by number), this opcode.

    cycles: those that run in any cycle from the first to the last of them. None takes all.
    """

    calls: tuple[int, ...] | None = None
    chip: int | None = None
    units: range | None = None
    op: int | None = None
    cycles: tuple[int, int] | None = None


def units_of(program: Program) -> dict[str, range]:
    """The numbers of the units of a chip, by class; links come last, by the chip that they lead to."""
    chip, chips = program.manifest.chip, program.manifest.chips
    counts = (chip.planes, chip.planes, chip.vxm_chains, 1, 1, chips)
    ends = np.cumsum(counts).tolist()
    names = ("plane", "drain", "chain", "host in", "host out", "link")
    return {name: range(end - count, end) for name, count, end in zip(names, counts, ends, strict=True)}


def lines(program: Program, context: int, chosen: Selection) -> Iterator[Line]:
    """The chosen rows of a step by cycle, chip and unit. A call is expanded when the listing gets there."""
    waiting: list[tuple[int, int, int, int, int, int, _Shown]] = []
    every = range(len(program.calls)) if chosen.calls is None else chosen.calls
    for i in sorted(every, key=lambda i: (program.calls[i].base[context], i)):
        call = program.calls[i]
        while waiting and waiting[0][0] < call.base[context]:
            yield _next(waiting)
        some = _chosen(program, call, context, chosen)
        if not len(some):
            continue
        shown = _Shown(program, call, program.expand_call(call, context, some))
        columns = shown.columns
        keys = zip(*(c.tolist() for c in (columns.t0, columns.chip, shown.units, columns.lane)), strict=True)
        for row, key in enumerate(keys):
            heapq.heappush(waiting, (*key, i, row, shown))
    while waiting:
        yield _next(waiting)


def count(program: Program, context: int, chosen: Selection) -> int:
    """How many rows are chosen."""
    every = range(len(program.calls)) if chosen.calls is None else chosen.calls
    return sum(len(_chosen(program, program.calls[i], context, chosen)) for i in every)


def table(some: Sequence[Line]) -> str:
    """Lines below one another, in columns."""
    cells = [line.cells() for line in some]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    out: list[str] = []
    for line, (call, t0, t1, *others) in zip(some, cells, strict=True):
        words = [f"{call:<{widths[0]}}", f"{t0:>{widths[1]}}..{t1:>{widths[2]}}"]
        words += [f"{word:<{width}}" for word, width in zip(others, widths[3:], strict=True)]
        out.append("  ".join([*words, line.operands()]))
    return "\n".join(out)


def kernel_text(kernel: Kernel) -> str:
    """A kernel in words: its family and attributes."""
    attributes = [f"{name} {value}" for name, value in kernel.said().items()]
    return f"{kernel.family}  {', '.join(attributes)}".rstrip()


class _Shown:
    """Chosen rows of one call, and the names of what they read."""

    def __init__(self, program: Program, call: Call, columns: Columns) -> None:
        self.program, self.call, self.columns = program, call, columns
        link = units_of(program)["link"].start
        self.moves = is_transfer(columns.op)
        self.units = np.where(self.moves, link + columns.peer, columns.unit)

    @cached_property
    def preloaded(self) -> Preloaded:
        """The preloaded values of the call."""
        return Preloaded(self.program, self.call)

    def line(self, row: int) -> Line:
        """One row in words."""
        columns = self.columns
        record = INSTRUCTIONS[int(columns.op[row])]
        aux, moved = int(columns.aux[row]), bool(self.moves[row])
        kernel = TRANSFER if moved else self.program.manifest.kernels[aux]
        reads = [self._operand(record, operand, kernel, row) for operand in record.reads]
        writes = [] if record.write is None else [self._operand(record, record.write, kernel, row)]
        for column, word in record.numbers:
            value = int(getattr(columns, column)[row])
            if column != "n" and value >= 0:
                (writes if column == "dst" else reads).append(Named(column, word, str(value), ""))
        return Line(
            call=self.call.name,
            t0=int(columns.t0[row]),
            t1=int(columns.t1[row]),
            chip=int(columns.chip[row]),
            unit=self._unit(row),
            op=record.name,
            n=int(columns.n[row]),
            counted=dict(record.numbers).get("n", "n"),
            writes=tuple(one for one in writes if one is not None),
            reads=tuple(one for one in reads if one is not None),
            kernel=None if moved or not kernel.said() else aux,
        )

    def _unit(self, row: int) -> str:
        number, columns = int(self.units[row]), self.columns
        name, numbers = next((n, r) for n, r in units_of(self.program).items() if number in r)
        if name == "link":
            first, lanes = int(columns.lane[row]), int(columns.aux[row])
            which = f"lane {first}" if lanes == 1 else f"lanes {first}-{first + lanes - 1}"
            return f"link -> chip {int(columns.peer[row])} {which}"
        return name if len(numbers) == 1 and " " in name else f"{name} {number - numbers.start}"

    def _operand(self, record: Instruction, operand: Operand, kernel: Kernel, row: int) -> Named | None:
        """One operand in words, None if this row has it not."""
        columns, name = self.columns, operand.column
        address, tag = int(getattr(columns, name)[row]), int(getattr(columns, f"{name}_tag")[row])
        n = int(columns.n[row])
        extent = int(operand.extent(n, kernel))
        if address < 0 or not operand.is_in(kernel):
            return None
        kind, line = operand.kind(kernel), tag & ((1 << TAG_SHIFT) - 1)
        at_peer = operand is record.write and bool(self.moves[row])
        chip = int(columns.peer[row]) if at_peer else None
        place = f"@{SPACE_LETTERS[operand.space]}:{address:#x}"
        if operand.space == TRANSIENT:
            part = f"[{extent}]" if tag < 0 else f"v{tag >> TAG_SHIFT}[{line}:{line + extent}]"
            if operand.stride is not None:
                part += f" x{n} every {operand.stride(kernel)}"
            return Named(name, Holds(kind).name.lower(), part, place, chip)
        if operand.space == KV:
            return Named(name, "kv", f"region {line}" if tag >= 0 else "", place, chip)
        holds = LOAD_NAMES[kind].lower() if kind < len(LOAD_NAMES) else f"load {kind}"
        part = self.preloaded.part(int(columns.chip[row]), address, extent)
        return Named(name, holds, part, place, chip)


def _next(waiting: list[tuple[int, int, int, int, int, int, _Shown]]) -> Line:
    *_, row, shown = heapq.heappop(waiting)
    return shown.line(row)


def _chosen(program: Program, call: Call, context: int, chosen: Selection) -> Int[np.ndarray, " some"]:
    """Which rows of a call's block are chosen: nothing is expanded for it."""
    block, base = program.blocks[call.block], call.base[context]
    rows = block.columns[context]
    keep = np.ones(len(rows), bool)
    if chosen.chip is not None:
        keep &= np.isin(rows.chip, [rank for rank, chip in enumerate(call.chips) if chip == chosen.chip])
    if chosen.op is not None:
        keep &= rows.op == chosen.op
    if chosen.cycles is not None:
        first, last = chosen.cycles
        keep &= (rows.t0 + base <= last) & (rows.t1 + base > first)
    if chosen.units is not None:
        peer = units_of(program)["link"].start + np.array(call.chips)[rows.peer]
        unit = np.where(is_transfer(rows.op), peer, rows.unit)
        keep &= (unit >= chosen.units.start) & (unit < chosen.units.stop)
    return np.flatnonzero(keep)
