"""Lower bounds that a schedule is held against, and the quality figure: cycles over the largest of them.

A step runs its blocks one after another, as each needs the residual of the one before, and a matmul cannot
install its weights before its input is there (the install is part of the row). So the bound of a step is the
sum of the bounds of its blocks. Every figure is modelled: it follows from the chip's datasheet, nothing was
measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.isa import (
    F16_LANES,
    F32_LANES,
    READS,
    TAG_SHIFT,
    TILE_ROWS,
    TRANSIENT,
    WRITES,
    Columns,
    Kernel,
    Op,
)
from compiler.program import Program

_LINE = (1 << TAG_SHIFT) - 1
_HOP = 1 << 20  # a path is its cycles times this, plus its hops: the longest path first, then the most hops
MACS_PER_PLANE = TILE_ROWS * TILE_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """No schedule of these rows takes fewer cycles than this, for the reason given."""

    name: str
    cycles: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What rows ask of each chip: bytes installed (weights, KV) and multiply-accumulates, int64 by chip."""

    weight_bytes: np.ndarray
    kv_bytes: np.ndarray
    macs: np.ndarray


def work(columns: Columns, kernels: list[Kernel], batch: int, chips: int) -> Work:
    """The installs and products of rows, by `columns.chip` of `chips`."""
    weights, kv, macs = (np.zeros(len(columns), np.int64) for _ in range(3))
    mm = columns.op == Op.MM
    k_lines = np.array([kernel.get("k_lines", 0) for kernel in kernels] or [0])
    weights[mm] = F32_LANES * TILE_ROWS * columns.n[mm]
    macs[mm] = batch * F32_LANES * columns.n[mm] * k_lines[columns.aux[mm]] * F16_LANES
    for op in (Op.QK, Op.PV):
        for aux in np.unique(columns.aux[columns.op == op]).tolist():
            rows, k = (columns.op == op) & (columns.aux == aux), kernels[aux]
            kv[rows] = batch * k["chunk"] * k["head_dim"] * (2 if k["kv"] == "fp16" else 1)
            macs[rows] = batch * k["group"] * k["chunk"] * k["head_dim"]
    return Work(
        **{
            name: np.bincount(columns.chip, values, chips).astype(np.int64)
            for name, values in (("weight_bytes", weights), ("kv_bytes", kv), ("macs", macs))
        }
    )


def bounds(program: Program, context: int) -> tuple[Bound, ...]:
    """The bounds of one step of a context bucket: installs, products, critical path."""
    manifest = program.manifest
    chip = manifest["chip"]
    rate = chip["sram_bytes_per_cycle"] * chip["weight_install_frac"]
    install, product, path, hops = 0, 0, 0, 0
    uses = np.bincount([call.block for call in program.calls], minlength=len(program.blocks)).tolist()
    for block, times in zip(program.blocks, uses, strict=True):
        columns = block.columns[context]
        if not len(columns):
            continue
        asked = work(columns, manifest["kernels"], manifest["rows"], int(columns.chip.max()) + 1)
        install += times * int(np.ceil((asked.weight_bytes + asked.kv_bytes).max() / rate))
        product += times * -(-int(asked.macs.max()) // (MACS_PER_PLANE * chip["planes"]))
        longest = critical_path(columns, manifest)
        path, hops = path + times * longest[0], hops + times * longest[1]
    return (
        Bound(
            name="installs",
            cycles=install,
            reason="weights and KV of the busiest chip of each block / SRAM rate",
        ),
        Bound(name="products", cycles=product, reason="MACs of the busiest chip of each block / peak"),
        Bound(
            name="critical path", cycles=path, reason=f"longest chain of rows, {hops} link hops among them"
        ),
    )


def critical_path(columns: Columns, manifest: Mapping[str, Any]) -> tuple[int, int]:
    """(cycles, hops) of the longest chain of rows through transient lines and accumulators, units unlimited.

    Rows keep their latencies, lanes and routes. KV words written in the same step are not followed.
    """
    kernels, planes = manifest["kernels"], manifest["chip"]["planes"]
    transfer = (columns.op == Op.SEND) | (columns.op == Op.FORWARD)
    lines = _Lines(columns, kernels)
    filled: dict[tuple[int, int, int], int] = {}
    longest = 0
    cost = (columns.t1 - columns.t0) * _HOP + transfer
    for row in np.argsort(columns.t0, kind="stable").tolist():
        op, rank, unit = Op(int(columns.op[row])), int(columns.chip[row]), int(columns.unit[row])
        begin = lines.ready(row)
        if op is Op.WB:
            begin = max(begin, filled.pop((rank, unit - planes, int(columns.src[row])), 0))
        end = begin + int(cost[row])
        if op is Op.MM:
            place = (rank, unit, int(columns.dst[row]))
            filled[place] = max(filled.get(place, 0), end)
        lines.commit(row, end)
        longest = max(longest, end)
    return longest // _HOP, longest % _HOP


class _Lines:
    """When each transient line is there, by value and rank; a line that no row wrote is there at 0."""

    def __init__(self, columns: Columns, kernels: list[Kernel]) -> None:
        self.columns, self.kernels = columns, kernels
        self._of: dict[tuple[int, int], np.ndarray] = {}

    def ready(self, row: int) -> int:
        """When the last transient operand of a row is there."""
        op, rank, n, kernel = self._row(row)
        latest = 0
        for operand in READS[op]:
            if operand.space == TRANSIENT:
                tag, size = (
                    int(getattr(self.columns, operand.column + "_tag")[row]),
                    int(operand.extent(n, kernel)),
                )
                pieces, step = (n, operand.stride(kernel)) if operand.stride else (1, 0)
                span = size + (pieces - 1) * step
                lines = self._lines(tag, rank, span)[tag & _LINE : (tag & _LINE) + span : step or 1]
                latest = max(latest, int(lines.max(initial=0)))
        return latest

    def commit(self, row: int, end: int) -> None:
        """The lines that a row writes are there at `end`."""
        op, rank, n, kernel = self._row(row)
        write = WRITES[op]
        if write is not None and write.space == TRANSIENT:
            tag, size = int(self.columns.dst_tag[row]), int(write.extent(n, kernel))
            rank = int(self.columns.peer[row]) if op in (Op.SEND, Op.FORWARD) else rank
            self._lines(tag, rank, size)[tag & _LINE : (tag & _LINE) + size] = end

    def _row(self, row: int) -> tuple[Op, int, int, Kernel]:
        op, aux = Op(int(self.columns.op[row])), int(self.columns.aux[row])
        kernel = {} if op in (Op.SEND, Op.FORWARD) else self.kernels[aux]
        return op, int(self.columns.chip[row]), int(self.columns.n[row]), kernel

    def _lines(self, tag: int, rank: int, span: int) -> np.ndarray:
        place, top = (tag >> TAG_SHIFT, rank), (tag & _LINE) + span
        known = self._of.get(place, np.zeros(0, np.int64))
        if len(known) < top:
            known = np.append(known, np.zeros(2 * top - len(known), np.int64))
            self._of[place] = known
        return known
