"""Attention: KV appended, scores, maxima, weights; the tree of blocks vanishes where it is whole."""

from itertools import pairwise
from typing import Any

from compiler.program.instructions.attention import (
    AttentionKernel,
    LatentAttentionKernel,
    block_number,
    dealt_number,
    is_ring,
    kv_words,
    node_lines,
    ring_blocks,
    score_lines,
    weight_lines,
)
from compiler.program.instructions.fetched import fetched_lines
from compiler.program.isa import F16_LANES, F32_LANES, GAIN, Holds, Op
from lpu.prove.known import Known
from lpu.prove.lines import KV_HEAD, Attending, Blocks, Chunk, Fetched, KVHead, Peak, Vector
from lpu.prove.ops.taken import blocks, of_kind, of_tensor, vectors
from lpu.prove.refused import need
from lpu.prove.rule import Proved, RowOperands
from lpu.prove.terms import Scoring

LARGEST_BLOCK = 1 << 13  # tokens: beyond it weights have fewer than 20 bits
_QUERIES = "queries"  # a term: both parts of the queries of latent attention
MOST_HEADS = F32_LANES  # of a group: a line of maxima has a lane per head


def _fits(known: Known, k: AttentionKernel) -> None:
    """The numbers of a kernel: of the program's rows and cache, and enough blocks for the whole context."""
    manifest = known.manifest
    rows = (k.rows, k.cached, k.sequences * manifest.chunk)
    need(
        rows == (manifest.rows, manifest.sequences, manifest.rows),
        f"its kernel has rows, cached sequences and rows of the step {rows}, the program "
        f"{(manifest.rows, manifest.sequences, manifest.rows)}",
    )
    words = kv_words(k.head_dim, k.kv, k.key_lanes)
    need(k.kv_words == words, f"its kernel says {k.kv_words} words of a token, K and V take {words}")
    need(k.kv_stride == k.capacity * words, f"its kernel has stride {k.kv_stride}, not {k.capacity * words}")
    need(k.kv == manifest.model.kv, f"its kernel has KV in {k.kv}, the model in {manifest.model.kv}")
    need(k.group <= MOST_HEADS, f"a group of {k.group} heads, the most are {MOST_HEADS}")
    need(not (k.whole and k.reach), f"sees whole sequences, and {k.reach} tokens")
    need(k.block <= LARGEST_BLOCK, f"blocks of {k.block} tokens, the most are {LARGEST_BLOCK}")
    need(
        k.chunk == k.block or (k.chunk < k.block and k.chunks == 1),
        f"rows take {k.chunk} tokens of {k.chunks} blocks of {k.block}",
    )
    need(k.stripes == 1 or k.run % k.block == 0, f"runs of {k.run} tokens are no whole blocks of {k.block}")
    room = k.chunk * (k.chunks - k.early)
    if is_ring(k, known.context):
        _ring_holds(known, k)
        return
    _early_holds(known, k)
    turns = -(-room // (k.run * k.stripes)) * k.run if k.stripes > 1 else room
    need(k.capacity >= turns, f"regions of {k.capacity} tokens do not hold {turns}")


def _early_holds(known: Known, k: AttentionKernel) -> None:
    """Early blocks: dealt evenly, all there, and none that a step of this bucket could append to."""
    before = max((one for one in known.manifest.contexts if one < known.context), default=0)
    need(not k.early or k.rows == k.cached, f"copies of {k.cached} sequences in lines of {k.rows} words")
    need(
        k.early * k.block <= before,
        f"{k.early * k.block} early tokens, steps of this bucket begin at {before}",
    )
    turn = k.run // k.block * k.stripes if k.stripes > 1 else 1
    need(k.early % turn == 0, f"{k.early} early blocks, dealt {turn} at a time")
    each = k.early // k.stripes * k.block
    need(k.reservoir >= each, f"DDR5 keeps {k.reservoir} tokens of a region, early ones are {each}")


def _ring_holds(known: Known, k: AttentionKernel) -> None:
    """A ring: whole blocks, all read, so many that what is seen is there and alone in its blocks.

    Token t lies at t modulo the capacity. Of the last `reach` tokens before any of the `rows` that a step
    appends, and these, no two lie at one place or with one of another turn in a block, wherever they begin.
    """
    rows = max(known.manifest.chunk, known.manifest.prefill)
    need(k.reach > 0, f"{k.chunks} blocks of {k.chunk} tokens do not hold {known.context}")
    need(k.chunk == k.block, f"a ring of blocks of {k.block} tokens, rows take {k.chunk}")
    need(k.stripes == 1, f"a ring in {k.stripes} stripes")
    need(k.capacity == k.block * k.chunks, f"rows read {k.block * k.chunks} tokens of a ring of {k.capacity}")
    least = k.block * ring_blocks(k.reach, k.block, rows)
    need(k.capacity >= least, f"a ring of {k.capacity} tokens, to see {k.reach} it takes {least}")


def _kvw(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """One head of K and the same one of V; the place of a token follows from its position and the stripe."""
    k: AttentionKernel = row.kernel
    _fits(known, k)
    keys, k_lanes = vectors(known, row.src, Holds.F16, "K")
    values, v_lanes = vectors(known, row.src2, Holds.F16, "V")
    (head,) = known.lanes.heads(k_lanes, 1, k.key_lanes)
    (other,) = known.lanes.heads(v_lanes, 1, k.head_dim)
    need(head == other, f"appends K of head {head} and V of head {other}")
    wide = (known.terms.width(keys), known.terms.width(values))
    if isinstance(k, LatentAttentionKernel):
        forms = {"window": k.window, "span": k.span, "scale": k.scale, "cap": k.cap, "sinks": k.sinks}
        forms["whole"] = k.whole
        said = ", ".join(f"{name} {value}" for name, value in forms.items() if value)
        need(not said, f"latent attention of {said}, it has no such thing")
        need(wide == (k.turned, k.head_dim), f"a turned key and a latent have {wide[0]} and {wide[1]} lanes")
    else:
        need(wide[0] == wide[1], f"K has {wide[0]} lanes, V {wide[1]}")
    stripe = max(row.src3, 0)
    need(
        stripe < k.stripes and row.src3 >= (-1 if k.stripes == 1 else 0), f"stripe {row.src3} of {k.stripes}"
    )
    return (KVHead(KV_HEAD, keys, values, head, stripe, row.index),)


def _region(row: RowOperands) -> tuple[KVHead, int]:
    """The region that a row reads, and which block of the context it takes of it."""
    need(row.region is not None, "reads no KV region")
    assert row.region is not None
    need(row.region.kernel == row.index, "reads KV of another attention")
    block = block_number(row.kernel, row.region.stripe, row.n)
    need(block < row.kernel.chunks, f"block {block} of {row.kernel.chunks}")
    return row.region, block


def _fetch(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """A copy of a block that DDR5 keeps of a region: what steps before this one appended there."""
    need(row.region is not None, "reads no KV region")
    assert row.region is not None
    need(row.region.kernel == row.index, "reads KV of another attention")
    block = dealt_number(row.kernel, row.region.stripe, row.n)
    need(block < row.kernel.early, f"block {block} of {row.kernel.early} early ones")
    lines = range(fetched_lines(row.kernel))
    return tuple(Fetched(Holds.FETCHED, row.region, block, i) for i in lines)


def _taken(row: RowOperands) -> tuple[KVHead, int]:
    """The region and the block that a row reads, of SRAM or a copy, whose number it says itself."""
    if row.kernel.early == 0 or row.region is not None:
        return _region(row)
    found = blocks(row.src2, Fetched, fetched_lines(row.kernel), Holds.FETCHED, "its copy")
    need(len(found) == 1, f"its copy is {len(found)} blocks, not 1")
    region, block = found[0].region, found[0].block
    need(region.kernel == row.index, "its copy is of another attention")
    stated = dealt_number(row.kernel, region.stripe, row.n)
    need(block == stated, f"its copy is of block {block}, it is about block {stated}")
    return region, block


def _qk(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Query heads against one block of one KV head."""
    k: AttentionKernel = row.kernel
    if isinstance(k, LatentAttentionKernel):
        return _latent_qk(known, row, k)
    queries, lanes = vectors(known, row.src, Holds.F16, "the queries")
    heads = known.lanes.heads(lanes, k.group, k.head_dim)
    region, block = _taken(row)
    wide, of_kv = known.terms.width(queries), known.terms.width(region.keys)
    need(wide % of_kv == 0, f"{wide} lanes of queries are no groups of {of_kv} lanes of keys")
    group = wide // of_kv
    need(
        all(head // group == region.head for head in heads),
        f"query heads {heads} attend to KV head {region.head}",
    )
    of = Attending(queries, heads, region.keys, region.head, row.index)
    return tuple(Chunk(Holds.SCORE, of, block, i) for i in range(score_lines(k)))


def _latent_qk(known: Known, row: RowOperands, k: LatentAttentionKernel) -> tuple[Any, ...]:
    """Both parts of the same heads of queries against one block of latents and turned keys."""
    latent, turned = row.src[: k.head_lines], row.src[k.head_lines :]
    of_latent, lanes = vectors(known, latent, Holds.F16, "the queries of latents")
    of_turned, others = vectors(known, turned, Holds.F16, "the turned queries")
    heads = known.lanes.apart(lanes, k.group, k.head_dim)
    same = known.lanes.apart(others, k.group, k.turned)
    need(heads == same, f"query heads {heads} stand beside turned lanes of heads {same}")
    wide = known.terms.width(of_latent), known.terms.width(of_turned)
    need(
        wide[0] % k.head_dim == 0 and wide[0] // k.head_dim * k.turned == wide[1],
        f"{wide[0]} and {wide[1]} lanes of queries are no heads of {k.head_dim} and {k.turned}",
    )
    region, block = _region(row)
    queries = known.terms.make(_QUERIES, (of_latent, of_turned), (), (sum(wide),))
    of = Attending(queries, heads, region.keys, region.head, row.index)
    return tuple(Chunk(Holds.SCORE, of, block, i) for i in range(score_lines(k)))


def _smax(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """The largest scores of one block."""
    score = _scores(row)
    return (Peak(Holds.PEAK, score.of, score.block),)


def _scores(row: RowOperands) -> Chunk:
    """The one block of scores that a row takes."""
    found = blocks(row.src, Chunk, score_lines(row.kernel), Holds.SCORE, "its operand")
    need(len(found) == 1, f"its operand is {len(found)} blocks of scores, not 1")
    need(found[0].of.kernel == row.index, "its operand is of another attention")
    return found[0]


def _exp(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Weights against the largest score of the same block and heads."""
    score = _scores(row)
    of_kind(row.src2, Holds.PEAK, "its maxima")
    need(len(row.src2) == 1, f"its maxima are {len(row.src2)} lines, not 1")
    peak: Peak = row.src2[0]
    need(peak.of == score.of, "its operands are of several attentions or heads")
    need(peak.block == score.block, f"its maxima are of block {peak.block}, its scores of {score.block}")
    return tuple(Chunk(Holds.WEIGHT, score.of, score.block, i) for i in range(weight_lines(row.kernel)))


def _pv(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Weights of a block times the values of the same block and head."""
    k: AttentionKernel = row.kernel
    found = blocks(row.src, Chunk, weight_lines(k), Holds.WEIGHT, "its weights")
    need(len(found) == 1, f"its weights are of {len(found)} blocks, not 1")
    weight, of = found[0], found[0].of
    need(of.kernel == row.index, "its operand is of another attention")
    region, block = _taken(row)
    need(
        (region.keys, region.head) == (of.keys, of.head),
        f"weights of KV head {of.head} of {known.show(of.keys)} meet head {region.head} "
        f"of {known.show(region.keys)}",
    )
    need(block == weight.block, f"weights of block {weight.block} meet values of block {block}")
    return tuple(Blocks(Holds.BLOCKS, of, region.values, block, block + 1, i) for i in range(node_lines(k)))


def _merged(row: RowOperands) -> Blocks:
    """The first line of the node that neighbouring nodes make up.

    The contract's tree takes nodes in pairs by their place in the context: nodes of one size, the first of
    them at a multiple of all of them together, filled up to a power of two. Only at the end of the context
    nodes may be missing, or the last one be smaller, for a lone node moves up as it is.
    """
    k: AttentionKernel = row.kernel
    found = blocks(row.src, Blocks, node_lines(k), Holds.BLOCKS, "its operand")
    first, last = found[0], found[-1]
    need(first.of.kernel == row.index, "its operand is of another attention")
    for one, after in pairwise(found):
        need(after.of == one.of, "its operands are of several attentions or heads")
        need(after.values == one.values, "its nodes are of several values")
        need(after.first == one.stop, f"a node from block {after.first} on beside one up to {one.stop - 1}")
    size = first.stop - first.first
    ends = last.stop == k.chunks
    if len(found) == 1:
        return first
    for one in found[:-1]:
        need(one.stop - one.first == size, f"nodes of {size} and {one.stop - one.first} blocks")
    rest = last.stop - last.first
    need(rest == size or (rest < size and ends), f"nodes of {size} and {rest} blocks")
    whole = size << (len(found) - 1).bit_length()
    need(
        size & (size - 1) == 0 and first.first % whole == 0,
        f"{len(found)} nodes of {size} blocks from block {first.first} on are no node of the tree",
    )
    need(
        len(found) & (len(found) - 1) == 0 or ends,
        f"{len(found)} nodes before the end of the context are no node of the tree",
    )
    return first._replace(stop=last.stop)


def _node(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Nodes merged; of a ring none: AOUT alone takes them, in the order of the context."""
    need(not is_ring(row.kernel, known.context), "merges blocks of a ring")
    made = _merged(row)
    return tuple(made._replace(line=i) for i in range(node_lines(row.kernel)))


def _aout(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """The heads, where the nodes are the whole context."""
    k: AttentionKernel = row.kernel
    made = _merged(row)
    need(
        (made.first, made.stop) == (0, k.chunks),
        f"divides blocks {made.first} .. {made.stop - 1} of {k.chunks}",
    )
    of = made.of
    if isinstance(k, LatentAttentionKernel):
        latent, turned = known.terms.all[of.queries].operands
        value = known.terms.latent_attention((latent, turned), of.keys, made.values, k.sigma, k.block, k.kv)
        lines = [known.lanes.of_heads((head,), k.head_dim) for head in of.heads]
        return tuple(
            Vector(Holds.F16, value, one)
            for lanes in lines
            for one in known.lanes.pieces((lanes,), F16_LANES)
        )
    form = Scoring(window=k.window, span=k.span, scale=k.scale, cap=k.cap, whole=k.whole)
    form = form._replace(sinks=_sinks(known, row, of.heads)) if k.sinks else form
    value = known.terms.attention(of.queries, of.keys, made.values, k.head_dim, k.block, k.kv, form)
    lanes = known.lanes.of_heads(of.heads, k.head_dim)
    return tuple(Vector(Holds.F16, value, one) for one in known.lanes.pieces((lanes,), F16_LANES))


def _sinks(known: Known, row: RowOperands, heads: tuple[int, ...]) -> int:
    """The tensor of the sinks, which must be those of these heads."""
    tensor, (lanes,) = of_tensor(known, row.preloads, GAIN, 1)
    found = known.lanes.all[lanes]
    need(
        found[: len(heads)].tolist() == list(heads) and bool((found[len(heads) :] < 0).all()),
        f"its sinks are of heads {found[found >= 0].tolist()}, not of {list(heads)}",
    )
    return tensor


PROOF = (
    Proved(op=Op.KVW, rule=_kvw),
    Proved(op=Op.QK, rule=_qk),
    Proved(op=Op.FETCH, rule=_fetch),
    Proved(op=Op.QKF, rule=_qk),
    Proved(op=Op.PVF, rule=_pv),
    Proved(op=Op.SMAX, rule=_smax),
    Proved(op=Op.EXP, rule=_exp),
    Proved(op=Op.PV, rule=_pv),
    Proved(op=Op.NODE, rule=_node),
    Proved(op=Op.AOUT, rule=_aout),
)
