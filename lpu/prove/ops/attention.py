"""Attention: KV appended, scores, maxima, weights, weighted values; chunks vanish where all are added."""

from collections.abc import Sequence
from typing import Any

from compiler.program.instructions.attention import (
    AttentionKernel,
    kv_words,
    merged_lines,
    part_lines,
    score_lines,
)
from compiler.program.isa import F16_LANES, F32_LANES, Holds, Op
from lpu.prove.known import Known
from lpu.prove.lines import KV_HEAD, Attending, Chunk, KVHead, Peak, Place, Total, Vector, Weighted
from lpu.prove.ops.taken import blocks, of_kind, vectors
from lpu.prove.refused import need
from lpu.prove.rule import Proved, RowOperands

EXACT_BITS = 33  # 2^(33 - frac) tokens have an exact weighted sum in f64
MOST_HEADS = F32_LANES  # of a group: a line of maxima has a lane per head


def _fits(known: Known, k: AttentionKernel) -> None:
    """The numbers of a kernel: of the program's rows and cache, and enough chunks for the whole context."""
    manifest = known.manifest
    rows = (k.rows, k.cached, k.sequences * manifest.chunk)
    need(
        rows == (manifest.rows, manifest.sequences, manifest.rows),
        f"its kernel has rows, cached sequences and rows of the step {rows}, the program "
        f"{(manifest.rows, manifest.sequences, manifest.rows)}",
    )
    words = kv_words(k.head_dim, k.kv)
    need(k.kv_words == words, f"its kernel says {k.kv_words} words of a token, K and V take {words}")
    need(k.kv_stride == k.capacity * words, f"its kernel has stride {k.kv_stride}, not {k.capacity * words}")
    need(k.kv == manifest.model.kv, f"its kernel has KV in {k.kv}, the model in {manifest.model.kv}")
    need(k.chunk % F32_LANES == 0, f"chunks of {k.chunk} tokens are no whole lines")
    need(k.chunks % k.stripes == 0, f"{k.chunks} chunks are no equal share of {k.stripes} stripes")
    room = k.chunk * k.chunks
    need(room >= known.context, f"{k.chunks} chunks of {k.chunk} tokens do not hold {known.context}")
    need(k.capacity * k.stripes >= room, f"regions of {k.capacity} tokens do not hold {room}")
    need(k.group <= MOST_HEADS, f"a group of {k.group} heads, the most are {MOST_HEADS}")
    need(0 < k.frac <= EXACT_BITS, f"weights of {k.frac} bits")
    need(known.context <= 1 << (EXACT_BITS - k.frac), f"{k.frac} bits are exact for fewer tokens")


def _every(k: AttentionKernel) -> list[Place]:
    """All chunks of a context, by stripe."""
    return [(stripe, chunk) for stripe in range(k.stripes) for chunk in range(k.chunks // k.stripes)]


def _kvw(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """One head of K and the same one of V; the place of a token follows from its position and the stripe."""
    k: AttentionKernel = row.kernel
    _fits(known, k)
    keys, k_lanes = vectors(known, row.src, Holds.F16, "K")
    values, v_lanes = vectors(known, row.src2, Holds.F16, "V")
    (head,) = known.lanes.heads(k_lanes, 1, k.head_dim)
    (other,) = known.lanes.heads(v_lanes, 1, k.head_dim)
    need(head == other, f"appends K of head {head} and V of head {other}")
    wide = (known.terms.width(keys), known.terms.width(values))
    need(wide[0] == wide[1], f"K has {wide[0]} lanes, V {wide[1]}")
    stripe = max(row.src3, 0)
    need(
        stripe < k.stripes and row.src3 >= (-1 if k.stripes == 1 else 0), f"stripe {row.src3} of {k.stripes}"
    )
    return (KVHead(KV_HEAD, keys, values, head, stripe, row.index),)


def _region(row: RowOperands) -> KVHead:
    need(row.region is not None, "reads no KV region")
    assert row.region is not None
    need(row.region.kernel == row.index, "reads KV of another attention")
    return row.region


def _qk(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Query heads against one chunk of one KV head."""
    k: AttentionKernel = row.kernel
    queries, lanes = vectors(known, row.src, Holds.F16, "the queries")
    heads, region = known.lanes.heads(lanes, k.group, k.head_dim), _region(row)
    need(row.n < k.chunks // k.stripes, f"chunk {row.n} of {k.chunks // k.stripes}")
    wide, of_kv = known.terms.width(queries), known.terms.width(region.keys)
    need(wide % of_kv == 0, f"{wide} lanes of queries are no groups of {of_kv} lanes of keys")
    group = wide // of_kv
    need(
        all(head // group == region.head for head in heads),
        f"query heads {heads} attend to KV head {region.head}",
    )
    of = Attending(queries, heads, region.keys, region.head, row.index)
    return tuple(Chunk(Holds.SCORE, of, (region.stripe, row.n), i) for i in range(score_lines(k)))


def _smax(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """The largest of some chunks: one that counts twice changes nothing."""
    found = blocks(row.src, score_lines(row.kernel), Holds.SCORE, "its operand")
    return (Peak(Holds.PEAK, _of(found, row), frozenset(one.place for one in found)),)


def _of(found: Sequence[Any], row: RowOperands) -> Attending:
    """What all of these are of."""
    need(len(found) > 0, "its operand has no lines")
    for one in found:
        need(one.of == found[0].of, "its operands are of several attentions or heads")
    need(found[0].of.kernel == row.index, "its operand is of another attention")
    return found[0].of


def _exp(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Weights against the largest score of all chunks, which makes them those of the whole context."""
    k: AttentionKernel = row.kernel
    size = score_lines(k)
    (score,) = blocks(row.src, size, Holds.SCORE, "its scores")
    of_kind(row.src2, Holds.PEAK, "its maxima")
    of = _of([score, *row.src2], row)
    over = frozenset[Place]().union(*(one.places for one in row.src2))
    need(over == frozenset(_every(k)), f"its maxima are over {len(over)} of {k.chunks} chunks")
    weights = tuple(Chunk(Holds.WEIGHT, of, score.place, i) for i in range(size))
    return (*weights, Total(Holds.SUM, of, (score.place,)))


def _pv(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Weights of a chunk times the values of the same chunk, head and stripe."""
    k: AttentionKernel = row.kernel
    (weight,) = blocks(row.src, score_lines(k), Holds.WEIGHT, "its weights")
    of, region = _of([weight], row), _region(row)
    need(
        (region.keys, region.head) == (of.keys, of.head),
        f"weights of KV head {of.head} of {known.show(of.keys)} meet head {region.head} "
        f"of {known.show(region.keys)}",
    )
    here = (region.stripe, row.n)
    need(here == weight.place, f"weights of stripe and chunk {weight.place} meet values of {here}")
    return tuple(Weighted(Holds.PART, of, region.values, (here,), i) for i in range(part_lines(k)))


def _chunks(row: RowOperands) -> tuple[Weighted, tuple[Place, ...]]:
    """Partials and sums of the same chunks, added up: the first partial, and what was added."""
    parts = blocks(row.src, part_lines(row.kernel), Holds.PART, "its partials")
    of_kind(row.src2, Holds.SUM, "its sums")
    _of([*parts, *row.src2], row)
    for one in parts:
        need(one.values == parts[0].values, "its partials are of several values")
    places = tuple(sorted(place for one in parts for place in one.places))
    sums = tuple(sorted(place for one in row.src2 for place in one.places))
    need(places == sums, "its sums are of other chunks than its partials")
    return parts[0], places


def _whole(known: Known, row: RowOperands, first: Weighted, places: tuple[Place, ...]) -> tuple[Any, ...]:
    """The heads, where every chunk was added once."""
    k: AttentionKernel = row.kernel
    need(list(places) == _every(k), f"adds {len(places)} chunks, not each of {k.chunks} once")
    of = first.of
    value = known.terms.attention(of.queries, of.keys, first.values, k.head_dim, k.frac, k.kv)
    lanes = known.lanes.of_heads(of.heads, k.head_dim)
    return tuple(Vector(Holds.F16, value, one) for one in known.lanes.pieces((lanes,), F16_LANES))


def _aout(known: Known, row: RowOperands) -> tuple[Any, ...]:
    return _whole(known, row, *_chunks(row))


def _asum(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Partials and their sums, still to be divided."""
    first, places = _chunks(row)
    lines = range(merged_lines(row.kernel))
    return tuple(Weighted(Holds.MERGED, first.of, first.values, places, i) for i in lines)


def _aend(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """The stripes added up."""
    parts = blocks(row.src, merged_lines(row.kernel), Holds.MERGED, "its operand")
    _of(parts, row)
    for one in parts:
        need(one.values == parts[0].values, "its partials are of several values")
    return _whole(known, row, parts[0], tuple(sorted(place for one in parts for place in one.places)))


PROOF = (
    Proved(op=Op.KVW, rule=_kvw),
    Proved(op=Op.QK, rule=_qk),
    Proved(op=Op.SMAX, rule=_smax),
    Proved(op=Op.EXP, rule=_exp),
    Proved(op=Op.PV, rule=_pv),
    Proved(op=Op.AOUT, rule=_aout),
    Proved(op=Op.ASUM, rule=_asum),
    Proved(op=Op.AEND, rule=_aend),
)
