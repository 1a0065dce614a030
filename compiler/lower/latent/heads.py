"""Lowering of head_matmul: the product of each head with its own matrix, on the rank where the head lies."""

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node
from compiler.lower.collective import scale_words
from compiler.lower.context import Lowering
from compiler.lower.layout import Lines, Segments
from compiler.lower.ops.chains import drain_kernels, emptied_by, turns
from compiler.lower.rows import tag
from compiler.lower.rule import LoweringRule, Uses
from compiler.program.instructions.matmul import MatmulKernel
from compiler.program.isa import F16_LANES, F32_LANES, TILE, Op, ceil_div
from compiler.program.ranges import ramp


def lower_head_matmul(low: Lowering, node: Node) -> None:
    """MM rows of each head, its k tiles one after another, and the write-backs of its columns."""
    source, heads = low.segments(node.inputs[0], node)
    if source.dtype != "f16":
        reason = f"its input is {source.dtype}, must be fp16"
        raise CompileError("lower", f"{node.path}: head_matmul", reason, "Round it first (round16).")
    (piece,) = low.demands.pieces(node.outputs[0])
    columns, count = piece.columns, len(heads)
    lines = int(ceil_div(columns, F32_LANES))
    at = np.full((count, lines * F32_LANES), -1)
    at[:, :columns] = np.arange(count * columns).reshape(count, columns)
    owner = source.owner[heads.first]
    width = _tiles(low, lines, int(np.bincount(owner).max()))
    first = (np.arange(count)[:, None] * lines + np.cumsum(width) - width).reshape(-1)
    out = low.value("f32", np.repeat(owner, lines), at.reshape(-1), first=first, count=np.tile(width, count))
    _multiply(low, node, source, heads, out, len(width))
    low.where[piece.view] = (
        out,
        Segments(
            start=0,
            total=count * columns,
            width=columns,
            first=np.arange(count) * lines,
            lines=lines,
            starts=piece.starts,
        ),
    )


def _tiles(low: Lowering, lines: int, heads: int) -> np.ndarray:
    """Lines (1 to 4) of each column tile of one head, where a rank has this many heads.

    As few tiles as keep its planes busy. By the rows of a decode step, as `chains.tile_cut`.
    """
    most = int(ceil_div(lines, min(4, low.cached)))
    count = min(most, max(int(ceil_div(lines, 4)), int(ceil_div(low.chip.planes, heads))))
    return np.diff(np.arange(count + 1) * lines // count)


def _multiply(low: Lowering, node: Node, source: Lines, heads: Segments, out: Lines, tiles: int) -> None:
    """All rows; tiles: column tiles of each head."""
    head = np.repeat(np.arange(len(heads)), tiles)  # of each chain of products
    rank, depth = source.owner[heads.first[head]], int(ceil_div(heads.lines, 2))
    place = turns(low, rank) % low.drains.shape[1]
    plane, slot = place % low.chip.planes, place // low.chip.planes
    chain = np.repeat(np.arange(len(head)), depth)
    step = ramp(np.full(len(head), depth))
    line = heads.first[head[chain]] + 2 * step  # of the input
    width, first = out.count[chain], out.first[chain]
    product = np.repeat(np.arange(len(chain)), width)  # of each preloaded line of a tile
    target = first[product] + ramp(width)
    uid = low.weight_uid()
    tags = tag(uid, line[product] * out.lines + target)
    address = low.weights.load(
        rank[chain][product],
        F32_LANES,
        kind=TILE,
        tensor=_slots(low, node, source, heads, out)[head[chain][product] % 2],
        k0=line[product] * F16_LANES,
        n0=target * F32_LANES,
        lines=1,
        tag=tags,
    )
    begin = np.cumsum(width) - width
    k_lines = np.minimum(2, heads.lines - 2 * step)
    aux = np.array([-1, *(low.kernels.index(MatmulKernel(k_lines=i)) for i in (1, 2))])[k_lines]
    products = low.rows.add(
        Op.MM,
        rank=rank[chain],
        pin=plane[chain],
        n=width,
        aux=aux,
        dst=slot[chain],
        src_tag=source.tag(line),
        src2=address[begin],
        src2_tag=tags[begin],
        dst_tag=out.tag(first),
    )
    scales = np.full(out.lines, low.slot(node.inputs[2].value, None, out.columns))
    words, names = scale_words(low, out, rank, np.arange(len(head)), scales)
    last = low.rows.add(
        Op.WB,
        rank=rank,
        pin=plane,
        n=out.count,
        aux=drain_kernels(low, np.full(len(head), depth), wide=False, normed=False),
        src2=words,
        src2_tag=names,
        src3=slot,
        src3_tag=out.tag(out.first),
        dst_tag=out.tag(out.first),
    )
    low.rows.edge(products, last[chain])
    earlier = emptied_by(low, rank, place, last)[chain]
    reused = earlier >= 0
    low.rows.edge(earlier[reused], products[reused])


def _slots(low: Lowering, node: Node, source: Lines, heads: Segments, out: Lines) -> np.ndarray:
    """The slots of the matrices of even and of odd heads, which stand on the diagonal of one matrix.

    So a tile that reaches into the lines of the next head has no weights there.
    """
    of = np.full(source.lines, -1)
    of[heads.first[:, None] + np.arange(heads.lines)] = np.arange(len(heads))[:, None] % 2
    parity = np.repeat(of, F16_LANES)
    return np.array(
        [
            low.slot(node.inputs[1].value, np.where(parity == one, source.columns, -1), out.columns)
            for one in range(min(2, len(heads)))
        ]
    )


def _head_lanes(uses: Uses, node: Node) -> int:
    """Columns of one head's matrix."""
    return uses.graph.values[node.inputs[1].value].shape[1]


def _wants(uses: Uses, node: Node, operand: int) -> int | None:
    """The input head by head; as many rows as one head's matrix has."""
    if operand:
        return None
    values = uses.graph.values
    rows, columns = values[node.inputs[1].value].shape
    return rows * columns // values[node.inputs[2].value].shape[0]


RULE = LoweringRule(
    op="head_matmul", lower=lower_head_matmul, wants=_wants, by_head=True, cuts=_head_lanes, even=True
)
