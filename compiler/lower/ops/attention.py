"""Lowering of attention: KV append, then scores, weights and values chunk by chunk, per KV head."""

from dataclasses import dataclass

import numpy as np

from compiler.graph.graph import Graph, Node, View
from compiler.lower.context import Lowering
from compiler.lower.layout import Lines, Segments
from compiler.lower.rows import tag
from compiler.lower.rule import LoweringRule, Uses
from compiler.program.instructions.attention import AttentionKernel, kv_words, merged_lines, score_lines
from compiler.program.isa import F16_LANES, F32_LANES, KV, SPACE_SHIFT, Op, ceil_div
from fabric.paths import hops


def share_of(context: int, stripes: int) -> int:
    """Tokens of a context that each of its stripes holds at most: it is dealt out 80 tokens at a time."""
    return F32_LANES * int(ceil_div(ceil_div(context, F32_LANES), stripes)) if stripes > 1 else context


def chunk_of(context: int, planes: int) -> int:
    """Tokens per chunk: a multiple of 80 (one score line), the context spread over the planes."""
    return 80 * int(ceil_div(ceil_div(context, planes), 80))


def kv_capacity(contexts: tuple[int, ...], planes: int, stripes: int = 1) -> int:
    """Tokens of KV per region that every bucket's chunks fit in."""
    shares = [share_of(context, stripes) for context in contexts]
    return max(chunk_of(share, planes) * int(ceil_div(share, chunk_of(share, planes))) for share in shares)


def attention_shape(graph: Graph, node: Node) -> tuple[int, int]:
    """(kv heads, head dim) of an attention node, from its cache."""
    shape = graph.values[node.inputs[3].value].shape
    return shape[2], shape[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heads:
    """The KV heads of one attention, their stripes and chunks, in that order.

    owner: rank of each head. parts, arrays over (head, stripe): rank that holds it, first word and tag of its
    KV region, its KVW row. head, part, chunk, rank, place: of each (head, stripe, chunk).
    """

    aux: int
    chunks: int
    stripes: int
    owner: np.ndarray
    holder: np.ndarray
    region: np.ndarray
    region_tag: np.ndarray
    append: np.ndarray
    head: np.ndarray
    part: np.ndarray
    chunk: np.ndarray
    rank: np.ndarray
    place: np.ndarray

    def value(self, low: Lowering, dtype: str, lines: int) -> Lines:
        """A value of `lines` lines per (head, stripe, chunk), written by one row each."""
        count = np.full(len(self.place), lines)
        return low.value(dtype, np.repeat(self.rank, lines), first=self.place * lines, count=count)

    def install(self, low: Lowering, op: Op, source: np.ndarray, out: Lines) -> None:
        """QK or PV rows: each chunk of K or V on a plane, after the step's append."""
        rows = low.rows.add(
            op,
            rank=self.rank,
            pin=self.place % low.chip.planes,
            n=self.chunk,
            aux=self.aux,
            src_tag=source,
            src2=self.region[self.part],
            src2_tag=self.region_tag[self.part],
            dst_tag=out.tag(out.first),
        )
        low.rows.edge(self.append[self.part], rows)

    def to_holders(self, low: Lowering, value: Lines, first: np.ndarray, lines: int) -> None:
        """Send `lines` lines of each head, from line `first[head]` on, to every rank that holds a stripe."""
        if self.stripes > 1:
            low.gather(value, _needed(low, value, first, lines, self.holder))


def lower_attention(low: Lowering, node: Node) -> None:
    """Lower attention over the KV cache of one context bucket.

    Each KV head belongs to a rank; its context lies there, or is dealt over `low.cp` ranks of its own
    (context parallel), which score their chunks against the maximum over all and send one exact partial.
    """
    kv_heads, head_dim = attention_shape(low.graph, node)
    group = node.inputs[0].width // head_dim // kv_heads
    q, queries = low.segments(node.inputs[0], node)
    heads = _append(low, node, kv_heads, head_dim, group, q.owner[queries.first])
    heads.to_holders(low, q, queries.first, queries.lines)
    kernel = low.kernels[heads.aux]
    assert isinstance(kernel, AttentionKernel)
    size = score_lines(kernel)
    scores = heads.value(low, "f32", size)
    heads.install(low, Op.QK, q.tag(queries.first[heads.head]), scores)
    peaks = heads.value(low, "stat", 1)
    low.rows.add(
        Op.SMAX,
        rank=heads.rank,
        n=1,
        aux=heads.aux,
        src_tag=scores.tag(scores.first),
        dst_tag=peaks.tag(peaks.first),
    )
    total = heads.stripes * heads.chunks
    heads.to_holders(low, peaks, np.arange(kv_heads) * total, total)
    weights = heads.value(low, "f32", size + 1)
    low.rows.add(
        Op.EXP,
        rank=heads.rank,
        n=1,
        aux=heads.aux,
        src_tag=scores.tag(scores.first),
        src2_tag=peaks.tag(heads.head * total),
        dst_tag=weights.tag(weights.first),
    )
    wide = merged_lines(kernel) - 1
    partial = heads.value(low, "wide", wide)
    heads.install(low, Op.PV, weights.tag(weights.first), partial)
    lines = int(ceil_div(group * head_dim, F16_LANES))
    columns = np.full((kv_heads, lines * F16_LANES), -1)
    columns[:, : group * head_dim] = np.arange(kv_heads * group * head_dim).reshape(kv_heads, -1)
    first, count = np.arange(kv_heads) * lines, np.full(kv_heads, lines)
    out = low.value("f16", np.repeat(heads.owner, lines), columns.reshape(-1), first=first, count=count)
    part = np.arange(len(heads.holder))
    op = Op.ASUM if heads.stripes > 1 else Op.AOUT
    merged = _merged(low, heads, wide + 1) if heads.stripes > 1 else out
    low.rows.add(
        op,
        rank=heads.holder,
        n=heads.chunks,
        aux=heads.aux,
        src_tag=partial.tag(part * heads.chunks * wide),
        src2_tag=weights.tag(part * heads.chunks * (size + 1) + size),
        dst_tag=merged.tag(merged.first),
    )
    if heads.stripes > 1:
        _finish(low, heads, merged, out)
    width = kv_heads * group * head_dim
    segments = Segments(start=0, total=width, width=group * head_dim, first=first, lines=lines)
    low.where[View(value=node.outputs[0], start=0, width=width)] = (out, segments)


def _merged(low: Lowering, heads: _Heads, lines: int) -> Lines:
    """A wide partial and its sums per (head, stripe)."""
    first, count = np.arange(len(heads.holder)) * lines, np.full(len(heads.holder), lines)
    return low.value("wide", np.repeat(heads.holder, lines), first=first, count=count)


def _finish(low: Lowering, heads: _Heads, merged: Lines, out: Lines) -> None:
    """The partials of all stripes of a head sent to its owner and divided there."""
    need = np.zeros((low.group.ranks, merged.lines), bool)
    need[np.repeat(heads.owner, merged.lines // len(heads.owner)), np.arange(merged.lines)] = True
    low.gather(merged, need)
    low.rows.add(
        Op.AEND,
        rank=heads.owner,
        n=heads.stripes,
        aux=heads.aux,
        src_tag=merged.tag(merged.first[:: heads.stripes]),
        dst_tag=out.tag(out.first),
    )


def _append(low: Lowering, node: Node, kv_heads: int, head_dim: int, group: int, owner: np.ndarray) -> _Heads:
    """KVW rows of the step's K and V, and the bookkeeping of heads, stripes and chunks."""
    (k, keys), (v, values) = low.segments(node.inputs[1], node), low.segments(node.inputs[2], node)
    kv = "fp16" if low.graph.values[node.inputs[3].value].dtype == "float16" else "fp8"
    share = share_of(low.context, low.cp)
    chunk = chunk_of(share, low.chip.planes)
    chunks = int(ceil_div(share, chunk))
    words = kv_words(head_dim, kv)
    aux = low.kernels.index(
        AttentionKernel(
            head_dim=head_dim,
            group=group,
            chunk=chunk,
            chunks=chunks * low.cp,
            kv=kv,
            kv_words=words,
            kv_stride=low.capacity * words,
            capacity=low.capacity,
            frac=node.attributes["fraction_bits"],
            rows=low.batch,
            sequences=low.graph.values[node.inputs[3].value].shape[0],
            cached=low.cached,
            stripes=low.cp,
        )
    )
    holder = _holders(low, owner)
    region = _regions(low, holder, low.cached * low.capacity * words)
    region_tag = tag(low.weight_uid(), np.arange(len(holder)))
    stripe = np.tile(np.arange(low.cp), kv_heads)
    part_head = np.repeat(np.arange(kv_heads), low.cp)
    part = np.repeat(np.arange(len(holder)), chunks)
    if low.cp > 1:
        for value, segments in ((k, keys), (v, values)):
            low.gather(value, _needed(low, value, segments.first, segments.lines, holder))
    append = low.rows.add(
        Op.KVW,
        rank=holder,
        n=1,
        aux=aux,
        src_tag=k.tag(keys.first[part_head]),
        src2_tag=v.tag(values.first[part_head]),
        src3=stripe if low.cp > 1 else -1,
        dst=region,
        dst_tag=region_tag,
    )
    return _Heads(
        aux=aux,
        chunks=chunks,
        stripes=low.cp,
        owner=owner,
        holder=holder,
        region=region,
        region_tag=region_tag,
        append=append,
        head=part_head[part],
        part=part,
        chunk=np.tile(np.arange(chunks), len(holder)),
        rank=holder[part],
        place=np.arange(len(part)),
    )


def _needed(low: Lowering, value: Lines, first: np.ndarray, lines: int, holder: np.ndarray) -> np.ndarray:
    """Need that every holder of a stripe gets `lines` lines of its head, from `first[head]`."""
    need = np.zeros((low.group.ranks, value.lines), bool)
    begin = np.repeat(first, len(holder) // len(first))
    need[holder[:, None], begin[:, None] + np.arange(lines)] = True
    return need


def _holders(low: Lowering, owner: np.ndarray) -> np.ndarray:
    """The rank of every (head, stripe): the owner, then those of its own ranks that are fewest hops away."""
    ends = np.append(owner[1:], low.group.ranks)
    distance = hops(low.router.rack)
    chips = np.array(low.router.chips[: low.group.ranks])
    out: list[np.ndarray] = []
    for first, end in zip(owner, ends, strict=True):
        own = np.arange(first, end)
        out.append(own[np.argsort(distance[chips[first], chips[own]], kind="stable")][: low.cp])
    return np.concatenate(out) if low.cp > 1 else owner


def _regions(low: Lowering, owner: np.ndarray, words: int) -> np.ndarray:
    """Space-coded first words of KV regions on these ranks, bumped per rank."""
    out = np.empty(len(owner), np.int64)
    for i, rank in enumerate(owner):
        out[i] = (KV << SPACE_SHIFT) | low.kv_words[rank]
        low.kv_words[rank] += words
    return out


def _wants(uses: Uses, node: Node, operand: int) -> int:
    """The query heads of one KV head together; K and V head by head."""
    heads, head_dim = attention_shape(uses.graph, node)
    return head_dim * (node.inputs[0].width // head_dim // heads) if operand == 0 else head_dim


RULE = LoweringRule(
    op="attention",
    lower=lower_attention,
    wants=_wants,
    by_head=True,
    kv_heads=lambda graph, node: attention_shape(graph, node)[0],
)
