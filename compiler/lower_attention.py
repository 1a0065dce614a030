"""Lowering of attention: KV append, then scores, weights and values chunk by chunk, per KV head."""

from dataclasses import dataclass

import numpy as np

from compiler.graph import Node, View
from compiler.isa import (
    F16_LANES,
    KV,
    SPACE_SHIFT,
    TAG_SHIFT,
    WIDE_LANES,
    Op,
    ceil_div,
    kv_words,
    score_lines,
)
from compiler.layout import Lines, Segments, attention_shape
from compiler.lowering import Lowering


def chunk_of(context: int, planes: int) -> int:
    """Tokens per chunk: a multiple of 80 (one score line), the context spread over the planes."""
    return 80 * int(ceil_div(ceil_div(context, planes), 80))


def kv_capacity(contexts: tuple[int, ...], planes: int) -> int:
    """Tokens of KV that every bucket's chunks fit in."""
    return max(chunk_of(c, planes) * int(ceil_div(c, chunk_of(c, planes))) for c in contexts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heads:
    """The KV heads of one attention and their chunks, head by head: arrays over (head, chunk).

    owner, region, append: rank, KV words and KVW row of each head; head, chunk, rank, place: of each pair.
    """

    aux: int
    chunks: int
    owner: np.ndarray
    head: np.ndarray
    chunk: np.ndarray
    rank: np.ndarray
    place: np.ndarray
    region: np.ndarray
    region_tag: np.ndarray
    append: np.ndarray

    def value(self, low: Lowering, dtype: str, lines: int) -> Lines:
        """A value of `lines` lines per (head, chunk), written by one row each."""
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
            src2=self.region[self.head],
            src2_tag=self.region_tag[self.head],
            dst_tag=out.tag(out.first),
        )
        low.rows.edge(self.append[self.head], rows)


def lower_attention(low: Lowering, node: Node) -> None:
    """Lower attention over the KV cache of one context bucket, each KV head on the rank that owns it."""
    kv_heads, head_dim = attention_shape(low.graph, node)
    group = node.inputs[0].width // head_dim // kv_heads
    q, queries = low.segments(node.inputs[0], node)
    heads = _append(low, node, kv_heads, head_dim, group, q.owner[queries.first])
    kernel = low.kernels[heads.aux]
    size, wide = score_lines(kernel), int(ceil_div(group * head_dim, WIDE_LANES))
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
    weights = heads.value(low, "f32", size + 1)
    low.rows.add(
        Op.EXP,
        rank=heads.rank,
        n=1,
        aux=heads.aux,
        src_tag=scores.tag(scores.first),
        src2_tag=peaks.tag(heads.head * heads.chunks),
        dst_tag=weights.tag(weights.first),
    )
    partial = heads.value(low, "wide", wide)
    heads.install(low, Op.PV, weights.tag(weights.first), partial)
    lines = int(ceil_div(group * head_dim, F16_LANES))
    columns = np.full((kv_heads, lines * F16_LANES), -1)
    columns[:, : group * head_dim] = np.arange(kv_heads * group * head_dim).reshape(kv_heads, -1)
    head = np.arange(kv_heads)
    first, count = head * lines, np.full(kv_heads, lines)
    out = low.value("f16", np.repeat(heads.owner, lines), columns.reshape(-1), first=first, count=count)
    low.rows.add(
        Op.AOUT,
        rank=heads.owner,
        n=heads.chunks,
        aux=heads.aux,
        src_tag=partial.tag(head * heads.chunks * wide),
        src2_tag=weights.tag(head * heads.chunks * (size + 1) + size),
        dst_tag=out.tag(first),
    )
    total = kv_heads * group * head_dim
    segments = Segments(start=0, total=total, width=group * head_dim, first=first, lines=lines)
    low.where[View(value=node.outputs[0], start=0, width=total)] = (out, segments)


def _append(low: Lowering, node: Node, kv_heads: int, head_dim: int, group: int, owner: np.ndarray) -> _Heads:
    """KVW rows of the step's K and V, and the bookkeeping of heads and chunks."""
    (k, keys), (v, values) = low.segments(node.inputs[1], node), low.segments(node.inputs[2], node)
    kv = "fp16" if low.graph.values[node.inputs[3].value].dtype == "float16" else "fp8"
    chunk = chunk_of(low.context, low.chip.planes)
    chunks = int(ceil_div(low.context, chunk))
    words = kv_words(head_dim, kv)
    aux = low.kernels.index(
        "attention",
        head_dim=head_dim,
        group=group,
        chunk=chunk,
        chunks=chunks,
        kv=kv,
        kv_words=words,
        kv_stride=low.capacity * words,
        capacity=low.capacity,
        frac=node.attributes["fraction_bits"],
        rows=low.batch,
        sequences=low.graph.values[node.inputs[3].value].shape[0],
        cached=low.cached,
    )
    region = _regions(low, owner, low.cached * low.capacity * words)
    region_tag = (low.weight_uid() << TAG_SHIFT) | np.arange(kv_heads)
    append = low.rows.add(
        Op.KVW,
        rank=owner,
        n=1,
        aux=aux,
        src_tag=k.tag(keys.first),
        src2_tag=v.tag(values.first),
        dst=region,
        dst_tag=region_tag,
    )
    head = np.repeat(np.arange(kv_heads), chunks)
    return _Heads(
        aux=aux,
        chunks=chunks,
        owner=owner,
        head=head,
        chunk=np.tile(np.arange(chunks), kv_heads),
        rank=owner[head],
        place=np.arange(len(head)),
        region=region,
        region_tag=region_tag,
        append=append,
    )


def _regions(low: Lowering, owner: np.ndarray, words: int) -> np.ndarray:
    """Space-coded first words of the KV regions of the heads, bumped per rank."""
    out = np.empty(len(owner), np.int64)
    for i, rank in enumerate(owner):
        out[i] = (KV << SPACE_SHIFT) | low.kv_words[rank]
        low.kv_words[rank] += words
    return out
