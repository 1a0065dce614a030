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
from compiler.lower.ops.chains import column_tiles, drain_kernels, emptied_by, tile_cut, turns
from compiler.lower.rows import tag
from compiler.program.instructions.matmul import MatmulKernel, in_tree, tree_kernel
from compiler.program.isa import F16_LANES, F32_LANES, TILE, TILE_ROWS, Op, ceil_div
from compiler.program.ranges import ramp
from fabric.paths import hops


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
    tile_first, tile_count: first line and lines of each column tile. owner: int64 [lines] of the result, of a
    whole tile the same; need: [ranks, lines], who reads it. rank: int64 [column tiles, parts].
    """

    spread: int
    holder: np.ndarray
    node: np.ndarray
    first: np.ndarray
    size: np.ndarray
    tile_first: np.ndarray
    tile_count: np.ndarray
    owner: np.ndarray
    need: np.ndarray
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
    ways = _ways(low, node, source, tiles, owner)
    readers = [_reading(low, node, way) for way in ways]
    cost = [_cycles(low, source, tiles, way, read) for way, read in zip(ways, readers, strict=True)]
    best = cost.index(min(cost))
    out = _lower(low, node, source, tiles, ways[best], columns, readers[best])
    for (demand, _), segment in zip(demands, segments, strict=True):
        low.where[demand.view] = (out, segment)


def _ways(low: Lowering, node: Node, source: Lines, tiles: _RowTiles, owner: np.ndarray) -> list[_Way]:
    """The ways to compute the product. owner: of each line, where every owner takes all rows.

    Where rows are dealt, sums may be made by all ranks, or by those nearest to who reads them.
    """
    out: list[_Way] = []
    for spread in _spreads(low, len(tiles.begin)):
        if spread == 1:
            cut = column_tiles(low, owner, low.chip.planes)
            out.append(_way(low, node, source, tiles, spread, cut, owner))
            continue
        count = tile_cut(len(owner), 1, low.cached)  # whole tiles: what is sent of one fills many lanes
        for ranks in _adders(low, node):
            dealt = ranks[np.arange(len(count)) * len(ranks) // len(count)]
            cut = np.cumsum(count) - count, count
            out.append(_way(low, node, source, tiles, spread, cut, np.repeat(dealt, count)))
    return out


def _adders(low: Lowering, node: Node) -> list[np.ndarray]:
    """Which ranks may add the nodes up: all, or of a sum for another group of chips those nearest to it."""
    every = np.arange(low.group.ranks)
    if not _hands_on(low, node) or max(low.group.targets) < low.group.ranks:
        return [every]
    chips = np.array(low.router.chips)
    distance = hops(low.router.rack)[chips[every][:, None], chips[list(low.group.targets)]].max(axis=1)
    near = every[distance == distance.min()]
    return [every, near] if len(near) < len(every) else [every]


def _hands_on(low: Lowering, node: Node) -> bool:
    """Whether the residual sum that the product is added to, or the product itself, ends the block."""
    made = node.outputs[0]
    users = low.demands.readers(made)
    return low.result in (made, *(user.outputs[0] for user, _ in users if low.demands.rule(user).residual))


def _spreads(low: Lowering, parts: int) -> list[int]:
    """Over how many ranks the rows may be dealt: what the layout says, or one and as many as there can be."""
    free = low.group.k_parts == 1
    ranks = low.group.ranks if free else low.group.k_parts
    most = max(count for count in range(1, min(parts, ranks) + 1) if ranks % count == 0)
    return [most] if not free else sorted({1, most}) if low.by_rows else [1]


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


def _way(
    low: Lowering,
    node: Node,
    source: Lines,
    tiles: _RowTiles,
    spread: int,
    cut: tuple[np.ndarray, np.ndarray],
    owner: np.ndarray,
) -> _Way:
    parts = len(tiles.begin)
    holder = _owners(source, tiles) if spread == low.group.ranks else None
    if holder is None:
        holder = rank_of_part(np.arange(parts), parts, spread)
    nodes = [one for rank in np.unique(holder) for one in _aligned(np.flatnonzero(holder == rank), parts)]
    first, size = np.array(nodes).T
    tile_first, tile_count = cut
    home = owner[tile_first][:, None]
    need = np.ones((low.group.ranks, len(owner)), bool)
    if _hands_on(low, node):
        need = np.zeros((max(low.group.targets) + 1, len(owner)), bool)
        need[list(low.group.targets)] = low.group.wanted
    return _Way(
        spread=spread,
        holder=holder,
        node=np.repeat(np.arange(len(first)), size),
        first=first,
        size=size,
        tile_first=tile_first,
        tile_count=tile_count,
        owner=owner,
        need=need,
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


def _reading(low: Lowering, node: Node, way: _Way) -> np.ndarray | None:
    """Who reads the result, [ranks, lines], where each may add all nodes itself; None where owners must."""
    tiles = way.tile_first, way.tile_count
    return reading_ranks(low, [node], way.owner, tiles) if len(way.first) > 1 else None


def _cycles(low: Lowering, source: Lines, tiles: _RowTiles, way: _Way, readers: np.ndarray | None) -> int:
    """An estimate, for the rows of a decode step: a prefill program has the same image and must choose alike.

    Weights are installed while the input is gathered; where nothing is gathered, before the first tile of
    columns is done and sent. The others are installed meanwhile.
    """
    before = arrival(low, _moves(source.owner, _need(low, source, tiles, way), low.cached))
    if len(way.first) == 1:
        return before + arrival(low, _moves(way.owner, way.need, low.cached))
    return before + _first_tile(low, tiles, way) + _exchange(low, way, readers, low.cached)[0]


def _first_tile(low: Lowering, tiles: _RowTiles, way: _Way) -> int:
    """Cycles that a plane takes for one chain of products."""
    lines = int(way.tile_count.max()) * int(tiles.count.max())
    return int(ceil_div(F32_LANES * TILE_ROWS * lines, low.chip.plane_bytes_per_cycle))


def _exchange(low: Lowering, way: _Way, readers: np.ndarray | None, rows: int) -> tuple[int, bool]:
    """(cycles of the exchange of nodes, estimated; whether readers add them, not owners who send the sum)."""
    made = _node_owner(way)
    after = arrival(low, _moves(way.owner, way.need, rows))
    to_owners = arrival(low, _moves(made, _to_owners(low, way), rows)) + after
    if readers is None:
        return to_owners, False
    to_readers = arrival(low, _moves(made, _to_readers(way, readers), rows))
    return min(to_owners, to_readers), to_readers < to_owners


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


def _to_owners(low: Lowering, way: _Way) -> np.ndarray:
    """Every node of a column tile on the owner of its columns, [ranks, lines of the nodes]."""
    home = np.repeat(way.owner[way.tile_first], way.tile_count * len(way.first))
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
    columns: np.ndarray,
    readers: np.ndarray | None,
) -> Lines:
    low.gather(source, _need(low, source, tiles, way))
    out = low.value("f32", way.owner, columns, first=way.tile_first, count=way.tile_count)
    home, every = way.owner[way.tile_first], np.arange(len(way.tile_first))
    if len(way.first) == 1:
        leaves, line = _leaves(low, way, np.ones(len(way.node), bool))
        _multiply(low, node, source, tiles, way, out, leaves.tag(line))
        _tree(
            low, way, home, every, leaves.tag(line[:, 0]), out.tag(way.tile_first), [1] * len(way.node), True
        )
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
    if readers is not None and _exchange(low, way, readers, low.batch)[1]:
        low.gather(made, _to_readers(way, readers))
        tile, where = np.nonzero(readers[:, way.tile_first].T)
        out.held[: low.group.ranks] = readers
    else:
        low.gather(made, _to_owners(low, way))
    _tree(
        low, way, where, tile, made.tag(base[tile, 0]), out.tag(way.tile_first[tile]), way.size.tolist(), True
    )
    return out


def _leaves(low: Lowering, way: _Way, inner: np.ndarray) -> tuple[Lines, np.ndarray]:
    """A value of the parts `inner` of every column tile, and the first line of each [tiles, those parts]."""
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
