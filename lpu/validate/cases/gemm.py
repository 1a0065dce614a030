"""A matrix product of one chip as rows of the program, scheduled by the compiler's own scheduler.

Weights are stationary, activations stream: a plane installs a tile of weights, and one row of activations
passes it per cycle. The k tiles of one column tile follow each other on one plane and add into one
accumulator, which its drain then empties. Installs are double-buffered (`max(install, rows)`).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from compiler.lower.ops.chains import tile_cut
from compiler.lower.rows import Kernels, RowBuilder, Rows, tag
from compiler.program.instructions.matmul import MatmulKernel, WriteBackKernel
from compiler.program.isa import F32_LANES, TILE_ROWS, Op, ceil_div
from compiler.route.route import Router
from compiler.schedule.list_schedule import schedule
from compiler.timing import timing
from fabric.chip import ChipSpec
from fabric.rack import Rack

TILE_LINES = TILE_ROWS // F32_LANES
INPUT, OUTPUT = 0, 1  # value numbers: 0 is what the chip holds at the start


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """[rows, inner] x [inner, columns]; `bytes_per_weight` is 1 (INT8) or 2 (FP16)."""

    rows: int
    inner: int
    columns: int
    bytes_per_weight: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the product."""
        return self.rows * self.inner * self.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneSplit:
    """How the planes share a product: its rows in `row_parts`, each streamed in `chunks` of equal length.

    The planes of one part share its column tiles.
    """

    row_parts: int
    chunks: int


def plane_chip(chip: ChipSpec, bytes_per_weight: int) -> ChipSpec:
    """The chip for a product: as many planes as a weight has bytes work as one.

    FP16 takes planes in pairs: a pair holds 160 x 320 weights and takes a row per cycle, a quarter of the
    INT8 rate. Its tile has as many bytes as an INT8 tile of one plane, so the MM row says both.
    Source: hardware.md 3.1: FP16 at a quarter of the rate, 2 x 160 x 320 per cycle.
    """
    if bytes_per_weight == 1:
        return chip
    return chip.with_numbers(reason="planes work in pairs", planes=chip.planes // bytes_per_weight)


def ideal_cycles(gemm: Gemm, chip: ChipSpec) -> float:
    """Cycles at the peak rate: every multiplier of every plane busy in every cycle."""
    one = plane_chip(chip, gemm.bytes_per_weight)
    return gemm.macs / (one.planes * TILE_ROWS * TILE_ROWS // gemm.bytes_per_weight)


def scheduled_cycles(gemm: Gemm, split: PlaneSplit, rack: Rack) -> int:
    """Cycles from the first row of activations to the last result in SRAM, on chip 0 of the rack."""
    chip = plane_chip(rack.chip, gemm.bytes_per_weight)
    batch = _chunk_rows(gemm, split)
    kernels = Kernels()
    rows = gemm_rows(gemm, split, chip, kernels)
    return schedule(rows, kernels, Router(rack, (0,)), chip, batch).cycles


def best_split(gemm: Gemm, rack: Rack, whole: bool = False) -> tuple[PlaneSplit, int]:
    """The fastest of the splits by rows, and its cycles.

    Rows are streamed in the shortest chunks that still hide the next install, so results leave early; or
    `whole`, so that the drain begins when the last row has passed.
    """
    chip = plane_chip(rack.chip, gemm.bytes_per_weight)
    install = int(timing(Op.MM, TILE_LINES, MatmulKernel(k_lines=1), chip, 1)[0])
    found: list[tuple[int, int, PlaneSplit]] = []
    for parts in range(1, chip.planes + 1):
        if chip.planes % parts == 0:
            chunks = 1 if whole else max(1, ceil_div(gemm.rows, parts) // install)
            split = PlaneSplit(row_parts=parts, chunks=chunks)
            found.append((scheduled_cycles(gemm, split, rack), parts, split))
    cycles, _, split = min(found, key=lambda one: one[:2])
    return split, cycles


def gemm_rows(gemm: Gemm, split: PlaneSplit, chip: ChipSpec, kernels: Kernels) -> Rows:
    """MM and WB rows of the product: chunk by chunk, column tile by column tile, k tile by k tile."""
    sharers = chip.planes // split.row_parts
    widths = tile_cut(ceil_div(gemm.columns, F32_LANES), sharers, _chunk_rows(gemm, split))
    depth = int(ceil_div(gemm.inner * gemm.bytes_per_weight, TILE_ROWS))
    grid = np.indices((split.chunks, len(widths), split.row_parts)).reshape(3, -1)
    chunk, column, part = grid
    plane = part * sharers + column % sharers
    accumulator = _earlier(plane) % chip.accumulators
    line = (np.cumsum(widths) - widths)[column] + (chunk * split.row_parts + part) * int(widths.sum())
    chain = np.repeat(np.arange(len(plane)), depth)
    build = RowBuilder()
    products = build.add(
        Op.MM,
        rank=0,
        pin=plane[chain],
        n=widths[column][chain],
        aux=kernels.index(MatmulKernel(k_lines=1)),
        dst=accumulator[chain],
        src_tag=tag(INPUT, np.tile(np.arange(depth), len(plane))),
    )
    drains = build.add(
        Op.WB,
        rank=0,
        pin=plane,
        n=widths[column],
        aux=kernels.index(WriteBackKernel(wide=False, products=depth)),
        src3=accumulator,
        dst_tag=tag(OUTPUT, line),
    )
    build.edge(products, drains[chain])
    before = _before(plane * chip.accumulators + accumulator)
    reused = before[chain] >= 0
    build.edge(drains[before[chain][reused]], products[reused])
    return build.build()


def _chunk_rows(gemm: Gemm, split: PlaneSplit) -> int:
    return int(ceil_div(ceil_div(gemm.rows, split.row_parts), split.chunks))


def _earlier(plane: Int64[np.ndarray, " chains"]) -> Int64[np.ndarray, " chains"]:
    """Number of earlier chains on the same plane, for each chain."""
    count = np.zeros_like(plane)
    for one in np.unique(plane):
        count[plane == one] = np.arange((plane == one).sum())
    return count


def _before(accumulator: Int64[np.ndarray, " chains"]) -> Int64[np.ndarray, " chains"]:
    """The chain that used the same accumulator before each chain, or -1."""
    before = np.full(len(accumulator), -1)
    for one in np.unique(accumulator):
        mine = np.flatnonzero(accumulator == one)
        before[mine[1:]] = mine[:-1]
    return before
