"""Lowering of attention: KV append, then scores, weights and values chunk by chunk, per KV head."""

import numpy as np

from compiler.graph import Node, View
from compiler.isa import F16_LANES, KV, SPACE_SHIFT, WIDE_LANES, Op, ceil_div, kv_words, score_lines
from compiler.layout import Segments, attention_shape
from compiler.lowering import Lowering


def chunk_of(context: int, planes: int) -> int:
    """Tokens per chunk: a multiple of 80 (one score line), the context spread over the planes."""
    return 80 * int(ceil_div(ceil_div(context, planes), 80))


def kv_capacity(contexts: tuple[int, ...], planes: int) -> int:
    """Tokens of KV that every bucket's chunks fit in."""
    return max(chunk_of(c, planes) * int(ceil_div(c, chunk_of(c, planes))) for c in contexts)


def lower_attention(low: Lowering, node: Node) -> None:
    """Attention over the KV cache of one context bucket, each KV head on the rank that owns it."""
    heads, head_dim = attention_shape(low.graph, node)
    group = node.inputs[0].width // head_dim // heads
    (q, qs), (k, ks), (v, vs) = (low.lines(view, node) for view in node.inputs[:3])
    assert qs is not None
    assert ks is not None
    assert vs is not None
    dtype = low.graph.values[node.inputs[3].value].dtype
    kv = "fp16" if dtype == "float16" else "fp8"
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
    )
    kernel = low.kernels[aux]
    owner = q.owner[qs.first]
    region = _regions(low, owner, low.batch * low.capacity * words)
    uid = low.weight_uid()
    head = np.arange(heads)
    region_tag = (uid << 40) | head
    append = low.rows.add(
        Op.KVW,
        rank=owner,
        n=1,
        aux=aux,
        src_tag=k.tag(ks.first),
        src2_tag=v.tag(vs.first),
        dst=region,
        dst_tag=region_tag,
    )
    each = np.repeat(head, chunks)
    index = np.tile(np.arange(chunks), heads)
    pin = (each * chunks + index) % low.chip.planes
    size, wide = score_lines(kernel), int(ceil_div(group * head_dim, WIDE_LANES))
    rank = owner[each]
    at = each * chunks + index

    def spread(lines: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.repeat(rank, lines), at * lines, np.full(len(at), lines)

    holder, first, count = spread(size)
    scores = low.value("f32", holder, first=first, count=count)
    asked = low.rows.add(
        Op.QK,
        rank=rank,
        pin=pin,
        n=index,
        aux=aux,
        src_tag=q.tag(qs.first[each]),
        src2=region[each],
        src2_tag=region_tag[each],
        dst_tag=scores.tag(first),
    )
    low.rows.edge(append[each], asked)
    peak = low.value("stat", owner, first=head, count=np.ones_like(head))
    low.rows.add(
        Op.SMAX,
        rank=owner,
        n=chunks,
        aux=aux,
        src_tag=scores.tag(head * chunks * size),
        dst_tag=peak.tag(head),
    )
    holder, first, count = spread(size + 1)
    weights = low.value("f32", holder, first=first, count=count)
    low.rows.add(
        Op.EXP,
        rank=rank,
        n=1,
        aux=aux,
        src_tag=scores.tag(at * size),
        src2_tag=peak.tag(each),
        dst_tag=weights.tag(first),
    )
    holder, first, count = spread(wide)
    partial = low.value("wide", holder, first=first, count=count)
    weighed = low.rows.add(
        Op.PV,
        rank=rank,
        pin=pin,
        n=index,
        aux=aux,
        src_tag=weights.tag(at * (size + 1)),
        src2=region[each],
        src2_tag=region_tag[each],
        dst_tag=partial.tag(first),
    )
    low.rows.edge(append[each], weighed)
    lines = int(ceil_div(group * head_dim, F16_LANES))
    columns = np.full((heads, lines * F16_LANES), -1)
    columns[:, : group * head_dim] = np.arange(heads * group * head_dim).reshape(heads, -1)
    first = head * lines
    out = low.value(
        "f16", np.repeat(owner, lines), columns.reshape(-1), first=first, count=np.full(heads, lines)
    )
    low.rows.add(
        Op.AOUT,
        rank=owner,
        n=chunks,
        aux=aux,
        src_tag=partial.tag(head * chunks * wide),
        src2_tag=weights.tag(head * chunks * (size + 1) + size),
        dst_tag=out.tag(first),
    )
    total = heads * group * head_dim
    segments = Segments(start=0, total=total, width=group * head_dim, first=first, lines=lines)
    low.where[View(value=node.outputs[0], start=0, width=total)] = (out, segments)


def _regions(low: Lowering, owner: np.ndarray, words: int) -> np.ndarray:
    """Space-coded first words of the KV regions of the heads, bumped per rank."""
    out = np.empty(len(owner), np.int64)
    for i, rank in enumerate(owner):
        out[i] = (KV << SPACE_SHIFT) | low.kv_words[rank]
        low.kv_words[rank] += words
    return out
