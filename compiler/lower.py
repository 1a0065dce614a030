"""Lowering: the nodes of one block -> rows (tile operations and transfers) on the ranks of one group."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from compiler.errors import CompileError
from compiler.graph import Graph, Node, View
from compiler.isa import F16_LANES, F32_LANES, SHARED, SPACE_SHIFT, Op, ceil_div
from compiler.layout import LANES, Demands, Lines, Segments, is_head_norm, natural
from compiler.program import GAIN, TABLE
from compiler.route import Router
from compiler.rows import Kernels, RowBuilder, WeightArena
from fabric.chip import ChipSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The ranks that a block runs on: `ranks` of them, K split over `k_parts`; its result goes to `targets`."""

    ranks: int
    k_parts: int
    targets: tuple[int, ...]

    def k_part(self, tiles: int) -> tuple[np.ndarray, np.ndarray]:
        """(first k tile, k tiles) of each of the `k_parts`."""
        cuts = np.arange(self.k_parts + 1) * tiles // self.k_parts
        return cuts[:-1], np.diff(cuts)

    def needs(self, lines: int) -> np.ndarray:
        """bool [ranks, lines]: the fp16 lines of a matmul input that each rank multiplies."""
        first, count = self.k_part(ceil_div(lines, 2))
        part = np.arange(self.ranks) % self.k_parts
        tile = np.arange(lines) // 2
        return (tile >= first[part, None]) & (tile < (first + count)[part, None])


@dataclass(slots=True, kw_only=True)
class Lowering:
    """What is known while one block is lowered."""

    graph: Graph
    demands: Demands
    params: dict[int, int]
    group: Group
    router: Router
    chip: ChipSpec
    context: int
    capacity: int
    kernels: Kernels
    rows: RowBuilder
    weights: WeightArena
    kv_words: np.ndarray
    where: dict[View, tuple[Lines, Segments | None]] = field(default_factory=dict)
    keep: list[int] = field(default_factory=list)
    values: list[Lines] = field(default_factory=list)
    uids: int = 1
    angles: set[str] = field(default_factory=set)

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
    ) -> Lines:
        """A new laid-out value, held by its owners."""
        if uid is None:
            uid, self.uids = self.uids, self.uids + 1
        held = np.zeros((self.router.rack.chips, len(owner)), bool)
        own = np.flatnonzero(owner >= 0)
        held[owner[own], own] = True
        columns = np.full(len(owner) * LANES[dtype], -1) if columns is None else columns
        lines = Lines(uid=uid, dtype=dtype, owner=owner, columns=columns, held=held, first=first, count=count)
        self.values.append(lines)
        return lines

    def all_values(self, result: Lines) -> list[Lines]:
        """Every value of the block, the one it hands on renumbered to be the last."""
        return [replace(value, uid=self.uids) if value is result else value for value in self.values]

    def slot(self, value: int, rows: np.ndarray | None, columns: np.ndarray | None) -> int:
        """The weight slot of a parameter of the block (named by its position among the block's parameters)."""
        return self.weights.slot(str(self.params[value]), rows, columns)

    def lines(self, view: View, node: Node) -> tuple[Lines, Segments | None]:
        """The layout of an operand."""
        if view not in self.where:
            raise CompileError(
                "lower",
                f"{node.path or 'model'}: {node.op}",
                f"columns {view.start}..{view.start + view.width} are not laid out for this use ({node.source})",
                "Slice only what a matmul returns, at segment boundaries.",
            )
        return self.where[view]

    def gather(self, value: Lines, need: np.ndarray) -> None:
        """Send lines from their owners to every rank that `need[rank, line]` and does not hold them."""
        held = value.held
        ranks = need.shape[0]
        missing = need & ~held[:ranks]
        wanted = np.logical_or.reduceat(missing, value.first, axis=1).T if len(value.first) else missing.T
        owners = value.owner[value.first]
        keys: dict[tuple[int, bytes], list[int]] = {}
        for i in np.flatnonzero(wanted.any(axis=1)):
            keys.setdefault((int(owners[i]), wanted[i].tobytes()), []).append(int(i))
        for (owner, _), ranges in keys.items():
            targets = tuple(int(rank) for rank in np.flatnonzero(wanted[ranges[0]]))
            self._send(value, owner, targets, np.array(ranges))

    def _send(self, value: Lines, owner: int, targets: tuple[int, ...], ranges: np.ndarray) -> None:
        first, count = value.first[ranges], value.count[ranges]
        edges = self.router.tree(owner, targets)
        parent = np.array([e.parent for e in edges])
        child = np.array([e.child for e in edges])
        fresh = ~value.held[child[None, :], first[:, None]]
        line = np.broadcast_to(first[:, None], fresh.shape)[fresh]
        n = np.broadcast_to(count[:, None], fresh.shape)[fresh]
        rank = np.broadcast_to(parent, fresh.shape)[fresh]
        peer = np.broadcast_to(child, fresh.shape)[fresh]
        tags = value.tag(line)
        op = np.where(rank == owner, int(Op.SEND), int(Op.FORWARD))
        self.rows.add(op, rank=rank, peer=peer, n=n, src_tag=tags, dst_tag=tags)
        for begin, size in zip(first, count, strict=True):
            value.held[np.ix_(child, range(begin, begin + size))] = True

    def gain(self, value: int, columns: np.ndarray, ranks: np.ndarray, lines: np.ndarray, uid: int) -> np.ndarray:
        """Load the gain words of `lines` (80 columns each) on `ranks`; returns their addresses."""
        slot = self.slot(value, None, columns)
        return self.weights.load(
            ranks, 1, kind=GAIN, tensor=slot, k0=0, n0=lines * F32_LANES, lines=1, tag=(uid << 40) | lines
        )

    def weight_uid(self) -> int:
        """A uid for the tags of preloaded values."""
        self.uids += 1
        return self.uids - 1


def lower_embed(low: Lowering, node: Node) -> None:
    """embed: each rank that owns lines gathers its columns of the token's row."""
    table, _ = node.inputs[0], node.inputs[1]
    out = node.outputs[0]
    total = low.graph.values[out].shape[-1]
    vocab = low.graph.values[table.value].shape[0]
    owner, columns = natural(total, low.group.ranks)
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    count = np.diff(np.append(first, len(owner)))
    value = low.value("f32", owner, columns, first=first, count=count)
    slot = low.slot(table.value, None, columns)
    uid = low.weight_uid()
    for line, n in zip(first, count, strict=True):
        stride = int(ceil_div(n, 2))
        address = low.weights.load(
            owner[line], vocab * stride, kind=TABLE, tensor=slot, k0=0, n0=line * F32_LANES, lines=n,
            tag=(uid << 40) | int(line),
        )
        low.rows.add(
            Op.EMBED, rank=owner[line], n=n, aux=low.kernels.index("embed", vocab=vocab, stride=stride),
            src=address, src_tag=(uid << 40) | int(line), dst_tag=value.tag(line),
        )
    _natural_segments(low, out, value, total)


def _natural_segments(low: Lowering, out: int, value: Lines, total: int) -> None:
    segments = Segments(start=0, total=total, width=F32_LANES, first=np.arange(value.lines), lines=1)
    low.where[View(value=out, start=0, width=total)] = (value, segments)


def lower_rms_norm(low: Lowering, node: Node) -> None:
    """rms_norm over all features, on every rank that multiplies the result; or per head."""
    if is_head_norm(low.graph, node):
        _per_segment(low, node, Op.HNORM)
        return
    value, _ = low.lines(node.inputs[0], node)
    if value.dtype != "f32":
        raise CompileError("lower", f"{node.path}: rms_norm", "its input is not f32", "Normalise the residual.")
    ranks = low.group.ranks
    low.gather(value, np.ones((ranks, value.lines), bool))
    width = node.inputs[0].width
    aux = low.kernels.index("rstat", width=width, eps=node.attributes["eps"])
    stat = low.value("stat", np.zeros(1, np.int64), first=np.zeros(1, np.int64), count=np.ones(1, np.int64))
    stat.held[:ranks] = True
    low.rows.add(
        Op.RSTAT, rank=np.arange(ranks), n=value.lines, aux=aux, src_tag=value.tag(0), dst_tag=stat.tag(0)
    )
    lines = int(ceil_div(value.lines, 2))
    columns = np.full(lines * F16_LANES, -1)
    columns[: len(value.columns)] = value.columns
    first = np.arange(0, lines, 2)
    count = np.minimum(2, lines - first)
    out = low.value("f16", np.full(lines, -1), columns, first=first, count=count)
    need = low.group.needs(lines)
    out.held[:ranks] = need
    rank, tile = np.nonzero(need[:, ::2])
    n = np.minimum(4, value.lines - 4 * tile)
    uid = low.weight_uid()
    starts = np.cumsum(n) - n
    line = np.repeat(4 * tile - starts, n) + np.arange(n.sum())
    gains = low.gain(node.inputs[1].value, value.columns, np.repeat(rank, n), line, uid)
    low.rows.add(
        Op.NORM, rank=rank, n=n, aux=low.kernels.index("norm"), src_tag=value.tag(4 * tile),
        src2_tag=stat.tag(0), src3=gains[starts], src3_tag=(uid << 40) | (4 * tile), dst_tag=out.tag(2 * tile),
    )
    low.where[View(value=node.outputs[0], start=0, width=width)] = (out, None)


def _per_segment(low: Lowering, node: Node, op: Op) -> None:
    """HNORM, ROPE, CAST: one row per segment, fp16 result with the same segments."""
    view = node.inputs[0]
    value, segments = low.lines(view, node)
    assert segments is not None
    lines = int(ceil_div(segments.width, F16_LANES))
    count = len(segments)
    owner = value.owner[segments.first]
    columns = np.full((count, lines * F16_LANES), -1)
    lanes = LANES[value.dtype]
    for i, line in enumerate(segments.first):
        columns[i, : segments.width] = value.columns[line * lanes : line * lanes + segments.width] - view.start
    first = np.arange(count) * lines
    out = low.value(
        "f16", np.repeat(owner, lines), columns.reshape(-1), first=first, count=np.full(count, lines)
    )
    fields = _SEGMENT_FIELDS[op](low, node, value, segments, owner)
    low.rows.add(op, rank=owner, src_tag=value.tag(segments.first), dst_tag=out.tag(first), **fields)
    low.where[View(value=node.outputs[0], start=0, width=view.width)] = (
        out,
        Segments(start=0, total=view.width, width=segments.width, first=first, lines=lines),
    )


def _hnorm(
    low: Lowering, node: Node, value: Lines, segments: Segments, owner: np.ndarray
) -> Mapping[str, object]:
    head_dim = low.graph.values[node.inputs[1].value].shape[0]
    words = int(ceil_div(head_dim, F32_LANES))
    columns = np.full(words * F32_LANES, -1)
    columns[:head_dim] = np.arange(head_dim)
    uid = low.weight_uid()
    ranks = np.unique(owner)
    line = np.tile(np.arange(words), len(ranks))
    gains = low.gain(node.inputs[1].value, columns, np.repeat(ranks, words), line, uid)
    return {
        "n": segments.width // head_dim,
        "aux": low.kernels.index("hnorm", head_dim=head_dim, eps=node.attributes["eps"]),
        "src3": gains[::words][np.searchsorted(ranks, owner)],
        "src3_tag": uid << 40,
    }


def _rope(
    low: Lowering, node: Node, value: Lines, segments: Segments, owner: np.ndarray
) -> Mapping[str, object]:
    positions, _, half = low.graph.values[node.inputs[1].value].shape
    stride = int(ceil_div(4 * half, 320))
    low.angles.add(low.graph.values[node.inputs[1].value].name)
    aux = low.kernels.index("rope", head_dim=2 * half, input=value.dtype, positions=positions, stride=stride)
    return {"n": segments.width // (2 * half), "aux": aux, "src2": SHARED_ANGLES}


def _cast(
    low: Lowering, node: Node, value: Lines, segments: Segments, owner: np.ndarray
) -> Mapping[str, object]:
    return {"n": segments.lines, "aux": low.kernels.index("cast")}


SHARED_ANGLES = SHARED << SPACE_SHIFT  # the first word of the shared space: one RoPE table per chip
_SEGMENT_FIELDS: dict[Op, Callable[..., Mapping[str, object]]] = {
    Op.HNORM: _hnorm,
    Op.ROPE: _rope,
    Op.CAST: _cast,
}


def lower_rope(low: Lowering, node: Node) -> None:
    """rope on each segment of heads."""
    _per_segment(low, node, Op.ROPE)


def lower_round16(low: Lowering, node: Node) -> None:
    """round16 on each segment."""
    _per_segment(low, node, Op.CAST)


def lower_glu(low: Lowering, node: Node) -> None:
    """glu: one row per strip of 160 columns, gate and up side by side on one rank."""
    (gate, gates), (up, ups) = low.lines(node.inputs[0], node), low.lines(node.inputs[1], node)
    assert gates is not None
    assert ups is not None
    owner = gate.owner[gates.first]
    total = node.inputs[0].width
    columns = np.arange(len(gates) * F16_LANES)
    line = np.arange(len(gates))
    out = low.value(
        "f16", owner, np.where(columns < total, columns, -1), first=line, count=np.ones_like(line)
    )
    low.rows.add(
        Op.GLU, rank=owner, n=2, aux=low.kernels.index("glu", activation=node.attributes["activation"]),
        src_tag=gate.tag(gates.first), src2_tag=up.tag(ups.first), dst_tag=out.tag(line),
    )
    low.where[View(value=node.outputs[0], start=0, width=total)] = (out, None)


def lower_add(low: Lowering, node: Node) -> None:
    """add: where the freshly computed operand lies; the residual is held there already or is sent."""
    pairs = [low.lines(view, node) for view in node.inputs]
    if pairs[0][0].uid > pairs[1][0].uid:
        pairs.reverse()
    (old, old_segments), (new, segments) = pairs
    assert segments is not None
    assert old_segments is not None
    count = len(segments)
    total = node.inputs[0].width
    owner = new.owner[segments.first]
    need = np.zeros((low.group.ranks, old.lines), bool)
    need[owner, old_segments.first] = True
    low.gather(old, need)
    steady = np.diff(segments.first, prepend=-9) == 1
    starts_row = np.isin(segments.first, new.first) | ~steady
    first = np.flatnonzero(starts_row)
    n = np.diff(np.append(first, count))
    _, columns = natural(total, low.group.ranks)
    out = low.value("f32", owner, columns, first=first, count=n)
    low.rows.add(
        Op.ADD, rank=owner[first], n=n, aux=low.kernels.index("add"), src_tag=old.tag(old_segments.first[first]),
        src2_tag=new.tag(segments.first[first]), dst_tag=out.tag(first),
    )
    _natural_segments(low, node.outputs[0], out, total)


def lower_argmax(low: Lowering, node: Node) -> None:
    """argmax: each rank over its own vocabulary lines, then the first rank over the ranks."""
    logits, segments = low.lines(node.inputs[0], node)
    assert segments is not None
    owner = logits.owner
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    n = np.diff(np.append(first, logits.lines))
    line = np.arange(len(first))
    best = low.value("stat", owner[first], first=line, count=np.ones_like(line))
    low.rows.add(
        Op.ARGMAX, rank=owner[first], n=n, aux=low.kernels.index("argmax", vocab=node.inputs[0].width),
        src_tag=logits.tag(first), src3=first, dst_tag=best.tag(line),
    )
    need = np.zeros((low.group.ranks, best.lines), bool)
    need[0] = True
    low.gather(best, need)
    zero, one = np.zeros(1, np.int64), np.ones(1, np.int64)
    token = low.value("stat", zero, first=zero, count=one)
    low.rows.add(
        Op.ARGRED, rank=0, n=best.lines, aux=low.kernels.index("argred"), src_tag=best.tag(0),
        dst_tag=token.tag(0),
    )
    width = 1
    low.where[View(value=node.outputs[0], start=0, width=width)] = (token, None)
    low.keep += [logits.uid, token.uid]
