"""Lower bounds that a schedule is held against, and the quality figure: cycles over the largest of them.

A step runs its blocks one after another, as each needs the residual of the one before, and a matmul cannot
install its weights before its input is there (the install is part of the row). So the bound of a step is the
sum of the bounds of its blocks. Every figure is modelled: it follows from the chip's datasheet, nothing was
measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.analyse.dataflow import Waits, edges, waits
from compiler.analyse.holds import holds, link_rows
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.instructions.experts import ExpertTileKernel, HalfKernel, half_words
from compiler.program.instructions.matmul import MatmulKernel
from compiler.program.isa import (
    F16_LANES,
    F32_LANES,
    PRODUCTS,
    TILE_ROWS,
    WORD_BYTES,
    Columns,
    Kernel,
    Op,
    is_transfer,
)
from compiler.program.manifest import Manifest
from compiler.program.program import Program

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


def work(columns: Columns, kernels: Sequence[Kernel], batch: int, chips: int) -> Work:
    """The installs and products of rows, by `columns.chip` of `chips`."""
    weights, kv, macs = (np.zeros(len(columns), np.int64) for _ in range(3))
    mm = np.isin(columns.op, PRODUCTS)
    k_lines = np.array(
        [k.k_lines if isinstance(k, MatmulKernel | ExpertTileKernel) else 0 for k in kernels] or [0]
    )
    weights[mm] = F32_LANES * TILE_ROWS * columns.n[mm]
    macs[mm] = batch * F32_LANES * columns.n[mm] * k_lines[columns.aux[mm]] * F16_LANES
    for aux in np.unique(columns.aux[columns.op == Op.MM16]).tolist():
        rows, k = (columns.op == Op.MM16) & (columns.aux == aux), kernels[aux]
        assert isinstance(k, HalfKernel)
        weights[rows] = half_words(columns.n[rows], k) * WORD_BYTES
        macs[rows] = batch * F32_LANES * columns.n[rows] * k.k_lines * F16_LANES
    for op in (Op.QK, Op.PV, Op.QKF, Op.PVF):
        for aux in np.unique(columns.aux[columns.op == op]).tolist():
            rows, k = (columns.op == op) & (columns.aux == aux), kernels[aux]
            assert isinstance(k, AttentionKernel)
            lanes = k.score_lanes if op in (Op.QK, Op.QKF) else k.head_dim
            kv[rows] = k.sequences * k.chunk * lanes * (2 if k.kv == "fp16" else 1)
            macs[rows] = batch * k.group * k.chunk * lanes
    return Work(
        **{
            name: np.bincount(columns.chip, values, chips).astype(np.int64)
            for name, values in (("weight_bytes", weights), ("kv_bytes", kv), ("macs", macs))
        }
    )


def bounds(program: Program, context: int) -> tuple[Bound, ...]:
    """The bounds of one step of a context bucket."""
    manifest = program.manifest
    chip = manifest.chip
    rate = chip.plane_bytes_per_cycle * chip.planes
    install, product, occupied, wires, path, hops, busy = 0, 0, 0, 0, 0, 0, 0
    first = {call.block: call for call in reversed(program.calls)}
    uses = np.bincount([call.block for call in program.calls], minlength=len(program.blocks)).tolist()
    for block, times in enumerate(uses):
        columns = program.expand_call(first[block], context)
        if not len(columns):
            continue
        asked = work(columns, manifest.kernels, manifest.rows, manifest.chips)
        install += times * -(-int((asked.weight_bytes + asked.kv_bytes).max()) // rate)
        product += times * -(-int(asked.macs.max()) // (MACS_PER_PLANE * chip.planes))
        hold = holds(columns, manifest)
        occupied += times * busiest_planes(columns, hold, manifest)
        wires += times * busiest_link(columns, hold, manifest)
        chain = waits(columns, edges(columns, manifest.kernels, chip.planes, first[block].tag))
        longest = critical_path(columns, chain)
        path, hops = path + times * longest[0], hops + times * longest[1]
        busy += times * max(longest[0], busy_units(columns, chain, hold, manifest))
    return (
        Bound(
            name="installs",
            cycles=install,
            reason="weights and KV of the busiest chip of each block / what planes install",
        ),
        Bound(name="products", cycles=product, reason="MACs of the busiest chip of each block / peak"),
        Bound(
            name="MXM geometry",
            cycles=occupied,
            reason="holds of the planes of the busiest chip of each block by whole tiles",
        ),
        Bound(
            name="links",
            cycles=wires,
            reason="bytes over the most loaded link of each block / its bandwidth",
        ),
        Bound(
            name="critical path", cycles=path, reason=f"longest chain of rows, {hops} link hops among them"
        ),
        Bound(
            name="busy units",
            cycles=busy,
            reason="what must come before and after the work of the busiest units or lanes of each block",
        ),
    )


def critical_path(columns: Columns, chain: Waits) -> tuple[int, int]:
    """(cycles, link hops) of the longest chain of rows, units and lanes unlimited."""
    through = chain.head + (columns.t1 - columns.t0) + chain.tail
    last = int(np.argmax(np.where(chain.tail == 0, through, -1)))
    transfer = is_transfer(columns.op)[last]
    return int(through[last]), int(chain.hops[last]) + int(transfer)


def busiest_planes(columns: Columns, hold: np.ndarray, manifest: Manifest) -> int:
    """Cycles that the planes of one chip, sharing its tiles evenly, are held: padding and fill included."""
    planes = manifest.chip.planes
    tiles = (columns.peer < 0) & (columns.unit < planes)
    return -(-int(np.bincount(columns.chip[tiles], hold[tiles], 1).max()) // planes)


def busiest_link(columns: Columns, hold: np.ndarray, manifest: Manifest) -> int:
    """Cycles that all lanes of one link together need for the lines that cross it."""
    sent = np.flatnonzero(columns.peer >= 0)
    links = link_rows(manifest, columns.chip[sent], columns.peer[sent])
    lanes = manifest.link_table()[:, 2]
    held = np.bincount(links, hold[sent] * columns.aux[sent], len(lanes)).astype(np.int64)
    return int((-(-held // lanes)).max(initial=0))


def busy_units(columns: Columns, chain: Waits, hold: np.ndarray, manifest: Manifest) -> int:
    """Cycles that no order of the rows can beat, by head, work and tail of one class of units or one link.

    Of the rows that a chip's planes (or drains, chains, lanes, a host lane) take and that cannot start before
    a cycle h, the last ends its hold no earlier than h + work / units; what must follow takes at least the
    least tail.
    Source: the one-machine bound of job-shop scheduling (Carlier 1982).
    """
    chip = manifest.chip
    transfer = columns.peer >= 0
    beyond = columns.unit - 2 * chip.planes - chip.vxm_chains  # host lanes, in and out
    group = np.where(beyond >= 0, 3 + beyond, np.minimum(columns.unit // chip.planes, 2))
    units = np.array([chip.planes, chip.planes, chip.vxm_chains, 1, 1])[np.maximum(group, 0)]
    lanes = manifest.link_table()[:, 2]
    links = link_rows(manifest, columns.chip[transfer], columns.peer[transfer])
    units[transfer] = lanes[links]
    name = columns.chip * 5 + group
    name[transfer] = manifest.chips * 5 + links
    work = np.where(transfer, hold * columns.aux, hold)
    after = (columns.t1 - columns.t0) - hold + chain.tail
    best = 0
    order = np.lexsort((-chain.head, name))
    for rows in np.split(order, np.flatnonzero(np.diff(name[order])) + 1):
        total = -(-np.cumsum(work[rows]) // units[rows])
        best = max(best, int((chain.head[rows] + total + np.minimum.accumulate(after[rows])).max()))
    return best
