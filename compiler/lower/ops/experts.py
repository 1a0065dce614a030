"""Lowering of experts: every expert is cut over all ranks of the group, a slot is one that the rows chose.

Gate and up of a slot lie in pairs of 40 columns in one line; each rank has those columns of the hidden vector
whose rows of the down projection it multiplies. All slots add into the same sums.
"""

from dataclasses import dataclass

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node
from compiler.lower.collective import scale_words
from compiler.lower.context import Lowering
from compiler.lower.layout import Lines, rank_of_part, spans_of
from compiler.lower.ops.chains import column_tiles, drain_kernels, emptied_by, turns
from compiler.lower.ops.dealt import RowTiles, Way, row_tiles
from compiler.lower.ops.expert_biases import biases_of
from compiler.lower.ops.parted import lower_dealt
from compiler.lower.rows import tag
from compiler.lower.rule import LoweringRule
from compiler.program.instructions.experts import PAIRED, ExpertTileKernel, SlotsKernel, WeightedGluKernel
from compiler.program.isa import F16_LANES, F32_LANES, PAIRS, STACK, TILE_ROWS, Op, ceil_div
from compiler.program.ranges import ramp
from models.contract.experts.slots import slots_of

A, STATISTIC, WEIGHTS, GATE_UP, GATE_UP_SCALE, DOWN, DOWN_SCALE = range(7)  # the operands of the op
MOST_OF_SRAM = 7, 8  # what experts may take of a chip in whole tiles; the rest is attention's and KV's
MOST_SLOT_ROWS = 4  # SLOTS rows of a rank: one for each chain


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slots:
    """The slots of a step. lines: one for each; experts: of each its expert, -1 where the step chooses it."""

    lines: Lines
    experts: np.ndarray

    def kernels(
        self, low: Lowering, experts: int, k_lines: np.ndarray, *, paired: bool = False
    ) -> np.ndarray:
        """The kernels of products of each slot with tiles of each number of lines, [slots, 3].

        paired: tiles of one line are halves.
        """
        sizes = sorted(set(k_lines.tolist()))
        out = np.full((len(self.experts), 3), -1)
        for slot, expert in enumerate(self.experts.tolist()):
            for size in sizes:
                kernel = ExpertTileKernel(
                    k_lines=size, experts=experts, expert=expert, paired=paired and size == 1
                )
                out[slot, size] = low.kernels.index(kernel)
        return out


def lower_experts(low: Lowering, node: Node) -> None:
    """Slots, gate and up of each, the weighted activation, and one sum over the down projections of all."""
    source, _ = low.lines(node.inputs[A], node)
    if source.dtype != "f16" or not source.held[: low.group.ranks].all():
        raise CompileError(
            "lower",
            f"{node.path}: experts ({node.source})",
            f"its {source.lines} input lines are not fp16 on all of {low.group.ranks} chips",
            "Let experts read what prescale returns.",
        )
    slots = _slots(low, node)
    starts = node.attributes["starts"]
    hidden = _hidden(low, node, source, slots, starts)
    tiles = row_tiles(hidden[0], starts)

    def multiply(way: Way, out: Lines, written: np.ndarray) -> None:
        _down(low, node, hidden, slots, tiles, way, out, written)

    lower_dealt(low, node, hidden, tiles, multiply, spread=True)


def _slots(low: Lowering, node: Node) -> _Slots:
    """SLOTS rows on every rank; where there are as many slots as experts, each has its own."""
    weights, _ = low.lines(node.inputs[WEIGHTS], node)
    experts, ranks = node.inputs[WEIGHTS].width, low.group.ranks
    count = slots_of(experts, node.attributes["chosen"], low.batch)
    rows = min(MOST_SLOT_ROWS, low.chip.vxm_chains, count)
    cuts = np.arange(rows + 1) * count // rows
    first, n = cuts[:-1], np.diff(cuts)
    lines = low.value("f32", np.zeros(count, np.int64), first=first, count=n)
    lines.held[:ranks] = True
    rank, at = np.divmod(np.arange(ranks * rows), rows)
    kernel = SlotsKernel(experts=experts, chosen=node.attributes["chosen"], slots=count)
    low.rows.add(
        Op.SLOTS,
        rank=rank,
        n=n[at],
        aux=low.kernels.index(kernel),
        src_tag=weights.tag(0),
        src3=first[at],
        dst_tag=lines.tag(first[at]),
    )
    fixed = count == experts
    return _Slots(lines=lines, experts=np.arange(count) if fixed else np.full(count, -1))


def _hidden(low: Lowering, node: Node, source: Lines, slots: _Slots, starts: tuple[int, ...]) -> list[Lines]:
    """The weighted activations of each slot, where the rows of the down projection are that meet them."""
    width = starts[-1]
    spans = spans_of(width, PAIRED, starts)
    owner = _owners(spans, starts, low.group.ranks)
    part = np.searchsorted(starts, spans[:, 0], side="right") - 1
    lane = np.arange(PAIRED)
    gate = np.where(lane < spans[:, 1:], spans[:, :1] + lane, -1)
    both = np.concatenate([gate, np.where(gate < 0, -1, gate + width)], axis=1).reshape(-1)
    planes = int(ceil_div(low.chip.planes, len(slots.experts)))
    first, count = column_tiles(low, owner, planes)
    run = np.flatnonzero((np.diff(owner, prepend=-1) != 0) | (np.diff(part, prepend=-1) != 0))
    size = np.diff(np.append(run, len(owner)))  # f32 lines of each run of one part on one rank
    halves = ceil_div(size * PAIRED, F16_LANES)
    begin = np.cumsum(halves) - halves
    columns = np.full((int(halves.sum()), F16_LANES), -1)
    for at, lines, half in zip(run, size, begin, strict=True):
        real = gate[at : at + lines].reshape(-1)
        columns[half:].reshape(-1)[: len(real)] = real
    sums = _gate_up(low, node, source, slots, (owner, both, first, count))
    biases = biases_of(low, node, node.inputs[WEIGHTS].width, owner, both, run)
    counted = node.inputs[WEIGHTS].width if biases else 0
    glu = low.kernels.index(WeightedGluKernel(activation=node.attributes["activation"], biases=counted))
    out: list[Lines] = []
    for slot, value in enumerate(sums):
        hidden = low.value(
            "f16", np.repeat(owner[run], halves), columns.reshape(-1), first=begin, count=halves
        )
        low.rows.add(
            Op.WGLU,
            rank=owner[run],
            n=size,
            aux=glu,
            src_tag=value.tag(run),
            src2_tag=slots.lines.tag(slot),
            dst_tag=hidden.tag(begin),
            **biases,
        )
        out.append(hidden)
    return out


def _owners(spans: np.ndarray, starts: tuple[int, ...], ranks: int) -> np.ndarray:
    """The rank of each strip: by whole contract parts where there are enough, else spread evenly."""
    parts = len(starts) - 1
    if parts < ranks:
        return np.arange(len(spans)) * ranks // len(spans)
    return rank_of_part(np.searchsorted(starts, spans[:, 0], side="right") - 1, parts, ranks)


def _gate_up(
    low: Lowering,
    node: Node,
    source: Lines,
    slots: _Slots,
    laid: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> list[Lines]:
    """Gate and up of each slot. laid: owner by line, column by lane, first line and lines of each tile."""
    owner, columns, first, count = laid
    rank, chunk, k_tiles = owner[first], np.arange(len(first)), int(ceil_div(source.lines, 2))
    rows = np.full(k_tiles * TILE_ROWS, -1)
    rows[: len(source.columns)] = source.columns
    which, k = np.divmod(np.arange(len(first) * k_tiles), k_tiles)  # column tile and k tile of each product
    uid, experts = low.weight_uid(), low.graph.values[node.inputs[GATE_UP].value].shape[0]
    tags = tag(uid, k * len(owner) + first[which])
    address = low.weights.load(
        rank[which],
        F32_LANES * experts * count[which],
        kind=STACK,
        tensor=low.slot(node.inputs[GATE_UP].value, rows, columns),
        k0=k * TILE_ROWS,
        n0=first[which] * F32_LANES,
        lines=count[which],
        tag=tags,
    )
    lines = np.minimum(2, source.lines - 2 * k)
    kernels = slots.kernels(low, experts, lines)
    statistic = low.lines(node.inputs[STATISTIC], node)[0].tag(0)
    scales = np.full(len(owner), low.slot(node.inputs[GATE_UP_SCALE].value, None, columns))
    words: tuple[np.ndarray, np.ndarray] | None = None
    out: list[Lines] = []
    for slot, expert in enumerate(slots.experts.tolist()):
        value = low.value("f32", owner, columns, first=first, count=count)
        words = words or scale_words(low, value, rank, chunk, scales)
        place = turns(low, rank) % low.drains.shape[1]
        plane, accumulator = place % low.chip.planes, place // low.chip.planes
        products = low.rows.add(
            Op.XMM,
            rank=rank[which],
            pin=plane[which],
            n=count[which],
            aux=kernels[slot, lines],
            dst=accumulator[which],
            src_tag=source.tag(2 * k),
            src2_tag=slots.lines.tag(slot) if expert < 0 else -1,
            src3=address,
            src3_tag=tags,
            dst_tag=value.tag(first[which]),
        )
        last = low.rows.add(
            Op.WB,
            rank=rank,
            pin=plane,
            n=count,
            aux=drain_kernels(low, np.full(len(first), k_tiles), wide=False, normed=True),
            src_tag=statistic,
            src2=words[0],
            src2_tag=words[1],
            src3=accumulator,
            src3_tag=value.tag(first),
            dst_tag=value.tag(first),
        )
        _in_order(low, products, last, which, (rank, place))
        out.append(value)
    return out


def _in_order(
    low: Lowering,
    products: np.ndarray,
    last: np.ndarray,
    chain: np.ndarray,
    where: tuple[np.ndarray, np.ndarray],
) -> None:
    """Products before the write-back of their chain, and after the one that empties their accumulator."""
    low.rows.edge(products, last[chain])
    earlier = emptied_by(low, *where, last)[chain]
    reused = earlier >= 0
    low.rows.edge(earlier[reused], products[reused])


def _down(
    low: Lowering,
    node: Node,
    hidden: list[Lines],
    slots: _Slots,
    tiles: RowTiles,
    way: Way,
    out: Lines,
    written: np.ndarray,
) -> None:
    """Products of all slots in one chain for each part and column tile, written back to `written`."""
    parts, source, starts = len(tiles.begin), hidden[0], node.attributes["starts"]
    chunk, part = np.divmod(np.arange(len(way.tile_first) * parts), parts)
    rank, written = way.rank.reshape(-1), written.reshape(-1)
    place = turns(low, rank) % low.drains.shape[1]
    plane, accumulator = place % low.chip.planes, place // low.chip.planes
    chain = np.repeat(np.arange(len(chunk)), tiles.count[part])
    k = tiles.begin[part[chain]] + ramp(tiles.count[part])
    width, first = way.tile_count[chunk[chain]], way.tile_first[chunk[chain]]
    real = np.searchsorted(starts, source.columns, side="right") - 1
    codes = np.array(
        [
            low.slot(node.inputs[DOWN].value, np.where(real == one, source.columns, -1), out.columns)
            for one in range(parts)
        ]
    )
    uids = np.array([low.weight_uid() for _ in range(parts)])[part[chain]]
    tags = tag(uids, k * out.lines + first)
    experts = low.graph.values[node.inputs[DOWN].value].shape[0]
    whole = F32_LANES * experts * width
    half = (tiles.lines[k] == 1) & _in_halves(low, experts, rank[chain], whole)
    address = low.weights.load(
        rank[chain],
        np.where(half, whole // 2, whole),
        kind=np.where(half, PAIRS, STACK),
        tensor=codes[part[chain]],
        k0=tiles.line[k] * F16_LANES,
        n0=first * F32_LANES,
        lines=width,
        tag=tags,
    )
    names = np.array([low.weight_uid() for _ in range(parts)])[part]
    sums = tag(names, way.tile_first[chunk])
    kernels = slots.kernels(low, experts, tiles.lines, paired=bool(half.any()))
    products: list[np.ndarray] = []
    for slot, expert in enumerate(slots.experts.tolist()):
        products.append(
            low.rows.add(
                Op.XMM,
                rank=rank[chain],
                pin=plane[chain],
                n=width,
                aux=kernels[slot, tiles.lines[k]],
                dst=accumulator[chain],
                src_tag=hidden[slot].tag(tiles.line[k]),
                src2_tag=slots.lines.tag(slot) if expert < 0 else -1,
                src3=address,
                src3_tag=tags,
                dst_tag=sums[chain],
            )
        )
    scales = np.full(out.lines, low.slot(node.inputs[DOWN_SCALE].value, None, out.columns))
    words, names_of_words = scale_words(low, out, rank, chunk, scales)
    count = len(slots.experts)
    last = low.rows.add(
        Op.WB,
        rank=rank,
        pin=plane,
        n=way.tile_count[chunk],
        aux=drain_kernels(low, count * tiles.count[part], wide=False, normed=False, part=True),
        src2=words,
        src2_tag=names_of_words,
        src3=accumulator,
        src3_tag=sums,
        dst_tag=written,
    )
    _in_order(low, np.concatenate(products), last, np.tile(chain, count), (rank, place))


def _in_halves(low: Lowering, experts: int, rank: np.ndarray, words: np.ndarray) -> bool:
    """Whether tiles of a single line share their words by two experts: where whole ones leave no room."""
    part, of = MOST_OF_SRAM
    full = low.weights.words + np.bincount(rank, words, len(low.weights.words))
    return experts % 2 == 0 and bool(full.max() * of > low.chip.sram_words * part)


RULE = LoweringRule(op="experts", lower=lower_experts, everywhere=True)
