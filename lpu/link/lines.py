"""Transient lines: which lines each row reads and writes, and which write each read finds."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.program.instruction_set import INSTRUCTIONS, unit_classes
from compiler.program.isa import OPCODES, TRANSFER, TRANSIENT, Columns, Kernel, Operand, is_transfer
from compiler.program.manifest import Manifest
from compiler.program.ranges import first_of, ramp
from lpu.link.error import fail

OPERANDS = ("src", "src2")


class SameKernel(NamedTuple):
    """Rows of one opcode and kernel."""

    op: int
    kernel: Kernel
    rows: Int[np.ndarray, " rows"]

    @property
    def reads(self) -> list[Operand]:
        """The operands that such rows read."""
        reads = INSTRUCTIONS[self.op].reads
        return [o for o in reads if o.is_in(self.kernel)]

    @property
    def write(self) -> Operand | None:
        """The operand that such rows write."""
        return INSTRUCTIONS[self.op].write


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSpans:
    """The lines of one operand of all rows: `count[row]` lines from word `start[row]`, `step` words apart.

    `kind` is what each line must hold; `block` the lines that must be one whole result (1: any).
    """

    start: Int[np.ndarray, " rows"]
    count: Int[np.ndarray, " rows"]
    step: Int[np.ndarray, " rows"]
    kind: Int[np.ndarray, " rows"]
    block: Int[np.ndarray, " rows"]

    @property
    def first(self) -> Int[np.ndarray, " ends"]:
        """Index of each row's first line, and one more for the end."""
        return np.append(0, np.cumsum(self.count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Every transient line that is read and written.

    Writes: `row`, `line` (offset in the row's result), `kind`. Reads, per operand: `first[operand][row]` is
    the row's first entry of `found[operand]`, the write that the line comes from, transfers removed.
    """

    row: Int[np.ndarray, " lines"]
    line: Int[np.ndarray, " lines"]
    kind: Int[np.ndarray, " lines"]
    first: tuple[Int[np.ndarray, " ends"], Int[np.ndarray, " ends"]]
    found: tuple[Int[np.ndarray, " reads"], Int[np.ndarray, " reads2"]]


def by_kernel(columns: Columns, kernels: tuple[Kernel, ...]) -> list[SameKernel]:
    """The rows of every pair of an opcode and a kernel."""
    inside = (columns.op >= 0) & (columns.op < OPCODES)
    if (row := first_of(~inside | (unit_classes()[np.where(inside, columns.op, 0)] < 0))) >= 0:
        fail(columns, row, f"opcode {columns.op[row]} is unknown")
    transfer = is_transfer(columns.op)
    known = (columns.aux >= 0) & (columns.aux < len(kernels))
    if (row := first_of(~transfer & ~known)) >= 0:
        fail(columns, row, f"kernel {columns.aux[row]} is not in the manifest, which has {len(kernels)}")
    key = np.where(transfer, columns.op, columns.op + OPCODES * (columns.aux + 1))
    order = np.argsort(key, kind="stable")
    cuts = np.flatnonzero(np.diff(key[order], prepend=-1))
    out: list[SameKernel] = []
    for rows in np.split(order, cuts[1:]):
        if len(rows):
            op, aux = int(columns.op[rows[0]]), int(columns.aux[rows[0]])
            kernel = TRANSFER if transfer[rows[0]] else kernels[aux]
            if type(kernel) not in (INSTRUCTIONS[op].kernel, *INSTRUCTIONS[op].forms):
                fail(columns, rows[0], f"kernel {aux} is one of {kernel.family}")
            out.append(SameKernel(op, kernel, rows))
    return out


def read_spans(columns: Columns, parts: list[SameKernel], batch: int) -> tuple[LineSpans, LineSpans]:
    """The transient operands `src` and `src2` of every row."""
    size = len(columns)
    out = [{name: np.zeros(size, np.int64) for name in ("start", "count", "kind")} for _ in OPERANDS]
    for fields, name in zip(out, OPERANDS, strict=True):
        fields |= {
            "start": getattr(columns, name),
            "step": np.full(size, batch),
            "block": np.ones(size, np.int64),
        }
    for part in parts:
        kernel, rows, n = part.kernel, part.rows, columns.n[part.rows]
        for operand in part.reads:
            if operand.space != TRANSIENT:
                continue
            fields = out[OPERANDS.index(operand.column)]
            single = operand.stride is not None
            fields["count"][rows] = n if single else operand.extent(n, kernel)
            if operand.stride is not None:
                fields["step"][rows] = batch * operand.stride(kernel)
            fields["kind"][rows] = operand.kind(kernel)
            fields["block"][rows] = operand.block(kernel)
    return LineSpans(**out[0]), LineSpans(**out[1])


def write_spans(columns: Columns, parts: list[SameKernel], batch: int) -> LineSpans:
    """The transient results of every row."""
    size = len(columns)
    count, kind, block = (np.zeros(size, np.int64) for _ in range(3))
    for part in parts:
        if part.write is not None and part.write.space == TRANSIENT:
            count[part.rows] = part.write.extent(columns.n[part.rows], part.kernel)
            kind[part.rows] = part.write.kind(part.kernel)
    return LineSpans(start=columns.dst, count=count, step=np.full(size, batch), kind=kind, block=block)


def resolve(
    columns: Columns, reads: tuple[LineSpans, LineSpans], writes: LineSpans, manifest: Manifest
) -> tuple[Resolved, Int[np.ndarray, " outputs"]]:
    """Find the write of every read line; also those of `manifest` outputs: logits, then the token, if any."""
    batch, regions = manifest.rows, manifest.region_table()
    holder = np.where(is_transfer(columns.op), columns.peer, columns.chip)
    _check_form(columns, (*reads, writes), holder, regions, batch)
    span = int(regions[:, 0].sum(axis=-1).max()) // batch + 1
    bits = int(max(columns.t1.max(initial=0), 1) + 1).bit_length()
    if (span * len(regions)).bit_length() + bits > 62:
        fail(
            columns,
            int(np.argmax(columns.t1)),
            "addresses and cycles exceed 62 bits together",
        )

    row = np.repeat(np.arange(len(columns)), writes.count)
    line = ramp(writes.count)
    place = holder[row] * span + writes.start[row] // batch + line
    key = (place << bits) | columns.t1[row]
    order = np.argsort(key)
    ordered = key[order]
    if (twice := first_of(ordered[1:] == ordered[:-1])) >= 0:
        late = int(row[order[twice + 1]])
        fail(columns, late, f"commits in the same cycle as row {row[order[twice]]}", at_commit=True)

    def find(at: Int[np.ndarray, " sought"], time: Int[np.ndarray, " sought"]) -> Int[np.ndarray, " sought"]:
        sought = (at << bits) | time
        ask = np.argsort(sought)
        spot = np.searchsorted(ordered, sought[ask], side="right") - 1
        hit = np.where((spot >= 0) & (ordered[spot] >> bits == at[ask]), order[spot], -1)
        out = np.empty_like(hit)
        out[ask] = hit
        return out

    found: list[Int[np.ndarray, " reads"]] = []
    for operand in reads:
        reader = np.repeat(np.arange(len(columns)), operand.count)
        word = operand.start[reader] + ramp(operand.count) * operand.step[reader]
        spot = find(columns.chip[reader] * span + word // batch, columns.t0[reader])
        if (miss := first_of(spot < 0)) >= 0:
            fail(columns, int(reader[miss]), "reads a word that nothing has written yet", int(word[miss]))
        found.append(spot)
    kind = writes.kind[row]
    source = _sources(columns, writes, reads[0], found[0])
    token = [] if manifest.token is None else [manifest.token]
    outputs = np.array([entry[:2] for entry in [*manifest.logits, *token]], np.int64).reshape(-1, 2)
    final = find(outputs[:, 0] * span + outputs[:, 1] // batch, np.full(len(outputs), (1 << bits) - 1))
    if (miss := first_of(final < 0)) >= 0:
        fail(
            columns,
            len(columns) - 1,
            f"output {miss} on chip {outputs[miss, 0]} is never written",
            outputs[miss, 1],
        )
    lines = Resolved(
        row=row,
        line=line,
        kind=kind,
        first=(reads[0].first, reads[1].first),
        found=(source[found[0]], source[found[1]]),
    )
    return lines, source[final]


def _check_form(
    columns: Columns,
    spans: tuple[LineSpans, ...],
    holder: Int[np.ndarray, " rows"],
    regions: Int[np.ndarray, "chips 3 2"],
    batch: int,
) -> None:
    """Chips exist, time runs forward, operands start at a line and lie in the transient region."""
    chips = len(regions)
    if (
        row := first_of((columns.chip < 0) | (columns.chip >= chips) | (holder < 0) | (holder >= chips))
    ) >= 0:
        fail(columns, row, f"chip {columns.chip[row]} or peer {columns.peer[row]} is not one of {chips}")
    if (row := first_of((columns.t0 < 0) | (columns.t1 <= columns.t0))) >= 0:
        fail(columns, row, f"commits at {columns.t1[row]}, not after it reads")
    if (row := first_of(columns.n < 0)) >= 0:
        fail(columns, row, f"n is {columns.n[row]}")
    for span, where in zip(spans, (columns.chip, columns.chip, holder), strict=True):
        used = span.count > 0
        if (row := first_of(used & (span.start % batch != 0))) >= 0:
            fail(columns, row, f"operand is misaligned, lines begin at multiples of {batch}", span.start[row])
        base, words = regions[where, 0, 0], regions[where, 0, 1]
        end = span.start + (span.count - 1) * span.step + batch
        if (row := first_of(used & ((span.start < base) | (end > base + words)))) >= 0:
            fail(
                columns,
                row,
                f"leaves the transient region, which ends at {base[row] + words[row]}",
                end[row] - 1,
            )


def _sources(
    columns: Columns, writes: LineSpans, src: LineSpans, found: Int[np.ndarray, " reads"]
) -> Int[np.ndarray, " lines"]:
    """Per write the write that it copies, through any number of transfers; itself where it is computed."""
    source = np.arange(int(writes.count.sum()))
    moved = is_transfer(columns.op)
    source[np.repeat(moved, writes.count)] = found[np.repeat(moved, src.count)]
    while True:
        further = source[source]
        if np.array_equal(further, source):
            return source
        source = further
