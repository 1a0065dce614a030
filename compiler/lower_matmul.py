"""Lowering of matmuls: tiles on MXM planes, write-backs, and the reduction of partial sums between ranks."""

from typing import Any

import numpy as np

from compiler.errors import CompileError
from compiler.graph import Node, View
from compiler.isa import F32_LANES, TILE_ROWS, Op, ceil_div
from compiler.layout import Demand, Lines, lay
from compiler.lowering import Lowering
from compiler.program import SCALE, TILE


def tile_cut(lines: int, planes: int, rows: int) -> np.ndarray:
    """Widths (1..4 lines) of the column tiles that `lines` output lines are cut into, evenly over the planes.

    A tile narrower than `rows` lines takes no less time than `rows` cycles, so wide batches use wide tiles.
    """
    least = int(ceil_div(lines, 4))
    most = int(ceil_div(lines, min(4, rows)))
    count = min(most, int(ceil_div(least, planes)) * planes)
    cuts = np.arange(count + 1) * lines // count
    return np.diff(cuts)


def lower_matmuls(low: Lowering, nodes: list[Node]) -> None:
    """The matmuls of one input together, so that q, k and v (or gate and up) fill tiles side by side."""
    source, _ = low.lines(nodes[0].inputs[0], nodes[0])
    if source.dtype != "f16":
        raise CompileError(
            "lower",
            f"{nodes[0].path}: matmul",
            f"its input is {source.dtype}, must be fp16",
            "Round it first (rms_norm, glu, attention and round16 return fp16).",
        )
    low.gather(source, low.group.needs(source.lines, low.multipliers(nodes[0].inputs[0].value)))
    demands: list[tuple[Demand, int]] = []
    tensor: list[int] = []
    for which, node in enumerate(nodes):
        for demand in low.demands.pieces(node.outputs[0]):
            demands.append((demand, demand.view.start))
            tensor.append(which)
    owner, columns, segments, piece = lay(demands, "f32", low.group.ranks)
    chunks = _chunks(low, owner)
    out = low.value("f32", owner, columns, first=chunks[0], count=chunks[1])
    _multiply(low, nodes, source, out, np.array(tensor)[piece])
    for (demand, _), segment in zip(demands, segments, strict=True):
        low.where[demand.view] = (out, segment)


def _chunks(low: Lowering, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first line, lines) of each column tile: the lines of one owner, cut by `tile_cut`."""
    runs = np.flatnonzero(np.diff(owner, prepend=-1))
    sizes = np.diff(np.append(runs, len(owner)))
    widths = [tile_cut(int(size), low.chip.planes, low.batch) for size in sizes]
    first = [run + np.cumsum(width) - width for run, width in zip(runs, widths, strict=True)]
    return np.concatenate(first), np.concatenate(widths)


def _multiply(low: Lowering, nodes: list[Node], source: Lines, out: Lines, tensor: np.ndarray) -> None:
    parts = low.group.k_parts
    tiles = int(ceil_div(source.lines, 2))
    part_first, part_count = low.group.k_part(tiles)
    codes, scales = _slots(low, nodes, source, out, tensor, tiles)
    chunk = np.repeat(np.arange(len(out.first)), parts)
    part = np.tile(np.arange(parts), len(out.first))
    live = part_count[part] > 0
    chunk, part = chunk[live], part[live]
    first, width = out.first[chunk], out.count[chunk]
    rank = out.owner[first] // parts * parts + part
    turn = _turns(low, rank)
    place = turn % low.drains.shape[1]
    plane, slot = place % low.chip.planes, place // low.chip.planes

    # One row per (chunk, part, k tile); one preloaded value per row and line.
    spread = np.repeat(np.arange(len(chunk)), part_count[part])
    step = _ramp(part_count[part])
    k = part_first[part][spread] + step
    lines = np.repeat(np.arange(len(spread)), width[spread])
    line = first[spread][lines] + _ramp(width[spread])
    uid = low.weight_uid()
    tags = (uid << 40) | (k[lines] * out.lines + line)
    address = low.weights.load(
        rank[spread][lines],
        F32_LANES,
        kind=TILE,
        tensor=codes[line],
        k0=k[lines] * TILE_ROWS,
        n0=line * F32_LANES,
        lines=1,
        tag=tags,
    )
    begin = np.cumsum(width[spread]) - width[spread]
    k_lines = np.minimum(2, source.lines - 2 * k)
    aux = np.array([-1, *(low.kernels.index("mm", k_lines=i) for i in (1, 2))])[k_lines]
    products = low.rows.add(
        Op.MM,
        rank=rank[spread],
        pin=plane[spread],
        n=width[spread],
        aux=aux,
        dst=slot[spread],
        src_tag=source.tag(2 * k),
        src2=address[begin],
        src2_tag=tags[begin],
        dst_tag=out.tag(first[spread]),
    )
    last: Any = _write_back(low, out, chunk, part, rank, plane, slot, part_count, scales)
    low.rows.edge(products, last[spread])
    earlier = _emptied_by(low, rank, place, last)[spread]
    reused = earlier >= 0
    low.rows.edge(earlier[reused], products[reused])


def _ramp(counts: np.ndarray) -> np.ndarray:
    """0 .. c-1 for each count, end to end."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def _slots(
    low: Lowering, nodes: list[Node], source: Lines, out: Lines, tensor: np.ndarray, tiles: int
) -> tuple[np.ndarray, np.ndarray]:
    """The code and scale slots of every output line: each matmul sees its own columns only."""
    rows = np.full(tiles * TILE_ROWS, -1)
    rows[: len(source.columns)] = source.columns
    codes, scales = [], []
    for which, node in enumerate(nodes):
        columns = np.where(np.repeat(tensor, F32_LANES) == which, out.columns, -1)
        codes.append(low.slot(node.inputs[1].value, rows, columns))
        scales.append(low.slot(node.inputs[2].value, None, columns))
    return np.array(codes)[tensor], np.array(scales)[tensor]


def _turns(low: Lowering, rank: np.ndarray) -> np.ndarray:
    """The turn of each chain on its rank: planes first, then accumulators; a matmul begins at plane 0."""
    order = np.argsort(rank, kind="stable")
    turn = np.empty_like(rank)
    turn[order] = np.arange(len(rank)) - np.searchsorted(rank[order], rank[order])
    turn += (ceil_div(low.turns, low.chip.planes) * low.chip.planes)[rank]
    np.maximum.at(low.turns, rank, turn + 1)
    return turn


def _emptied_by(low: Lowering, rank: np.ndarray, place: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The write-back that empties the accumulator before each chain, of this matmul or an earlier, or -1."""
    key = rank * low.drains.shape[1] + place
    order = np.argsort(key, kind="stable")
    first = np.diff(key[order], prepend=-1) != 0
    emptied = np.empty_like(last)
    emptied[order] = np.where(first, low.drains.reshape(-1)[key[order]], np.roll(last[order], 1))
    low.drains.reshape(-1)[key[order][np.roll(first, -1)]] = last[order][np.roll(first, -1)]
    return emptied


def _write_back(
    low: Lowering,
    out: Lines,
    chunk: np.ndarray,
    part: np.ndarray,
    rank: np.ndarray,
    plane: np.ndarray,
    slot: np.ndarray,
    part_count: np.ndarray,
    scales: np.ndarray,
) -> np.ndarray:
    """WB rows of the chains; with several K parts they leave wide partials that RED adds at the owner."""
    width, first = out.count[chunk], out.first[chunk]
    chain = part_count[part]
    parts = int((part_count > 0).sum())
    fields = {"rank": rank, "pin": plane, "n": width, "src": slot, "src_tag": out.tag(first), "src3": chain}
    if low.group.k_parts == 1:
        address, tags = _scale(low, out, rank, chunk, scales)
        return low.rows.add(
            Op.WB,
            aux=low.kernels.index("wb", wide=False),
            src2=address,
            src2_tag=tags,
            dst_tag=out.tag(first),
            **fields,
        )
    base = 4 * parts * (np.cumsum(out.count) - out.count)
    place = np.cumsum(part_count > 0)[part] - 1
    begin = base[chunk] + 4 * width * place
    lines = 4 * parts * out.lines
    owner = np.empty(lines, np.int64)
    owner[np.repeat(begin, 4 * width) + _ramp(4 * width)] = np.repeat(rank, 4 * width)
    partial = low.value("wide", owner, first=begin, count=4 * width)
    wide = low.rows.add(Op.WB, aux=low.kernels.index("wb", wide=True), dst_tag=partial.tag(begin), **fields)
    need = np.zeros((low.group.ranks, lines), bool)
    need[np.repeat(out.owner[out.first], 4 * parts * out.count), np.arange(lines)] = True
    low.gather(partial, need)
    every = np.arange(len(out.first))
    home = out.owner[out.first]
    address, tags = _scale(low, out, home, every, scales)
    low.rows.add(
        Op.RED,
        rank=home,
        n=out.count,
        aux=low.kernels.index("red", parts=parts),
        src_tag=partial.tag(base),
        src2=address,
        src2_tag=tags,
        dst_tag=out.tag(out.first),
    )
    return wide


def _scale(
    low: Lowering, out: Lines, rank: np.ndarray, chunk: np.ndarray, scales: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Load the scale words of each chunk on its rank; (address, tag) of the first."""
    width = out.count[chunk]
    line = np.repeat(out.first[chunk], width) + _ramp(width)
    uid = low.weight_uid()
    tags = (uid << 40) | line
    address = low.weights.load(
        np.repeat(rank, width),
        1,
        kind=SCALE,
        tensor=scales[line],
        k0=0,
        n0=line * F32_LANES,
        lines=1,
        tag=tags,
    )
    begin = np.cumsum(width) - width
    return address[begin], tags[begin]


def matmul_views(nodes: list[Node]) -> dict[View, list[Node]]:
    """Matmuls by their input, in program order."""
    groups: dict[View, list[Node]] = {}
    for node in nodes:
        if node.op == "matmul":
            groups.setdefault(node.inputs[0], []).append(node)
    return groups
