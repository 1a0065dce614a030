"""Transient lines: which lines each row reads and writes, and which write each read finds."""

from dataclasses import dataclass

import numpy as np

from compiler.program.isa import (
    READS,
    TRANSIENT,
    WRITES,
    Columns,
    Kernel,
    Op,
    merged_lines,
    score_lines,
    wide,
)
from lpu.link.error import fail, first_of, ramp

F32, F16, STAT, PEAK, PICK, SCORE, WEIGHT, SUM, PART, WIDE, COPY, MERGED = range(12)  # what a line holds
NAMES = ("f32", "fp16", "stat", "peak", "pick", "score", "weight", "sum", "part", "wide", "copy", "merged")

_WRITTEN: dict[Op, int] = {
    Op.SEND: COPY,
    Op.FORWARD: COPY,
    Op.EMBED: F32,
    Op.RSTAT: STAT,
    Op.NORM: F16,
    Op.HNORM: F16,
    Op.ROPE: F16,
    Op.CAST: F16,
    Op.QK: SCORE,
    Op.SMAX: PEAK,
    Op.EXP: WEIGHT,
    Op.PV: PART,
    Op.AOUT: F16,
    Op.ASUM: MERGED,
    Op.AEND: F16,
    Op.WB: F32,
    Op.RED: F32,
    Op.ADD: F32,
    Op.GLU: F16,
    Op.ARGMAX: PICK,
    Op.ARGRED: PICK,
    Op.TAKE: F16,
}
_READ: dict[Op, tuple[int, ...]] = {
    Op.SEND: (COPY,),
    Op.FORWARD: (COPY,),
    Op.RSTAT: (F32,),
    Op.NORM: (F32, STAT),
    Op.HNORM: (F32,),
    Op.ROPE: (F32,),
    Op.CAST: (F32,),
    Op.KVW: (F16, F16),
    Op.QK: (F16,),
    Op.SMAX: (SCORE,),
    Op.EXP: (SCORE, PEAK),
    Op.PV: (WEIGHT,),
    Op.AOUT: (PART, SUM),
    Op.ASUM: (PART, SUM),
    Op.AEND: (MERGED,),
    Op.MM: (F16,),
    Op.RED: (WIDE,),
    Op.ADD: (F32, F32),
    Op.GLU: (F32, F32),
    Op.ARGMAX: (F32,),
    Op.ARGRED: (PICK,),
    Op.GIVE: (F32,),
}
OPERANDS = ("src", "src2")
Parts = list[tuple[Op, Kernel, np.ndarray]]  # opcode, kernel, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """The lines of one operand of all rows: `count[row]` lines from word `start[row]`, `step` words apart.

    `kind` is what each line must hold; `block` the lines that must be one whole result (1: any).
    """

    start: np.ndarray
    count: np.ndarray
    step: np.ndarray
    kind: np.ndarray
    block: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """Index of each row's first line, and one more for the end."""
        return np.append(0, np.cumsum(self.count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Every transient line that is read and written.

    Writes: `row`, `line` (offset in the row's result), `kind`. Reads, per operand: `first[operand][row]` is
    the row's first entry of `found[operand]`, the write that the line comes from, transfers removed.
    """

    row: np.ndarray
    line: np.ndarray
    kind: np.ndarray
    first: tuple[np.ndarray, np.ndarray]
    found: tuple[np.ndarray, np.ndarray]


def block_lines(kind: int, kernel: Kernel) -> int:
    """Lines that only make sense together, from one row and in order."""
    if kind in (SCORE, WEIGHT):
        return score_lines(kernel)
    if kind in (PART, MERGED):
        return merged_lines(kernel) - (kind == PART)
    return 4 if kind == WIDE else 1


def classes(columns: Columns, kernels: list[Kernel]) -> Parts:
    """(opcode, kernel, rows) of every distinct pair; transfers have no kernel."""
    bad = (columns.op < 0) | (columns.op >= len(Op))
    if (row := first_of(bad)) >= 0:
        fail(columns, row, f"opcode {columns.op[row]} is unknown")
    transfer = columns.op <= Op.FORWARD
    known = (columns.aux >= 0) & (columns.aux < len(kernels))
    if (row := first_of(~transfer & ~known)) >= 0:
        fail(columns, row, f"kernel {columns.aux[row]} is not in the manifest, which has {len(kernels)}")
    key = np.where(transfer, columns.op, columns.op + len(Op) * (columns.aux + 1))
    order = np.argsort(key, kind="stable")
    cuts = np.flatnonzero(np.diff(key[order], prepend=-1))
    out: Parts = []
    for rows in np.split(order, cuts[1:]):
        if len(rows):
            op = Op(int(columns.op[rows[0]]))
            kernel = {} if op <= Op.FORWARD else kernels[int(columns.aux[rows[0]])]
            if kernel and kernel["op"] != _KERNEL_OF.get(op, op.name.lower()):
                fail(columns, rows[0], f"kernel {columns.aux[rows[0]]} is one of {kernel['op']}")
            out.append((op, kernel, rows))
    return out


_KERNEL_OF: dict[Op, str] = dict.fromkeys(
    (Op.KVW, Op.QK, Op.SMAX, Op.EXP, Op.PV, Op.AOUT, Op.ASUM, Op.AEND), "attention"
)


def read_spans(columns: Columns, parts: Parts, batch: int) -> tuple[Spans, Spans]:
    """The transient operands `src` and `src2` of every row."""
    size = len(columns)
    out = [{name: np.zeros(size, np.int64) for name in ("start", "count", "kind")} for _ in OPERANDS]
    for fields, name in zip(out, OPERANDS, strict=True):
        fields |= {
            "start": getattr(columns, name),
            "step": np.full(size, batch),
            "block": np.ones(size, np.int64),
        }
    for op, kernel, rows in parts:
        n = columns.n[rows]
        reads = [operand for operand in READS[op] if operand.space == TRANSIENT]
        for operand, kind in zip(reads, _READ.get(op, ()), strict=True):
            fields = out[OPERANDS.index(operand.column)]
            single = operand.stride is not None
            fields["count"][rows] = n if single else operand.extent(n, kernel)
            if operand.stride is not None:
                fields["step"][rows] = batch * operand.stride(kernel)
            half = (op is Op.ROPE and kernel.input == "f16") or (op is Op.GIVE and kernel.wire == "fp16")
            fields["kind"][rows] = F16 if half else kind
            fields["block"][rows] = block_lines(kind, kernel)
    return Spans(**out[0]), Spans(**out[1])


def write_spans(columns: Columns, parts: Parts, batch: int) -> Spans:
    """The transient results of every row."""
    size = len(columns)
    count, kind, block = (np.zeros(size, np.int64) for _ in range(3))
    for op, kernel, rows in parts:
        write = WRITES[op]
        if write is not None and write.space == TRANSIENT:
            count[rows] = write.extent(columns.n[rows], kernel)
            kind[rows] = WIDE if op in (Op.WB, Op.RED) and wide(kernel) else _WRITTEN[op]
    return Spans(start=columns.dst, count=count, step=np.full(size, batch), kind=kind, block=block)


def resolve(
    columns: Columns, reads: tuple[Spans, Spans], writes: Spans, manifest: Manifest
) -> tuple[Lines, np.ndarray]:
    """Find the write of every read line; also those of `manifest` outputs: logits, then the token, if any."""
    batch, regions = manifest.rows, np.array(manifest.regions, np.int64).reshape(-1, 3, 2)
    holder = np.where(columns.op <= Op.FORWARD, columns.peer, columns.chip)
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

    def find(at: np.ndarray, time: np.ndarray) -> np.ndarray:
        sought = (at << bits) | time
        ask = np.argsort(sought)
        spot = np.searchsorted(ordered, sought[ask], side="right") - 1
        hit = np.where((spot >= 0) & (ordered[spot] >> bits == at[ask]), order[spot], -1)
        out = np.empty_like(hit)
        out[ask] = hit
        return out

    found: list[np.ndarray] = []
    for operand in reads:
        reader = np.repeat(np.arange(len(columns)), operand.count)
        word = operand.start[reader] + ramp(operand.count) * operand.step[reader]
        spot = find(columns.chip[reader] * span + word // batch, columns.t0[reader])
        if (miss := first_of(spot < 0)) >= 0:
            fail(columns, int(reader[miss]), "reads a word that nothing has written yet", int(word[miss]))
        found.append(spot)
    kind = writes.kind[row]
    last = np.repeat(np.cumsum(writes.count) - 1, writes.count)
    kind = np.where((kind == WEIGHT) & (np.arange(len(row)) == last), SUM, kind)
    source = _sources(columns, writes, reads[0], found[0])
    token = [manifest.token] if manifest.token else []
    outputs = np.array([entry[:2] for entry in [*manifest.logits, *token]], np.int64).reshape(-1, 2)
    final = find(outputs[:, 0] * span + outputs[:, 1] // batch, np.full(len(outputs), (1 << bits) - 1))
    if (miss := first_of(final < 0)) >= 0:
        fail(
            columns,
            len(columns) - 1,
            f"output {miss} on chip {outputs[miss, 0]} is never written",
            outputs[miss, 1],
        )
    lines = Lines(
        row=row,
        line=line,
        kind=kind,
        first=(reads[0].first, reads[1].first),
        found=(source[found[0]], source[found[1]]),
    )
    return lines, source[final]


def _check_form(
    columns: Columns, spans: tuple[Spans, ...], holder: np.ndarray, regions: np.ndarray, batch: int
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


def _sources(columns: Columns, writes: Spans, src: Spans, found: np.ndarray) -> np.ndarray:
    """Per write the write that it copies, through any number of transfers; itself where it is computed."""
    source = np.arange(int(writes.count.sum()))
    moved = columns.op <= Op.FORWARD
    source[np.repeat(moved, writes.count)] = found[np.repeat(moved, src.count)]
    while True:
        further = source[source]
        if np.array_equal(further, source):
            return source
        source = further
