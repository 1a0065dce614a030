"""Lowering of a matmul in contract parts: its rows may be dealt over ranks part by part, bits stay equal.

With a `spread` of 1 every owner of columns takes all rows, as of other matmuls. Otherwise each of `spread`
ranks multiplies the rows that it holds by all columns: what crosses is one f32 line for every node of the
contract's tree that a rank has whole. Source: facts/contract2.md section 2; docs/pipeline.md says when.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node
from compiler.lower.collective import Move, arrival, reading_ranks, scale_words
from compiler.lower.context import Lowering
from compiler.lower.layout import Lines, lay, rank_of_part
from compiler.lower.ops.chains import column_tiles, drain_kernels, emptied_by, turns
from compiler.lower.rows import tag
from compiler.program.instructions.matmul import MatmulKernel, in_tree, tree_kernel
from compiler.program.isa import F16_LANES, F32_LANES, TILE, TILE_ROWS, Op, ceil_div
from compiler.program.ranges import ramp


@dataclass(frozen=True, slots=True, kw_only=True)
class _RowTiles:
    """Tiles of input rows, part by part: of each its first line of the input, and how many (1 or 2).

    A line at the border of two parts is in a tile of each: the rows of the other part have no weights there.
    begin, count: int64 [parts], the tiles of each part.
    """

    line: np.ndarray
    lines: np.ndarray
    begin: np.ndarray
    count: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """One way to compute the product.

    holder: int64 [parts], which of the `spread` ranks of a group holds each. node, first, size: of each node
    of the tree that one of them has whole, in order: by part its index, its first part, its parts.
    tile_first, tile_count: first line and lines of each column tile. rank: int64 [column tiles, parts].
    """

    spread: int
    holder: np.ndarray
    node: np.ndarray
    first: np.ndarray
    size: np.ndarray
    tile_first: np.ndarray
    tile_count: np.ndarray
    rank: np.ndarray


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
    demands = [(demand, demand.view.start) for demand in low.demands.pieces(node.outputs[0])]
    owner, columns, segments, _ = lay(demands, "f32", low.group.ranks)
    tiles = _row_tiles(source, node.attributes["starts"])
    ways = [_way(low, source, tiles, owner, spread) for spread in _spreads(low, len(tiles.begin))]
    readers = [_reading(low, node, way, owner) for way in ways]
    cost = [_cycles(low, source, tiles, way, owner, read) for way, read in zip(ways, readers, strict=True)]
    best = cost.index(min(cost))
    out = _lower(low, node, source, tiles, ways[best], (owner, columns), readers[best])
    for (demand, _), segment in zip(demands, segments, strict=True):
        low.where[demand.view] = (out, segment)


def _spreads(low: Lowering, parts: int) -> list[int]:
    """Over how many ranks the rows may be dealt: what the layout says, or one and as many as there can be."""
    free = low.group.k_parts == 1
    ranks = low.group.ranks if free else low.group.k_parts
    most = max(count for count in range(1, min(parts, ranks) + 1) if ranks % count == 0)
    return sorted({1, most}) if free else [most]


def _row_tiles(source: Lines, starts: Sequence[int]) -> _RowTiles:
    """Two lines a tile, from the first line that holds a row of a part to the last that does."""
    real = source.columns.reshape(-1, F16_LANES)
    part = np.where(real >= 0, np.searchsorted(starts, real, side="right") - 1, -1)
    line: list[np.ndarray] = []
    lines: list[np.ndarray] = []
    for number in range(len(starts) - 1):
        held = np.flatnonzero((part == number).any(axis=1))
        line.append(np.arange(held[0], held[-1] + 1, 2))
        lines.append(np.minimum(2, held[-1] + 1 - line[-1]))
    count = np.array([len(one) for one in line])
    return _RowTiles(
        line=np.concatenate(line), lines=np.concatenate(lines), begin=np.cumsum(count) - count, count=count
    )


def _way(low: Lowering, source: Lines, tiles: _RowTiles, owner: np.ndarray, spread: int) -> _Way:
    parts = len(tiles.begin)
    holder = _owners(source, tiles) if spread == low.group.ranks else None
    if holder is None:
        holder = rank_of_part(np.arange(parts), parts, spread)
    nodes = [one for rank in np.unique(holder) for one in _aligned(np.flatnonzero(holder == rank), parts)]
    first, size = np.array(nodes).T
    tile_first, tile_count = column_tiles(low, owner, int(ceil_div(low.chip.planes, spread)))
    home = owner[tile_first][:, None]
    return _Way(
        spread=spread,
        holder=holder,
        node=np.repeat(np.arange(len(first)), size),
        first=first,
        size=size,
        tile_first=tile_first,
        tile_count=tile_count,
        rank=home // spread * spread + holder if spread > 1 else np.repeat(home, parts, axis=1),
    )


def _owners(source: Lines, tiles: _RowTiles) -> np.ndarray | None:
    """The rank that owns every line of each part, if there is one, and neighbouring parts lie together."""
    holder = np.zeros(len(tiles.begin), np.int64)
    for part, (begin, count) in enumerate(zip(tiles.begin, tiles.count, strict=True)):
        last = begin + count - 1
        owners = np.unique(source.owner[tiles.line[begin] : tiles.line[last] + tiles.lines[last]])
        if len(owners) > 1:
            return None
        holder[part] = owners[0]
    return holder if (np.diff(holder) >= 0).all() else None


def _aligned(parts: np.ndarray, leaves: int) -> list[tuple[int, int]]:
    """(first leaf, leaves) of the fewest nodes that consecutive parts make up."""
    out: list[tuple[int, int]] = []
    at, end = int(parts[0]), int(parts[-1]) + 1
    while at < end:
        size = max(size for size in range(1, end - at + 1) if in_tree(at, size, leaves))
        out.append((at, size))
        at += size
    return out


def _need(low: Lowering, source: Lines, tiles: _RowTiles, way: _Way) -> np.ndarray:
    """The lines of the input that each rank multiplies, [ranks, lines]."""
    need = np.zeros((low.group.ranks, source.lines), bool)
    for part, (begin, count) in enumerate(zip(tiles.begin, tiles.count, strict=True)):
        last = begin + count - 1
        need[np.unique(way.rank[:, part]), tiles.line[begin] : tiles.line[last] + tiles.lines[last]] = True
    return need


def _reading(low: Lowering, node: Node, way: _Way, owner: np.ndarray) -> np.ndarray | None:
    """Who reads the result, [ranks, lines], where each may add all nodes itself; None where owners must."""
    return reading_ranks(low, [node], owner, (way.tile_first, way.tile_count)) if len(way.first) > 1 else None


def _cycles(
    low: Lowering, source: Lines, tiles: _RowTiles, way: _Way, owner: np.ndarray, readers: np.ndarray | None
) -> int:
    """An estimate, for the rows of a decode step: a prefill program has the same image and must choose alike.

    Installing the weights of one rank hides the gathering of the input, not what comes after it.
    """
    rows, chip = low.cached, low.chip
    rank, at = np.divmod(np.arange(low.group.ranks * len(tiles.begin)), len(tiles.begin))
    mine = (way.rank[:, at] == rank) * way.tile_count[:, None] * tiles.count[at]
    words = F32_LANES * int(mine.sum(axis=0).reshape(low.group.ranks, -1).sum(axis=1).max())
    install = int(ceil_div(words * TILE_ROWS, chip.plane_bytes_per_cycle * chip.planes))
    before = arrival(low, _moves(source.owner, _need(low, source, tiles, way), rows))
    after = arrival(low, _moves(owner, _result_need(low, owner), rows))
    if len(way.first) == 1:
        return max(install, before) + after
    made = _node_owner(way)
    found = [arrival(low, _moves(made, _to_owners(low, way, owner), rows)) + after]
    if readers is not None:
        found.append(arrival(low, _moves(made, _to_readers(way, readers), rows)))
    return before + install + min(found)


def _result_need(low: Lowering, owner: np.ndarray) -> np.ndarray:
    """The result on every rank of the group."""
    return np.ones((low.group.ranks, len(owner)), bool)


def _moves(owner: np.ndarray, need: np.ndarray, rows: int) -> list[Move]:
    """Words from the owner of each line to the ranks that need it."""
    words: dict[tuple[int, bytes], int] = {}
    for line, rank in enumerate(owner.tolist()):
        key = (rank, need[:, line].tobytes())
        words[key] = words.get(key, 0) + rows
    return [
        (rank, tuple(one for one in np.flatnonzero(np.frombuffer(mask, bool)).tolist() if one != rank), count)
        for (rank, mask), count in words.items()
    ]


def _node_lines(way: _Way) -> tuple[np.ndarray, np.ndarray]:
    """(first line, lines) of every node of every column tile, tile by tile."""
    count = np.repeat(way.tile_count, len(way.first))
    return np.cumsum(count) - count, count


def _node_owner(way: _Way) -> np.ndarray:
    """The rank of every line of the nodes."""
    return np.repeat(way.rank[:, way.first].reshape(-1), np.repeat(way.tile_count, len(way.first)))


def _to_owners(low: Lowering, way: _Way, owner: np.ndarray) -> np.ndarray:
    """Every node of a column tile on the owner of its columns, [ranks, lines of the nodes]."""
    home = np.repeat(owner[way.tile_first], way.tile_count * len(way.first))
    return np.arange(low.group.ranks)[:, None] == home


def _to_readers(way: _Way, readers: np.ndarray) -> np.ndarray:
    """Every node of a column tile on all who read it."""
    return np.repeat(readers[:, way.tile_first], way.tile_count * len(way.first), axis=1)


def _lower(
    low: Lowering,
    node: Node,
    source: Lines,
    tiles: _RowTiles,
    way: _Way,
    laid: tuple[np.ndarray, np.ndarray],
    readers: np.ndarray | None,
) -> Lines:
    owner, columns = laid
    low.gather(source, _need(low, source, tiles, way))
    out = low.value("f32", owner, columns, first=way.tile_first, count=way.tile_count)
    home, every = owner[way.tile_first], np.arange(len(way.tile_first))
    if len(way.first) == 1:
        leaves, line = _leaves(low, way, np.ones(len(way.node), bool))
        _multiply(low, node, source, tiles, way, out, leaves.tag(line))
        _tree(low, way, home, every, leaves.tag(line[:, 0]), out.tag(way.tile_first), [1] * len(way.node), True)
        return out
    first, count = _node_lines(way)
    made = low.value("f32", _node_owner(way), first=first, count=count)
    base = first.reshape(-1, len(way.first))
    inner = way.size[way.node] > 1  # of each part, whether it is a leaf below its rank's node
    written = made.tag(base[:, way.node])
    if inner.any():
        leaves, line = _leaves(low, way, inner)
        written[:, inner] = leaves.tag(line)
    _multiply(low, node, source, tiles, way, out, written)
    for which in np.flatnonzero(way.size > 1):
        at = int(way.first[which])
        ones = [1] * int(way.size[which])
        _tree(low, way, way.rank[:, at], every, written[:, at], made.tag(base[:, which]), ones, False)
    where, tile = home, every
    to_all = readers is not None and _all_is_shorter(low, way, owner, readers)
    if to_all:
        assert readers is not None
        low.gather(made, _to_readers(way, readers))
        tile, where = np.nonzero(readers[:, way.tile_first].T)
        out.held[: low.group.ranks] = readers
    else:
        low.gather(made, _to_owners(low, way, owner))
    _tree(low, way, where, tile, made.tag(base[tile, 0]), out.tag(way.tile_first[tile]), way.size.tolist(), True)
    return out


def _all_is_shorter(low: Lowering, way: _Way, owner: np.ndarray, readers: np.ndarray) -> bool:
    """Whether readers add the nodes themselves sooner than owners who then send the sum; of this step's rows."""
    made, rows = _node_owner(way), low.batch
    after = arrival(low, _moves(owner, _result_need(low, owner), rows))
    to_owners = arrival(low, _moves(made, _to_owners(low, way, owner), rows))
    return arrival(low, _moves(made, _to_readers(way, readers), rows)) < to_owners + after


def _leaves(low: Lowering, way: _Way, inner: np.ndarray) -> tuple[Lines, np.ndarray]:
    """A value of the parts `inner` of every column tile, and the first line of each, [column tiles, those parts]."""
    parts = int(inner.sum())
    count = np.repeat(way.tile_count, parts)
    first = np.cumsum(count) - count
    owner = np.repeat(way.rank[:, inner].reshape(-1), count)
    return low.value("f32", owner, first=first, count=count), first.reshape(-1, parts)


def _tree(
    low: Lowering,
    way: _Way,
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


def _multiply(
    low: Lowering,
    node: Node,
    source: Lines,
    tiles: _RowTiles,
    way: _Way,
    out: Lines,
    written: np.ndarray,
) -> None:
    """MM rows, tile by tile of each chain, and its write-back to the line that `written` [tiles, parts] tags."""
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
    real = np.searchsorted(node.attributes["starts"], source.columns, side="right") - 1
    codes = np.array(
        [
            low.slot(node.inputs[1].value, np.where(real == one, source.columns, -1), out.columns)
            for one in range(parts)
        ]
    )
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
