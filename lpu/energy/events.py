"""Events of a program that cost energy, counted row by row: exact for the stated machine."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Int64

from compiler.analyse.bounds import work
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.instructions.experts import HalfKernel
from compiler.program.instructions.host import wire_words
from compiler.program.isa import PRODUCTS, WORD_BYTES, Columns, Kernel, Op, is_transfer
from compiler.program.manifest import Manifest
from compiler.program.packed import by_kind
from compiler.timing import RULES, Vector, moved_words

HOST = (Op.TAKE, Op.GIVE, Op.KVIN, Op.KVOUT, Op.LOAD, Op.FETCH, Op.FETCHX)
Counts = Int64[np.ndarray, " rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Counts of each row. macs: products as the planes are scheduled, padding lanes among them.

    installed_bytes: weights and KV that travel from SRAM to a plane. stream_bytes: other SRAM words that rows
    read and write. link_bytes: of transfers, counted at the sender. host_bytes: over host lanes.
    """

    macs_fp8: Counts
    macs_fp16: Counts
    vector_ops: Counts
    installed_bytes: Counts
    stream_bytes: Counts
    link_bytes: Counts
    host_bytes: Counts

    def totals(self) -> dict[str, int]:
        """The sums, by name."""
        return {one.name: int(getattr(self, one.name).sum()) for one in fields(self)}


def events(columns: Columns, manifest: Manifest) -> Events:
    """The events of rows of a program."""
    count = len(columns)
    out = {one.name: np.zeros(count, np.int64) for one in fields(Events)}
    moved = np.flatnonzero(is_transfer(columns.op))
    crossed = columns.n[moved] * manifest.rows * WORD_BYTES
    out["link_bytes"][moved] = crossed
    out["stream_bytes"][moved] = 2 * crossed  # read by the sender, written at the receiver
    compute = np.flatnonzero(~is_transfer(columns.op))
    for op, aux, some in by_kind(columns.op[compute], columns.aux[compute]):
        rows = compute[some]
        _compute(out, rows, op, columns.n[rows], manifest.kernels[aux], manifest)
    _products(out, columns, manifest.kernels, manifest.rows)
    return Events(**out)


def _compute(
    out: dict[str, Int64[np.ndarray, " all"]],
    rows: Int64[np.ndarray, " rows"],
    op: int,
    n: Int64[np.ndarray, " rows"],
    kernel: Kernel,
    manifest: Manifest,
) -> None:
    """Vector operations and words of rows of one opcode and kernel; out: of all rows of the program."""
    batch, rule = manifest.rows, RULES.get(op)
    if isinstance(rule, Vector):
        out["vector_ops"][rows] = rule.lanes(n, kernel) * batch * rule.passes
    out["stream_bytes"][rows] = moved_words(op, n, kernel, batch) * WORD_BYTES
    if op in HOST:
        kind: object = kernel
        out["host_bytes"][rows] = wire_words(n, kind, batch) * WORD_BYTES  # pyright: ignore[reportArgumentType]


def _products(out: dict[str, Counts], columns: Columns, kernels: Sequence[Kernel], batch: int) -> None:
    """Installs and products, each row by itself: `work` sums by chip, so every row is a chip of its own."""
    rows = np.flatnonzero(np.isin(columns.op, (*PRODUCTS, Op.MM16, Op.QK, Op.PV, Op.QKF, Op.PVF)))
    alone = replace(columns.take(rows), chip=np.arange(len(rows)))
    asked = work(alone, kernels, batch, len(rows))
    out["installed_bytes"][rows] = asked.weight_bytes + asked.kv_bytes
    wide = np.array(
        [isinstance(k, HalfKernel) or (isinstance(k, AttentionKernel) and k.kv == "fp16") for k in kernels]
        or [False]
    )
    fp16 = ~np.isin(alone.op, PRODUCTS) & wide[alone.aux]
    out["macs_fp16"][rows] = np.where(fp16, asked.macs, 0)
    out["macs_fp8"][rows] = np.where(fp16, 0, asked.macs)
