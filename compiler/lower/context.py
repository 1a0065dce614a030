"""What is known while one block is lowered: its group of ranks, its values so far, its rows and preloads."""

from dataclasses import dataclass, field, replace

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Graph, Node, View
from compiler.lower.layout import LANES, Deal, Demands, Lines, Segments
from compiler.lower.rows import Kernels, RowBuilder, WeightArena, tag
from compiler.program.isa import F32_LANES, GAIN, Op, ceil_div
from compiler.program.ranges import ramp
from compiler.route.detour import Send, Tree, deal
from compiler.route.route import Router
from fabric.chip import ChipSpec
from fabric.paths import hops

INPUT = 0  # the uid of what a block takes from the one before
_NO_COLUMN = np.int64(-1)  # padding, and lanes of values that are no columns of anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The `ranks` that a block runs on, K split over `k_parts`.

    Its result goes to the ranks `targets` (perhaps of another group): `wanted[i, line]` to target i.
    beside: for each rank that owns KV heads the ranks outside the group that keep stripes of their contexts.
    arrived: of each line of the block's input, whether its owner has it from another chip; () for none.
    held: [ranks, lines] of that input, if more ranks are known to have it than the block asks for.
    """

    ranks: int
    k_parts: int
    targets: tuple[int, ...]
    wanted: np.ndarray
    beside: tuple[tuple[int, ...], ...] = ()
    arrived: tuple[bool, ...] = ()
    held: np.ndarray | None = None

    @property
    def keepers(self) -> int:
        """Ranks up to the last that may keep KV."""
        return max([self.ranks, *(rank + 1 for some in self.beside for rank in some)])

    def k_part(self, tiles: int) -> tuple[np.ndarray, np.ndarray]:
        """(first k tile, k tiles) of each of the `k_parts`."""
        cuts = np.arange(self.k_parts + 1) * tiles // self.k_parts
        return cuts[:-1], np.diff(cuts)

    def needs(self, lines: int, multipliers: np.ndarray) -> np.ndarray:
        """The fp16 lines of a matmul input that each of the `multipliers` reads, as [ranks, lines]."""
        first, count = self.k_part(ceil_div(lines, 2))
        part = np.arange(self.ranks) % self.k_parts
        tile = np.arange(lines) // 2
        return multipliers[:, None] & (tile >= first[part, None]) & (tile < (first + count)[part, None])


def nearest(router: Router, makers: np.ndarray, targets: np.ndarray, owner: int) -> np.ndarray:
    """Of each target the maker that is fewest hops away; of several the owner, or else the first."""
    makers = makers[np.argsort(makers != owner, kind="stable")]
    chips = np.array(router.chips)
    return makers[hops(router.rack)[np.ix_(chips[makers], chips[targets])].argmin(axis=0)]


@dataclass(slots=True, kw_only=True)
class Lowering:
    """What is known while one block is lowered.

    result: the value that the block hands on.
    longest: of the context buckets, which all make equally many values.
    cached: sequences of the KV cache, and so the rows that a decode step takes.
    deal: how the context of each KV head is dealt over ranks, of the group or beside it, `run` tokens at a
    time; capacity: its tokens per stripe. appended: rows of a sequence in a step, the most of all programs
    with this KV.
    detours: whether large transfers may go round; detoured: whether one does.
    host_slot: cycles of a word on the host lane of a chip. resident: tokens of a context that SRAM keeps, the
    last of a longer one; 0: all. by_rows: whether rows of a product may be dealt.
    rows_dealt: whether some are, or a product is computed on several ranks.
    slots: of a table of experts at most, 0: one for each expert. cold: the share of routed experts in DDR5;
    lanes: of each rank the rows that fetch their tiles, and the products of these, in order.
    kv_owners: of each attention the rank of every KV head. turns: matmul chains so far by rank.
    passing: uids of values that begin to live where as large ones are done with.
    joints: values of several operands of one node, by its index (`compiler.lower.latent.joint`).
    drains: the write-back that last emptied each [rank, accumulator], or -1.
    """

    graph: Graph
    demands: Demands
    params: dict[int, int]
    result: int
    group: Group
    router: Router
    chip: ChipSpec
    context: int
    longest: int
    capacity: int
    cached: int
    deal: Deal
    run: int
    appended: int
    kernels: Kernels
    rows: RowBuilder
    weights: WeightArena
    kv_words: np.ndarray
    where: dict[View, tuple[Lines, Segments | None]] = field(default_factory=dict)
    keep: list[int] = field(default_factory=list)
    values: list[Lines] = field(default_factory=list)
    uids: int = 1
    angles: set[str] = field(default_factory=set)
    detours: bool = True
    detoured: bool = False
    host_slot: int = 0
    resident: int = 0
    by_rows: bool = True
    rows_dealt: bool = False
    slots: int | None = None
    cold: float = 0.0
    lanes: dict[int, list[tuple[int, int]]] = field(default_factory=dict[int, list[tuple[int, int]]])
    kv_owners: list[np.ndarray] = field(default_factory=list[np.ndarray])
    passing: set[int] = field(default_factory=set[int])
    joints: dict[int, Lines] = field(default_factory=dict[int, Lines])
    turns: np.ndarray = field(init=False)
    drains: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.turns = np.zeros(self.group.ranks, np.int64)
        self.drains = np.full((self.group.ranks, self.chip.planes * self.chip.accumulators), -1)

    @property
    def batch(self) -> int:
        """Rows of the batch."""
        return self.graph.batch

    def value(
        self,
        dtype: str,
        owner: np.ndarray,
        columns: np.ndarray | None = None,
        *,
        first: np.ndarray,
        count: np.ndarray,
        uid: int | None = None,
        made: np.ndarray | None = None,
    ) -> Lines:
        """A new laid-out value, held by its owners, or by all who compute it: made, [ranks, lines]."""
        if uid is None:
            uid, self.uids = self.uids, self.uids + 1
        held = np.zeros((self.router.rack.chips, len(owner)), bool)
        own = np.flatnonzero(owner >= 0)
        held[owner[own], own] = True
        if made is not None:
            held[: len(made)] |= made
        columns = np.broadcast_to(_NO_COLUMN, len(owner) * LANES[dtype]) if columns is None else columns
        lines = Lines(
            uid=uid,
            dtype=dtype,
            owner=owner,
            columns=columns,
            held=held,
            first=first,
            count=count,
            made=made,
        )
        self.values.append(lines)
        return lines

    def all_values(self, result: Lines) -> list[Lines]:
        """Every value of the block, the one it hands on renumbered to be the last."""
        return [replace(value, uid=self.uids) if value is result else value for value in self.values]

    def multipliers(self, value: int) -> np.ndarray:
        """Who multiplies a value by weights, as [ranks]."""
        readers = [node for node, _ in self.demands.readers(value)]
        active = [self.demands.rule(node).active for node in readers]
        if readers and None not in active:
            found = [ask(self, node) for ask, node in zip(active, readers, strict=True) if ask is not None]
            return np.logical_or.reduce(found)
        return self.demands.multipliers(value, self.group.ranks, self.group.k_parts)

    def input_lines(self, value: int, lines: int) -> np.ndarray:
        """The fp16 lines of a value that each rank multiplies, as [ranks, lines]."""
        if self.demands.everywhere(value):
            return np.repeat(self.multipliers(value)[:, None], lines, axis=1)
        return self.group.needs(lines, self.multipliers(value))

    def segments(self, view: View, node: Node) -> tuple[Lines, Segments]:
        """The layout of an operand that is cut into segments."""
        value, segments = self.lines(view, node)
        assert segments is not None, f"{node.path}: {node.op} reads an operand that is not cut"
        return value, segments

    def slot(self, value: int, rows: np.ndarray | None, columns: np.ndarray | None) -> int:
        """The weight slot of a parameter, named by its position among the parameters of the block."""
        return self.weights.slot(str(self.params[value]), rows, columns)

    def lines(self, view: View, node: Node) -> tuple[Lines, Segments | None]:
        """The layout of an operand."""
        if view not in self.where:
            raise CompileError(
                "lower",
                f"{node.path or 'model'}: {node.op}",
                f"columns {view.start}..{view.start + view.width} are not laid out for it ({node.source})",
                "Slice only what a matmul returns, at segment boundaries.",
            )
        return self.where[view]

    def gather(self, value: Lines, need: np.ndarray, turn: int = 0) -> None:
        """Send lines to every rank that `need[rank, line]` and does not hold them.

        From their owners, or where several ranks have made them from the nearest of those. turn: of values
        alike that take equally good ways in turn.
        """
        held = value.held
        ranks = need.shape[0]
        missing = need & ~held[:ranks]
        wanted = np.logical_or.reduceat(missing, value.first, axis=1).T if len(value.first) else missing.T
        keys: dict[tuple[int, bytes], list[int]] = {}
        for i in np.flatnonzero(wanted.any(axis=1)):
            line = int(value.first[i])
            if value.made is None:
                keys.setdefault((int(value.owner[line]), wanted[i].tobytes()), []).append(int(i))
                continue
            targets = np.flatnonzero(wanted[i])
            near = nearest(self.router, np.flatnonzero(value.made[:, line]), targets, int(value.owner[line]))
            for source in np.unique(near):
                mask = np.zeros(ranks, bool)
                mask[targets[near == source]] = True
                keys.setdefault((int(source), mask.tobytes()), []).append(int(i))
        sends: list[Send] = []
        for (owner, mask), ranges in keys.items():
            targets = tuple(np.flatnonzero(np.frombuffer(mask, bool)).tolist())
            count = value.count[ranges]
            sends.append(Send(owner, targets, int(count.sum()), int(count.max())))
        dealt = deal(self.router, sends, self.batch, turn) if self.detours else None
        for i, (send, ranges) in enumerate(zip(sends, keys.values(), strict=True)):
            first, count = value.first[ranges], value.count[ranges]
            shortest = self.router.tree(send.source, send.targets, turn)
            if dealt is None or all(tree == shortest for tree in dealt[i]):
                self._send(value, send.source, shortest, first, count)
            else:
                self._deal(value, send.source, dealt[i], first, count)

    def _deal(
        self, value: Lines, owner: int, trees: list[Tree], first: np.ndarray, count: np.ndarray
    ) -> None:
        """Send line by line, each over its own tree, in the order of the lines."""
        self.detoured = True
        line = np.repeat(first, count) + ramp(count)
        begin = 0
        for end in range(1, len(trees) + 1):
            if end == len(trees) or trees[end] != trees[begin]:
                self._send(value, owner, trees[begin], line[begin:end], np.ones(end - begin, np.int64))
                begin = end

    def _send(self, value: Lines, owner: int, edges: Tree, first: np.ndarray, count: np.ndarray) -> None:
        parent = np.array([e.parent for e in edges])
        child = np.array([e.child for e in edges])
        fresh = ~value.held[child[None, :], first[:, None]]
        line = np.broadcast_to(first[:, None], fresh.shape)[fresh]
        n = np.broadcast_to(count[:, None], fresh.shape)[fresh]
        rank = np.broadcast_to(parent, fresh.shape)[fresh]
        peer = np.broadcast_to(child, fresh.shape)[fresh]
        tags = value.tag(line)
        here = rank == owner  # has made it
        if value.uid == INPUT and self.group.arrived:
            here &= ~np.array(self.group.arrived)[line]
        op = np.where(here, int(Op.SEND), int(Op.FORWARD))
        self.rows.add(op, rank=rank, peer=peer, n=n, src_tag=tags, dst_tag=tags)
        for begin, size in zip(first, count, strict=True):
            value.held[child, begin : begin + size] = True

    def gain(
        self,
        value: int,
        columns: np.ndarray,
        ranks: np.ndarray,
        lines: np.ndarray,
        uid: int,
        kind: int = GAIN,
    ) -> np.ndarray:
        """Load the gain words of `lines` (80 columns each) on `ranks`; returns their addresses."""
        slot = self.slot(value, None, columns)
        return self.weights.load(
            ranks, 1, kind=kind, tensor=slot, k0=0, n0=lines * F32_LANES, lines=1, tag=tag(uid, lines)
        )

    def weight_uid(self) -> int:
        """A uid for the tags of preloaded values."""
        self.uids += 1
        return self.uids - 1
