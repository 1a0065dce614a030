"""Tables of experts: on which ranks the experts of a layer lie, and the slots that a step has of each table.

A table is a run of experts, each of them cut over the same ranks. Where all experts in slices of the whole
group leave no room on its chips, as thin slices fill tiles badly, the group is shared out: every share of its
ranks has a run of whole experts. Routing never decides who computes: a share has slots for the worst case.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from compiler.errors import OptionError
from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.layout import Lines, rank_of_part, spans_of
from compiler.lower.ops.chains import tile_cut
from compiler.program.instructions.cold import ColdTileKernel
from compiler.program.instructions.experts import ExpertTileKernel, SlotsKernel, slots_needed, strip
from compiler.program.isa import F16_LANES, F32_LANES, TILE_ROWS, Op, ceil_div
from models.contract.vocabulary.experts import ExpertOperands, named

MOST_SLOT_ROWS = 4  # SLOTS rows of a rank: one for each chain
MOST_OF_SRAM = 7, 8  # what experts may take of a chip; the rest is attention's, the router's, KV's


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`count` experts from `first` on, cut over `ranks` ranks from `rank` on, and their slots of a step.

    lines: one for each slot; experts: of each slot its place in the table, -1 where the step chooses it.
    cold: they lie in DDR5.
    """

    first: int
    count: int
    rank: int
    ranks: int
    lines: Lines
    experts: np.ndarray
    cold: bool = False

    def kernels(self, low: Lowering, k_lines: np.ndarray, *, paired: bool = False) -> np.ndarray:
        """The kernels of products of each slot with tiles of each number of lines, [slots, 3].

        paired: tiles of one line are halves.
        """
        sizes = sorted(set(k_lines.tolist()))
        out = np.full((len(self.experts), 3), -1)
        for slot, expert in enumerate(self.experts.tolist()):
            for size in sizes:
                half = paired and size == 1
                kernel = ExpertTileKernel(k_lines=size, experts=self.count, expert=expert, paired=half)
                out[slot, size] = low.kernels.index(kernel)
        return out

    def fetched(self, low: Lowering, k_lines: np.ndarray, wide: np.ndarray) -> np.ndarray:
        """The kernels of products with tiles in DDR5, each of `k_lines` by `wide` lines."""
        made = [
            ColdTileKernel(
                k_lines=size, experts=self.count, expert=-1, wide=n, rows=low.batch, host_slot=low.host_slot
            )
            for size, n in zip(k_lines.tolist(), wide.tolist(), strict=True)
        ]
        return np.array([low.kernels.index(one) for one in made])

    def stack(self, low: Lowering, codes: int, rows: np.ndarray, columns: np.ndarray) -> int:
        """The slot of these rows and columns of the first expert, in a stack [experts, k, n]."""
        depth = low.graph.values[codes].shape[1]
        return low.slot(codes, np.where(rows >= 0, rows + self.first * depth, -1), columns)


def operands_of(node: Node) -> ExpertOperands:
    """The views that a node reads, by name."""
    return named(node.inputs, node.attributes.get("normed", True))


def tables_of(low: Lowering, node: Node, k_tiles: int) -> list[Table]:
    """The tables of a layer: one of all experts, or one for each share of the ranks.

    k_tiles: of the input. Experts that every row takes are then a table of their own, the first: its products
    need not wait for the router.
    """
    every, ranks = operands_of(node).weights.width, low.group.ranks
    kernel = SlotsKernel(experts=every, chosen=node.attributes["chosen"], slots=1)
    shared = _shared(low, node)
    shares = _shares(low, node, every, shared, k_tiles)
    if low.slots and low.slots * shares < kernel.chosen - (shared if shares > 1 else 0):
        raise OptionError(
            "lower",
            f"{node.path}: --experts with {low.slots} slots",
            f"is less than the {kernel.chosen} experts that each row takes",
            f"Give {kernel.chosen} or more.",
        )
    if shares == 1 and not low.cold:
        return [
            _table(low, node, replace(kernel, shared=shared if low.slots else 0), 0, ranks, MOST_SLOT_ROWS)
        ]
    each, cuts = ranks // shares, np.arange(shares + 1) * (every - shared) // shares
    runs = [(every - shared, shared, ranks - each, False)] * (shared > 0)
    for i, (first, end) in enumerate(pairwise(cuts.tolist())):
        warm = end - in_ddr5(low, end - first)
        runs += [(first, warm - first, i * each, False)] + [(warm, end - warm, i * each, True)] * (warm < end)
    rows = max(MOST_SLOT_ROWS // shares, 1)
    return [
        _table(low, node, replace(kernel, first=first, some=some, shared=shared), rank, each, rows, cold=cold)
        for first, some, rank, cold in runs
    ]


def in_ddr5(low: Lowering, experts: int) -> int:
    """How many of these routed experts, the last of them, lie in DDR5."""
    return int(experts * low.cold)


def reading(low: Lowering, node: Node) -> Bool[np.ndarray, " ranks"]:
    """The ranks that have columns of gate and up of an expert, and so multiply what experts read."""
    every, starts = operands_of(node).weights.width, node.attributes["starts"]
    k_tiles = int(ceil_div(ceil_div(operands_of(node).a.width, F16_LANES), TILE_ROWS // F16_LANES))
    shares = _shares(low, node, every, _shared(low, node), k_tiles)
    found, each = np.zeros(low.group.ranks, bool), low.group.ranks // shares
    own = np.unique(owners(spans_of(starts[-1], strip(node.attributes["activation"]), starts), starts, each))
    found[(np.arange(shares)[:, None] * each + own).reshape(-1)] = True
    return found


def owners(spans: np.ndarray, starts: tuple[int, ...], ranks: int) -> np.ndarray:
    """The rank of each strip: by whole contract parts where there are enough, else spread evenly."""
    parts = len(starts) - 1
    if parts < ranks:
        return np.arange(len(spans)) * ranks // len(spans)
    return rank_of_part(np.searchsorted(starts, spans[:, 0], side="right") - 1, parts, ranks)


def _shared(low: Lowering, node: Node) -> int:
    """The last experts, those that every row takes."""
    router = low.demands.maker(operands_of(node).weights.value)
    return 0 if router is None or "routing" not in router.attributes else router.attributes["routing"].shared


def _shares(low: Lowering, node: Node, every: int, shared: int, k_tiles: int) -> int:
    """The fewest shares of the ranks whose experts leave room for the rest.

    Where none leave enough, tiles of one line hold two experts: the fewest shares that then have room at all,
    or those that leave the most.
    """
    ranks, (part, of) = low.group.ranks, MOST_OF_SRAM
    if low.group.k_parts > 1:
        return 1
    able = [n for n in range(1, min(ranks, every - shared) + 1) if ranks % n == 0]
    words = [_words(low, node, every, shared, k_tiles, n) for n in able]
    fit = [n for n, some in zip(able, words, strict=True) if some * of <= low.chip.sram_words * part]
    paired = [_words(low, node, every, shared, k_tiles, n, paired=True) for n in able]
    fit += [n for n, some in zip(able, paired, strict=True) if some < low.chip.sram_words]
    return fit[0] if fit else able[paired.index(min(paired))]


def _words(
    low: Lowering, node: Node, every: int, shared: int, k_tiles: int, shares: int, *, paired: bool = False
) -> int:
    """Words of the stacks on the fullest rank. paired: two experts share a tile of one line."""
    starts, ranks, wide = node.attributes["starts"], low.group.ranks, strip(node.attributes["activation"])
    spans = spans_of(starts[-1], wide, starts)
    owner = owners(spans, starts, ranks // shares)
    every -= in_ddr5(low, every - shared)
    own = -(-(every - shared) // shares) + shared
    gate_up = k_tiles * int(np.bincount(owner).max()) * own
    part = np.searchsorted(starts, spans[:, 0], side="right") - 1
    _, strips = np.unique(np.stack([part, owner]), axis=1, return_counts=True)
    lines = np.bincount(np.unique(np.stack([part, owner]), axis=1)[0], ceil_div(strips * wide, F16_LANES))
    parts = len(starts) - 1
    spread = max(n for n in range(1, min(parts, ranks) + 1) if ranks % n == 0)
    tiles, single = divmod(int(lines.max()), TILE_ROWS // F16_LANES)
    of_a_part = tiles * every + single * (-(-every // 2) if paired else every)
    across = int(ceil_div(low.graph.values[node.outputs[0]].shape[-1], F32_LANES))
    columns = tile_cut(across, 1, low.cached)
    home = np.arange(len(columns)) * ranks // len(columns) // spread
    down = of_a_part * -(-parts // spread) * int(np.bincount(home, columns).max())
    return F32_LANES * (gate_up + down)


def _table(
    low: Lowering, node: Node, kernel: SlotsKernel, rank: int, ranks: int, most: int, *, cold: bool = False
) -> Table:
    """SLOTS rows on every rank of the group; where there are as many slots as experts, each has its own."""
    weights, _ = low.lines(operands_of(node).weights, node)
    every, some = low.group.ranks, kernel.held
    count = slots_needed(kernel, low.batch)
    if low.slots == 0:
        count = some
    elif low.slots is not None and kernel.first < kernel.experts - kernel.shared:
        kernel = replace(kernel, bounded=low.slots < count)
        count = min(low.slots, count)
    rows = min(most, low.chip.vxm_chains, count)
    cuts = np.arange(rows + 1) * count // rows
    first, n = cuts[:-1], np.diff(cuts)
    lines = low.value("f32", np.zeros(count, np.int64), first=first, count=n)
    lines.held[:every] = True
    where, at = np.divmod(np.arange(every * rows), rows)
    low.rows.add(
        Op.SLOTS,
        rank=where,
        n=n[at],
        aux=low.kernels.index(replace(kernel, slots=count)),
        src_tag=weights.tag(0),
        src3=first[at],
        dst_tag=lines.tag(first[at]),
    )
    experts = np.arange(count) if count == some and not cold else np.full(count, -1)
    return Table(
        first=kernel.first, count=some, rank=rank, ranks=ranks, lines=lines, experts=experts, cold=cold
    )
