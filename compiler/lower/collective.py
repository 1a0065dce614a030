"""Collectives of a K split: where the wide partial sums of a matmul are added, and how they get there.

Three ways, all exact, so the bits are equal; the one with the shortest estimated finish is taken:
*owner*: every partial goes to the owner of its columns (reduce-scatter; its readers gather it later).
*levels*: the ranks of a tray add theirs first, one wide partial per tray goes on to the owner.
*every*: every rank that reads the result gets all partials and adds them: an exchange less, more bytes.
Source of the formulas: facts scheduling.md section 2.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node
from compiler.lower.context import INPUT, Lowering
from compiler.lower.layout import Lines
from compiler.lower.rows import tag
from compiler.lower.rule import Handed
from compiler.program.instructions.matmul import ReduceKernel
from compiler.program.isa import F32_LANES, SCALE, Op, ceil_div
from compiler.program.packed import RANKS
from compiler.program.ranges import ramp
from compiler.timing import VXM_WORDS_PER_CYCLE
from fabric.paths import hops
from models.contract.vocabulary.matmul import STATISTIC

Move = tuple[int, tuple[int, ...], int]  # source rank, target ranks, words


@dataclass(frozen=True, slots=True, kw_only=True)
class Partials:
    """Wide partials of a matmul's column tiles, those of one tray side by side.

    rank: int64 [tiles, parts] who makes each; tray: its tray, ascending along a row; home: [tiles] owner of
    the columns; lines: [tiles] f32 lines; base: [tiles] first wide line; value: all of them, tile by tile.
    """

    rank: np.ndarray
    tray: np.ndarray
    home: np.ndarray
    lines: np.ndarray
    base: np.ndarray
    value: Lines

    @property
    def parts(self) -> int:
        """Partials of each tile."""
        return self.rank.shape[1]


def partials(low: Lowering, out: Lines, live: np.ndarray) -> tuple[Partials, np.ndarray]:
    """The partials of K parts `live` of a result, and the place of each (tile, live part) in its row."""
    home = out.owner[out.first]
    rank = home[:, None] // low.group.k_parts * low.group.k_parts + live
    tray = trays(low)[rank]
    order = np.argsort(tray, axis=1, kind="stable")
    rank, tray = np.take_along_axis(rank, order, axis=1), np.take_along_axis(tray, order, axis=1)
    size = 4 * out.count
    base = len(live) * (np.cumsum(size) - size)
    owner = np.repeat(rank.reshape(-1), np.repeat(size, len(live)))
    first = (base[:, None] + size[:, None] * np.arange(len(live))).reshape(-1)
    value = low.value("wide", owner, first=first, count=np.repeat(size, len(live)))
    made = Partials(rank=rank, tray=tray, home=home, lines=out.count, base=base, value=value)
    return made, np.argsort(order, axis=1, kind="stable")


def trays(low: Lowering) -> np.ndarray:
    """The group of the rack's innermost level that each rank is in; all the same without levels."""
    chips, levels = np.array(low.router.chips[: low.group.ranks]), low.router.rack.levels
    number = np.zeros(low.router.rack.chips, np.int64)
    for i, members in enumerate(levels[0].groups if levels else ()):
        number[list(members)] = i
    return number[chips]


def reduce(low: Lowering, nodes: list[Node], out: Lines, made: Partials, scales: np.ndarray) -> None:
    """RED rows that add the partials into `out`, and the transfers that they need."""
    readers = reading_ranks(low, nodes, out.owner, (out.first, out.count))
    way = choose(low, made, readers)
    tiles = np.arange(len(made.home))
    if way == "every":
        assert readers is not None
        tile, rank = np.nonzero(readers[:, out.first].T)
        low.gather(made.value, np.repeat(readers, 4 * made.parts, axis=1))
        _final(low, out, made.value, (rank, tile), made.parts, made.base, scales, -1)
        out.held[: low.group.ranks] = readers
        return
    value, base, parts = made.value, made.base, made.parts
    if way == "levels":
        value, base, parts = _by_tray(low, made)
    need = np.zeros((low.group.ranks, value.lines), bool)
    need[np.repeat(made.home, 4 * parts * made.lines), np.arange(value.lines)] = True
    low.gather(value, need)
    _final(low, out, value, (made.home, tiles), parts, base, scales, statistic(low, nodes))


def choose(low: Lowering, made: Partials, readers: np.ndarray | None) -> str:
    """The way with the shortest estimate: per exchange the longest path and the slots of the fullest link.

    For the rows of a decode step, so that a prefill program with the same memory image chooses the same.
    """
    after = 0 if readers is None else arrival(low, _gathers(made, readers, low.cached))
    once = _adding(low, made.parts * made.lines, made.home)
    found = {"owner": arrival(low, _to(made.rank, made.home, made.lines, low.cached)) + once + after}
    counts = [len(np.unique(row)) for row in made.tray]
    if len(set(counts)) == 1 and 1 < counts[0] < made.parts:
        adder = _adders(low, made)
        first, _ = _tray_starts(made)
        inside = arrival(low, _to(made.rank, adder, made.lines, low.cached))
        across = arrival(low, _to(adder[:, first], made.home, made.lines, low.cached))
        parts = np.full(len(made.lines), counts[0])
        twice = _adding(low, np.repeat(made.lines, made.parts), adder.reshape(-1))
        found["levels"] = inside + twice + across + _adding(low, parts * made.lines, made.home) + after
    if readers is not None:
        moves: list[Move] = []
        for rank, words in _sums(made.rank, 4 * made.lines[:, None] * low.cached):
            targets = np.flatnonzero(readers.any(axis=1))
            moves.append((rank, tuple(int(t) for t in targets if t != rank), words))
        tile, rank = np.nonzero(readers[:, made.base // (4 * made.parts)].T)
        found["every"] = arrival(low, moves) + _adding(low, made.parts * made.lines[tile], rank)
    return min(found, key=lambda way: (found[way], way != "owner"))


def reading_ranks(
    low: Lowering, nodes: list[Node], owner: np.ndarray, tiles: tuple[np.ndarray, np.ndarray]
) -> np.ndarray | None:
    """Who reads the residual sum that a matmul's result is added to, [ranks, lines].

    None if others read the result too, if chips of another group or the host lanes read the sum, or if an
    owner does not: the residual to add lies with the owners. owner: of each line; tiles: first line and lines
    of each column tile.
    """
    users = low.demands.readers(nodes[0].outputs[0])
    if len(nodes) > 1 or len(users) != 1 or not low.demands.rule(users[0][0]).residual:
        return None
    residual, lines, (first, count) = users[0][0].outputs[0], len(owner), tiles
    mask = np.zeros((low.group.ranks, lines), bool)
    if residual == low.result:
        if not low.group.targets or max(low.group.targets) >= low.group.ranks:
            return None
        mask[list(low.group.targets)] = np.broadcast_to(low.group.wanted, (len(low.group.targets), lines))
    for node, _ in low.demands.readers(residual) if residual != low.result else ():
        if low.demands.rule(node).handed(low.demands, node) is Handed.WHOLE:
            mask[low.multipliers(node.outputs[0])] = True
    some = np.logical_or.reduceat(mask, first, axis=1)
    whole = np.array_equal(np.repeat(some, count, axis=1), mask)  # of each tile all lines or none
    there = mask[owner, np.arange(lines)].all() and held_there(low, users[0][0], mask)
    return mask if whole and there else None


def held_there(low: Lowering, adding: Node, mask: np.ndarray) -> bool:
    """Whether the block's input, if it is what is added to, lies wherever the sum may be made.

    Only of models with experts: of others no attention leaves a rank of its group without the whole input.
    """
    if not low.demands.somewhere_everywhere:
        return True
    for view in adding.inputs:
        value, segments = low.where.get(view, (None, None))
        if value is not None and value.uid == INPUT and segments is not None:
            return bool((value.held[: low.group.ranks, segments.first] | ~mask).all())
    return True


def _tray_starts(made: Partials) -> tuple[np.ndarray, np.ndarray]:
    """(first part, parts) of each tray, the same for all tiles or the first tile's."""
    first = np.flatnonzero(np.diff(made.tray[0], prepend=-1))
    return first, np.diff(np.append(first, made.parts))


def _adders(low: Lowering, made: Partials) -> np.ndarray:
    """[tiles, parts]: the rank that adds the partials of each part's tray, nearest to the tile's owner."""
    chips = np.array(low.router.chips[: low.group.ranks])
    distance = hops(low.router.rack)[chips[:, None], chips]
    far = distance[made.rank, made.home[:, None]]
    out = np.empty_like(made.rank)
    for tile in range(len(made.home)):
        for tray in np.unique(made.tray[tile]):
            mine = np.flatnonzero(made.tray[tile] == tray)
            near = mine[far[tile, mine] == far[tile, mine].min()]
            out[tile, mine] = made.rank[tile, near[made.home[tile] % len(near)]]
    return out


def _by_tray(low: Lowering, made: Partials) -> tuple[Lines, np.ndarray, int]:
    """One wide partial per tray, added by a rank of it: (value, first line by tile, trays)."""
    adder = _adders(low, made)
    starts = [np.flatnonzero(np.diff(row, prepend=-1)) for row in made.tray]
    count = len(starts[0])
    begin = np.array(starts)
    size = np.diff(np.append(begin, np.full((len(begin), 1), made.parts), axis=1), axis=1)
    rank = np.take_along_axis(adder, begin, axis=1)
    lines = 4 * made.lines
    need = np.zeros((low.group.ranks, made.value.lines), bool)
    wide = np.repeat(lines, made.parts)
    need[np.repeat(adder.reshape(-1), wide), np.arange(made.value.lines)] = True
    low.gather(made.value, need)
    base = count * (np.cumsum(lines) - lines)
    first = base[:, None] + lines[:, None] * np.arange(count)
    owner = np.repeat(rank.reshape(-1), np.repeat(lines, count))
    value = low.value("wide", owner, first=first.reshape(-1), count=np.repeat(lines, count))
    aux = np.array([low.kernels.index(ReduceKernel(parts=int(n), wide=True)) for n in size.reshape(-1)])
    low.rows.add(
        Op.RED,
        rank=rank.reshape(-1),
        n=np.repeat(made.lines, count),
        aux=aux,
        src_tag=made.value.tag((made.base[:, None] + lines[:, None] * begin).reshape(-1)),
        dst_tag=value.tag(first.reshape(-1)),
    )
    return value, base, count


def _final(
    low: Lowering,
    out: Lines,
    value: Lines,
    where: tuple[np.ndarray, np.ndarray],
    parts: int,
    base: np.ndarray,
    scales: np.ndarray,
    normed: int,
) -> None:
    rank, tile = where
    address, tags = scale_words(low, out, rank, tile, scales)
    low.rows.add(
        Op.RED,
        rank=rank,
        n=out.count[tile],
        aux=low.kernels.index(ReduceKernel(parts=parts, normed=normed >= 0)),
        src_tag=value.tag(base[tile]),
        src2_tag=normed,
        src3=address,
        src3_tag=tags,
        dst_tag=out.tag(out.first[tile]),
    )


def scale_words(
    low: Lowering, out: Lines, rank: np.ndarray, chunk: np.ndarray, scales: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Load the scale words of each chunk on its rank; (address, tag) of the first."""
    width = out.count[chunk]
    line = np.repeat(out.first[chunk], width) + ramp(width)
    uid = low.weight_uid()
    tags = tag(uid, line)
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


def statistic(low: Lowering, nodes: list[Node]) -> int:
    """The tag of the statistic that these matmuls apply to their rows, or -1; CompileError for several."""
    found = {node.inputs[STATISTIC] if len(node.inputs) > STATISTIC else None for node in nodes}
    if len(found) > 1:
        raise CompileError(
            "lower",
            f"{nodes[0].path}: {nodes[0].op}",
            f"{len(nodes)} products of one input apply {len(found)} statistics or none",
            "Give all products of one vector the same statistic.",
        )
    (view,) = found
    return -1 if view is None else int(low.lines(view, nodes[0])[0].tag(0))


def _sums(keys: np.ndarray, words: np.ndarray) -> list[tuple[int, int]]:
    """(key, sum of its words) of each key, ascending."""
    keys, words = np.broadcast_arrays(keys, words)
    names, which = np.unique(keys.reshape(-1), return_inverse=True)
    totals = np.bincount(which, weights=words.reshape(-1)).astype(np.int64)
    return list(zip(names.tolist(), totals.tolist(), strict=True))


def _to(rank: np.ndarray, target: np.ndarray, lines: np.ndarray, batch: int) -> list[Move]:
    """Moves of wide partials [tiles, parts] to one rank each."""
    target = target[:, None] if target.ndim == 1 else target
    words = _sums(RANKS.pack(rank, target), 4 * lines[:, None] * batch)
    moves = [(*RANKS.unpack(key), count) for key, count in words]
    return [(source, (to,), count) for source, to, count in moves if source != to]


def _gathers(made: Partials, readers: np.ndarray, batch: int) -> list[Move]:
    """Moves of the f32 result from its owners to its readers."""
    targets = [int(rank) for rank in np.flatnonzero(readers.any(axis=1))]
    words = _sums(made.home, made.lines * batch)
    return [(home, tuple(rank for rank in targets if rank != home), count) for home, count in words]


def arrival(low: Lowering, moves: Iterable[Move]) -> int:
    """Cycles until all moves have arrived: the longest path, and the slots of the fullest link."""
    longest, words = 0, dict[tuple[int, int], int]()
    slots: dict[tuple[int, int], tuple[int, int]] = {}
    for source, targets, count in moves:
        arrival = {source: 0}
        for edge in low.router.tree(source, targets) if targets else ():
            again = low.router.rack.forward_cycles if edge.parent != source else 0
            arrival[edge.child] = arrival[edge.parent] + edge.hop_cycles + again
            pair = edge.parent, edge.child
            words[pair] = words.get(pair, 0) + count
            slots[pair] = edge.lanes, edge.slot_cycles
        longest = max(longest, *arrival.values())
    full = max((int(ceil_div(n, slots[p][0])) * slots[p][1] for p, n in words.items()), default=0)
    return longest + full


def _adding(low: Lowering, lines: np.ndarray, rank: np.ndarray) -> int:
    """Cycles of RED rows that read this many f32 lines' worth of partials on each rank, over all chains."""
    most = max(count for _, count in _sums(rank, 4 * lines * low.cached))
    return int(ceil_div(most, VXM_WORDS_PER_CYCLE * low.chip.vxm_chains)) + low.chip.vxm_latency_cycles
