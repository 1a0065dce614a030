"""Lowering of a matmul in contract parts: products of each part, rounded there, and the tree over them."""

from collections.abc import Callable

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node
from compiler.lower.collective import scale_words
from compiler.lower.context import Lowering
from compiler.lower.layout import Lines, lay
from compiler.lower.ops.chains import drain_kernels, emptied_by, turns
from compiler.lower.ops.dealt import (
    RowTiles,
    Way,
    adding_readers,
    cycles,
    exchange,
    lines_needed,
    node_lines,
    node_owner,
    row_tiles,
    to_owners,
    to_readers,
    ways,
)
from compiler.lower.rows import tag
from compiler.program.instructions.matmul import MatmulKernel, tree_kernel
from compiler.program.isa import F16_LANES, F32_LANES, TILE, Op
from compiler.program.ranges import ramp


def lower_parted(low: Lowering, nodes: list[Node], source: Lines) -> None:
    """Products of each part, rounded where they are made, and the tree that adds them.

    Raises CompileError for several products of one input, for one of a norm, or of what no single rank made.
    """
    node = nodes[0]
    if len(nodes) > 1 or len(node.inputs) > 3 or (source.owner < 0).any():
        raise CompileError(
            "lower",
            f"{node.path}: {node.op} ({node.source})",
            f"{len(nodes)} products of one input in parts, or of a norm",
            "State starts for a product that alone reads what glu or attention made.",
        )
    tiles = row_tiles(source, node.attributes["starts"])

    def multiply(way: Way, out: Lines, written: np.ndarray) -> None:
        _multiply(low, node, source, tiles, way, out, written)

    lower_dealt(low, node, [source], tiles, multiply)


Multiply = Callable[[Way, Lines, np.ndarray], None]
"""Of a way and the result: the products of each part, written back to the lines of tags [tiles, parts]."""


def lower_dealt(
    low: Lowering,
    node: Node,
    sources: list[Lines],
    tiles: RowTiles,
    multiply: Multiply,
    *,
    spread: bool = False,
) -> None:
    """The result of a node as the sum over its parts, in the way that is estimated to be the fastest.

    sources: inputs of equal lines, tiles: of each. spread: rows are dealt over as many ranks as can be, so
    that what lies on each does not depend on who reads the result.
    """
    demands = [(demand, demand.view.start) for demand in low.demands.pieces(node.outputs[0])]
    owner, columns, segments, _ = lay(demands, "f32", low.group.ranks)
    found = ways(low, node, sources[0], tiles, owner, kept=spread)
    found = [way for way in found if not spread or way.spread == max(one.spread for one in found)]
    readers = [adding_readers(low, node, way) for way in found]
    adding = [i for i, way in enumerate(found) if way.by_readers and readers[i] is not None]
    if adding:
        found, readers = [found[i] for i in adding], [readers[i] for i in adding]
    cost = [
        cycles(low, sources[0], tiles, way, read, len(sources))
        for way, read in zip(found, readers, strict=True)
    ]
    best = cost.index(min(cost))
    low.rows_dealt |= found[best].spread > 1
    for turn, source in enumerate(sources):
        low.gather(source, lines_needed(low, source, tiles, found[best]), turn)
    out = _lower(low, found[best], columns, readers[best], multiply)
    for (demand, _), segment in zip(demands, segments, strict=True):
        low.where[demand.view] = (out, segment)


def _lower(
    low: Lowering, way: Way, columns: np.ndarray, readers: np.ndarray | None, multiply: Multiply
) -> Lines:
    out = low.value("f32", way.owner, columns, first=way.tile_first, count=way.tile_count, made=way.relays)
    home, every = way.owner[way.tile_first], np.arange(len(way.tile_first))
    if len(way.first) == 1:
        leaves, line = _leaves(low, way, np.ones(len(way.node), bool))
        multiply(way, out, leaves.tag(line))
        _tree(
            low, way, home, every, leaves.tag(line[:, 0]), out.tag(way.tile_first), [1] * len(way.node), True
        )
        return out
    first, count = node_lines(way)
    made = low.value("f32", node_owner(way), first=first, count=count)
    base = first.reshape(-1, len(way.first))
    inner = way.size[way.node] > 1  # of each part, whether it is a leaf below its rank's node
    written = made.tag(base[:, way.node])
    if inner.any():
        leaves, line = _leaves(low, way, inner)
        written[:, inner] = leaves.tag(line)
    multiply(way, out, written)
    for which in np.flatnonzero(way.size > 1):
        at = int(way.first[which])
        ones = [1] * int(way.size[which])
        _tree(low, way, way.rank[:, at], every, written[:, at], made.tag(base[:, which]), ones, False)
    where, tile = home, every
    adding = way.relays
    if adding is None and readers is not None and exchange(low, way, readers, low.batch)[1]:
        adding = out.held[: low.group.ranks] = readers
    if adding is not None:
        low.gather(made, to_readers(way, adding))
        tile, where = np.nonzero(adding[:, way.tile_first].T)
    else:
        low.gather(made, to_owners(low, way))
    _tree(
        low, way, where, tile, made.tag(base[tile, 0]), out.tag(way.tile_first[tile]), way.size.tolist(), True
    )
    return out


def _leaves(low: Lowering, way: Way, inner: np.ndarray) -> tuple[Lines, np.ndarray]:
    """A value of the parts `inner` of every column tile, and the first line of each [tiles, those parts]."""
    parts = int(inner.sum())
    count = np.repeat(way.tile_count, parts)
    first = np.cumsum(count) - count
    owner = np.repeat(way.rank[:, inner].reshape(-1), count)
    return low.value("f32", owner, first=first, count=count), first.reshape(-1, parts)


def _tree(
    low: Lowering,
    way: Way,
    rank: np.ndarray,
    tile: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    sizes: list[int],
    whole: bool,
) -> None:
    low.rows.add(
        Op.TREE,
        rank=rank,
        n=way.tile_count[tile],
        aux=low.kernels.index(tree_kernel(sizes, whole=whole)),
        src_tag=source,
        dst_tag=target,
    )


def _codes(low: Lowering, node: Node, rows: np.ndarray, columns: np.ndarray | None, parts: int) -> np.ndarray:
    """The slot of each contract part: the codes of its own rows, zeros elsewhere."""
    part = np.searchsorted(node.attributes["starts"], rows, side="right") - 1
    own = [np.where(part == one, rows, -1) for one in range(parts)]
    return np.array([low.slot(node.inputs[1].value, one, columns) for one in own])


def _multiply(
    low: Lowering,
    node: Node,
    source: Lines,
    tiles: RowTiles,
    way: Way,
    out: Lines,
    written: np.ndarray,
) -> None:
    """MM rows, tile by tile of each chain, and its write-back to the line of `written` [tiles, parts]."""
    parts = len(tiles.begin)
    chunk, part = np.divmod(np.arange(len(way.tile_first) * parts), parts)
    rank, written = way.rank.reshape(-1), written.reshape(-1)
    place = turns(low, rank) % low.drains.shape[1]
    plane, slot = place % low.chip.planes, place // low.chip.planes
    chain = np.repeat(np.arange(len(chunk)), tiles.count[part])
    k = tiles.begin[part[chain]] + ramp(tiles.count[part])
    width, first = way.tile_count[chunk[chain]], way.tile_first[chunk[chain]]
    product = np.repeat(np.arange(len(chain)), width)  # of each preloaded line of a tile
    line = first[product] + ramp(width)
    codes = _codes(low, node, source.columns, out.columns, parts)
    uids = np.array([low.weight_uid() for _ in range(parts)])[part[chain]]
    tags = tag(uids[product], k[product] * out.lines + line)
    address = low.weights.load(
        rank[chain][product],
        F32_LANES,
        kind=TILE,
        tensor=codes[part[chain][product]],
        k0=tiles.line[k[product]] * F16_LANES,
        n0=line * F32_LANES,
        lines=1,
        tag=tags,
    )
    names = np.array([low.weight_uid() for _ in range(parts)])[part]
    sums = tag(names, way.tile_first[chunk])  # of each accumulator: its part, and the columns
    begin = np.cumsum(width) - width
    aux = np.array([-1, *(low.kernels.index(MatmulKernel(k_lines=i)) for i in (1, 2))])[tiles.lines[k]]
    products = low.rows.add(
        Op.MM,
        rank=rank[chain],
        pin=plane[chain],
        n=width,
        aux=aux,
        dst=slot[chain],
        src_tag=source.tag(tiles.line[k]),
        src2=address[begin],
        src2_tag=tags[begin],
        dst_tag=sums[chain],
    )
    scale = np.full(out.lines, low.slot(node.inputs[2].value, None, out.columns))
    words, scales = scale_words(low, out, rank, chunk, scale)
    last = low.rows.add(
        Op.WB,
        rank=rank,
        pin=plane,
        n=way.tile_count[chunk],
        aux=drain_kernels(low, tiles.count[part], wide=False, normed=False, part=True),
        src2=words,
        src2_tag=scales,
        src3=slot,
        src3_tag=sums,
        dst_tag=written,
    )
    low.rows.edge(products, last[chain])
    earlier = emptied_by(low, rank, place, last)[chain]
    reused = earlier >= 0
    low.rows.edge(earlier[reused], products[reused])
