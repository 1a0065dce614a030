"""Ways to compute a matmul in contract parts: over which ranks its rows are dealt, who adds, how long.

With a `spread` of 1 every owner of columns takes all rows, as for other matmuls. Otherwise each of `spread`
ranks multiplies the rows that it holds by all columns: what crosses is one f32 line for every node of the
contract's tree that a rank has whole. Source: facts/contract2.md section 2; docs/pipeline.md says when.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from compiler.graph.graph import Node
from compiler.lower.collective import Move, arrival, held_there, reading_ranks
from compiler.lower.context import Lowering
from compiler.lower.layout import Lines, rank_of_part
from compiler.lower.ops.chains import column_tiles, tile_cut
from compiler.lower.ops.relays import from_nearest, relays
from compiler.lower.rule import Handed
from compiler.program.instructions.matmul import in_tree
from compiler.program.isa import F16_LANES, F32_LANES, TILE_ROWS, ceil_div
from fabric.paths import hops


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTiles:
    """Tiles of input rows, part by part: of each its first line of the input, and how many (1 or 2).

    A line at the border of two parts is in a tile of each: the rows of the other part have no weights there.
    begin, count: int64 [parts], the tiles of each part.
    """

    line: np.ndarray
    lines: np.ndarray
    begin: np.ndarray
    count: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to compute the product.

    holder: int64 [parts], which of the `spread` ranks of a group holds each. node, first, size: of each node
    of the tree that one of them has whole, in order: by part its index, its first part, its parts.
    tile_first, tile_count: first line and lines of each column tile. owner: int64 [lines] of the result, of a
    whole tile the same; need: [ranks, lines], who reads it. rank: int64 [column tiles, parts]. by_readers:
    whoever reads the sum adds it up, since what it is added to was sent to all of them. relays:
    [ranks, lines], who else adds it up for readers that are farther from the owner; None: nobody.
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
    by_readers: bool
    relays: np.ndarray | None = None


def ways(
    low: Lowering, node: Node, source: Lines, tiles: RowTiles, owner: np.ndarray, *, kept: bool = False
) -> list[Way]:
    """The ways to compute the product. owner: of each line, where every owner takes all rows.

    Where rows are dealt, sums may be made by all ranks, or by those nearest to who reads them; kept: of each
    run of `spread` ranks, as what these multiply lies there whoever reads it.
    """
    out: list[Way] = []
    for spread in _spreads(low, len(tiles.begin)):
        if spread == 1:
            cut = column_tiles(low, owner, low.chip.planes)
            out.append(_way(low, node, source, tiles, spread, cut, owner))
            continue
        if any(demand.columns > F32_LANES for demand in low.demands.pieces(node.outputs[0])):
            cut = column_tiles(low, owner, int(ceil_div(low.chip.planes, spread)))  # a segment has one owner
            out.append(_way(low, node, source, tiles, spread, cut, owner))
            continue
        count = tile_cut(len(owner), 1, low.cached)  # whole tiles: what is sent of one fills many lanes
        adders = _adders(low, node, len(count), spread if kept else low.group.ranks)
        for dealt in adders:
            cut = np.cumsum(count) - count, count
            made = _way(low, node, source, tiles, spread, cut, np.repeat(dealt, count))
            if _residual_there(low, node, made.owner):
                out.append(made)
                out += _relayed(low, node, made, 1 if len(adders) == 1 else 2)
        if not any(way.spread == spread for way in out):
            cut = column_tiles(low, owner, int(ceil_div(low.chip.planes, spread)))
            out.append(_way(low, node, source, tiles, spread, cut, owner))
    return out


def _residual_there(low: Lowering, node: Node, owner: np.ndarray, relays: np.ndarray | None = None) -> bool:
    """Whether who adds the nodes up has the block's input, if the sum is added to that."""
    users = low.demands.readers(node.outputs[0])
    if len(users) != 1 or (relays is not None and not low.demands.rule(users[0][0]).residual):
        return relays is None
    adding = np.arange(low.group.ranks)[:, None] == owner if relays is None else relays
    return held_there(low, users[0][0], adding)


def _adders(low: Lowering, node: Node, tiles: int, home: int) -> list[np.ndarray]:
    """Who may add the nodes of each column tile up: all ranks, or of a sum for other chips the nearest.

    home: of this many neighbouring ranks each keeps the tiles that it has where all add.
    """
    every = np.arange(low.group.ranks)
    dealt = np.arange(tiles) * len(every) // tiles
    if not _hands_on(low, node) or max(low.group.targets, default=0) < low.group.ranks:
        return [dealt]
    chips = np.array(low.router.chips)
    distance = hops(low.router.rack)[chips[every][:, None], chips[list(low.group.targets)]].max(axis=1)
    near, fewer = np.empty_like(dealt), False
    for first in range(0, len(every), home):
        mine = np.flatnonzero(dealt // home == first // home)
        there = distance[first : first + home]
        some = first + np.flatnonzero(there == there.min())
        near[mine] = some[np.arange(len(mine)) * len(some) // max(len(mine), 1)]
        fewer |= len(some) < len(there)
    return [dealt, near] if fewer else [dealt]


def _relayed(low: Lowering, node: Node, way: Way, least: int) -> list[Way]:
    """The way in which several add up a column tile, `least` of some tile, if readers are nearer then."""
    if not _hands_on(low, node) and not _read_everywhere(low, node):
        return []
    found = relays(low, way.rank, way.owner, way.need, (way.tile_first, way.tile_count))
    if found is None:
        return []
    owner, adding = found
    if adding.sum(axis=0).max() < least or not _residual_there(low, node, owner, adding):
        return []
    return [replace(way, owner=owner, relays=adding)]


def _read_everywhere(low: Lowering, node: Node) -> bool:
    """Whether a product of all ranks takes the sum that the product is added to.

    Otherwise who owns a line may be its one reader, who rounds it for the host.
    """
    there = np.zeros(low.group.ranks, bool)
    for user, _ in low.demands.readers(node.outputs[0]):
        for reader, _ in low.demands.readers(user.outputs[0]):
            if low.demands.rule(reader).handed(low.demands, reader) is Handed.WHOLE:
                there[low.multipliers(reader.outputs[0])] = True
    return bool(there.all())


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


def row_tiles(source: Lines, starts: Sequence[int]) -> RowTiles:
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
    return RowTiles(
        line=np.concatenate(line), lines=np.concatenate(lines), begin=np.cumsum(count) - count, count=count
    )


def _way(
    low: Lowering,
    node: Node,
    source: Lines,
    tiles: RowTiles,
    spread: int,
    cut: tuple[np.ndarray, np.ndarray],
    owner: np.ndarray,
) -> Way:
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
        need = np.zeros((max(low.group.targets, default=0) + 1, len(owner)), bool)
        need[list(low.group.targets)] = low.group.wanted if low.group.targets else False
    return Way(
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
        by_readers=any(low.demands.adds_everywhere(one) for one, _ in low.demands.readers(node.outputs[0])),
    )


def _owners(source: Lines, tiles: RowTiles) -> np.ndarray | None:
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


def lines_needed(low: Lowering, source: Lines, tiles: RowTiles, way: Way) -> np.ndarray:
    """The lines of the input that each rank multiplies, [ranks, lines]."""
    need = np.zeros((low.group.ranks, source.lines), bool)
    for part, (begin, count) in enumerate(zip(tiles.begin, tiles.count, strict=True)):
        last = begin + count - 1
        need[np.unique(way.rank[:, part]), tiles.line[begin] : tiles.line[last] + tiles.lines[last]] = True
    return need


def adding_readers(low: Lowering, node: Node, way: Way) -> np.ndarray | None:
    """Who reads the result, [ranks, lines], where each may add all nodes itself; None where owners must."""
    tiles = way.tile_first, way.tile_count
    return reading_ranks(low, [node], way.owner, tiles) if len(way.first) > 1 else None


def cycles(
    low: Lowering, source: Lines, tiles: RowTiles, way: Way, readers: np.ndarray | None, copies: int = 1
) -> int:
    """An estimate, for the rows of a decode step: a prefill program has the same image and must choose alike.

    copies: inputs like `source` whose products are one sum. Weights are installed while the input is
    gathered; where nothing is gathered, before the first tile of columns is done and sent. The others are
    installed meanwhile.
    """
    rows = low.cached * copies
    before = arrival(low, _moves(source.owner, lines_needed(low, source, tiles, way), rows))
    if len(way.first) == 1:
        return before + arrival(low, _moves(way.owner, way.need, low.cached))
    return before + copies * _first_tile(low, tiles, way) + exchange(low, way, readers, low.cached)[0]


def _first_tile(low: Lowering, tiles: RowTiles, way: Way) -> int:
    """Cycles that a plane takes for one chain of products."""
    lines = int(way.tile_count.max()) * int(tiles.count.max())
    return int(ceil_div(F32_LANES * TILE_ROWS * lines, low.chip.plane_bytes_per_cycle))


def exchange(low: Lowering, way: Way, readers: np.ndarray | None, rows: int) -> tuple[int, bool]:
    """(cycles of the exchange of nodes, estimated; whether readers add them, not owners who send the sum)."""
    made = node_owner(way)
    if way.relays is not None:
        after = arrival(low, from_nearest(low, way.relays, way.owner, way.need, rows))
        return arrival(low, _moves(made, to_readers(way, way.relays), rows)) + after, True
    after = arrival(low, _moves(way.owner, way.need, rows))
    by_owners = arrival(low, _moves(made, to_owners(low, way), rows)) + after
    if readers is None:
        return by_owners, False
    by_readers = arrival(low, _moves(made, to_readers(way, readers), rows))
    if way.by_readers:
        return by_readers, True
    return min(by_owners, by_readers), by_readers < by_owners


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


def node_lines(way: Way) -> tuple[np.ndarray, np.ndarray]:
    """(first line, lines) of every node of every column tile, tile by tile."""
    count = np.repeat(way.tile_count, len(way.first))
    return np.cumsum(count) - count, count


def node_owner(way: Way) -> np.ndarray:
    """The rank of every line of the nodes."""
    return np.repeat(way.rank[:, way.first].reshape(-1), np.repeat(way.tile_count, len(way.first)))


def to_owners(low: Lowering, way: Way) -> np.ndarray:
    """Every node of a column tile on the owner of its columns, [ranks, lines of the nodes]."""
    home = np.repeat(way.owner[way.tile_first], way.tile_count * len(way.first))
    return np.arange(low.group.ranks)[:, None] == home


def to_readers(way: Way, readers: np.ndarray) -> np.ndarray:
    """Every node of a column tile on all who read it."""
    return np.repeat(readers[:, way.tile_first], way.tile_count * len(way.first), axis=1)
