"""Lowering of attention: KV append, then scores, weights and values block by block, and the tree of blocks.

The rows of one block follow one another, so that its node is made before much of the next ones is begun,
and no more blocks are begun than keep the VXM busy, which bounds the scores and weights that live.
"""

import numpy as np

from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.holders import Heads, holders, kv_regions, needed, order
from compiler.lower.kv_blocks import attention_shape, chunk_of, early_section, ring_tokens
from compiler.lower.layout import WHOLE, Lines, Segments
from compiler.lower.merging import Level, levels, node_size
from compiler.lower.ops.fetched import fetch, release
from compiler.lower.ops.sinks import SINK, sinks_of
from compiler.lower.rows import tag
from compiler.lower.rule import LoweringRule, Uses
from compiler.program.instructions.attention import (
    AttentionKernel,
    is_ring,
    kv_words,
    node_lines,
    score_lines,
    weight_lines,
)
from compiler.program.isa import F16_LANES, Op, ceil_div
from compiler.timing import timing
from models.contract.vocabulary.attention import reach as node_reach

VALUES = 5  # that a block takes at most: scores, maxima, weights, and of nodes one or two; a copy if fetched


def lower_attention(low: Lowering, node: Node) -> None:
    """Lower attention over the KV cache of one context bucket.

    Each KV head belongs to a rank; its context lies there, or is dealt over several (context parallel), of
    the group or beside it, which make the nodes of their own runs of blocks for the head's owner.
    """
    kv_heads, head_dim = attention_shape(low.graph, node)
    group = node.inputs[0].width // head_dim // kv_heads
    q, queries = low.segments(node.inputs[0], node)
    heads = _append(low, node, group, q.owner[queries.first], q.tag(queries.first))
    if heads.kernel.stripes > 1:
        low.gather(q, needed(low, q, queries.first, queries.lines, heads.readers))
    nodes = context_nodes(low, heads)
    out, segments = result_lines(low, heads.owner, group * head_dim)
    sinks = {} if len(node.inputs) == SINK else sinks_of(low, node, group, heads.owner)
    low.rows.add(
        Op.AOUT,
        **sinks,
        rank=heads.owner,
        n=nodes.lines // node_lines(heads.kernel) // kv_heads,
        aux=heads.aux,
        src_tag=nodes.tag(nodes.first[:: len(nodes.first) // kv_heads]),
        dst_tag=out.tag(segments.first),
    )
    view = View(value=node.outputs[0], start=0, width=kv_heads * group * head_dim)
    low.where[view] = (out, segments)


def context_nodes(low: Lowering, heads: Heads) -> Lines:
    """The nodes that AOUT merges, of every KV head, and all rows that make them; of a ring its blocks."""
    ring = is_ring(heads.kernel, low.context)
    sizes = [] if ring else levels(heads.kernel, low.chip, low.batch)
    end = low.uids + (VALUES + (low.resident > 0)) * (int(ceil_div(low.longest, heads.kernel.block)) + 1)
    nodes = _level(low, heads, sizes, len(sizes), 0)
    assert low.uids <= end, "more values than the longest context is given"
    low.uids = end  # what follows has the same tags in every bucket, as what is preloaded has
    return nodes


def result_lines(low: Lowering, owner: np.ndarray, width: int) -> tuple[Lines, Segments]:
    """The result of attention: of each KV head, on the rank that owns it, `width` columns in whole lines."""
    lines, count = int(ceil_div(width, F16_LANES)), len(owner)
    columns = np.full((count, lines * F16_LANES), -1)
    columns[:, :width] = np.arange(count * width).reshape(count, -1)
    first, size = np.arange(count) * lines, np.full(count, lines)
    out = low.value("f16", np.repeat(owner, lines), columns.reshape(-1), first=first, count=size)
    return out, Segments(start=0, total=count * width, width=width, first=first, lines=lines)


def _level(low: Lowering, heads: Heads, fans: list[Level], level: int, index: int) -> Lines:
    """The value that holds the nodes below node `index` of a level, where they are merged; all rows for them.

    Level 0 has blocks; the last level's one node is the whole context.
    """
    blocks, lines = heads.kernel.chunks, node_lines(heads.kernel)
    whole = node_size(fans)
    size, fan = fans[level] if level < len(fans) else (whole, int(ceil_div(blocks, whole)))
    first = index * fan
    count = min(fan, int(ceil_div(blocks, size)) - first)
    local = heads.kernel.stripes == 1 or size < heads.run
    ranks = [heads.rank((first + i) * size) if size <= heads.run else heads.owner for i in range(count)]
    out = heads.value(low, "stat", lines, ranks)
    for i in range(count):
        made = out.tag(out.first[i::count])
        if level == 0:
            _block(low, heads, first + i, made)
            continue
        below = _level(low, heads, fans, level - 1, first + i)
        low.rows.add(
            Op.NODE,
            rank=ranks[i],
            n=len(below.first) // len(heads.owner),
            aux=heads.aux,
            src_tag=below.tag(below.first[:: len(below.first) // len(heads.owner)]),
            dst_tag=made,
        )
    if not local and size <= heads.run:
        need = np.zeros((low.group.ranks, out.lines), bool)
        need[np.repeat(heads.owner, count * lines), np.arange(out.lines)] = True
        low.gather(out, need)
    return out


def _block(low: Lowering, heads: Heads, block: int, made: np.ndarray) -> None:
    """The rows that make the node of one block of every head, after the scores of some blocks behind it.

    A chain takes the earliest of the rows that are ready, so maxima come before the weights that would keep
    all chains while the next weights wait for them.
    """
    for later in range(len(heads.scored), min(block + heads.ahead // 2, heads.kernel.chunks - 1) + 1):
        heads.scored.append(_scores(low, heads, later))
    kernel, (scores, peaks) = heads.kernel, heads.scored[block]
    same = {"rank": heads.rank(block), "aux": heads.aux}
    weights = heads.value(low, "f32", weight_lines(kernel), [heads.rank(block)])
    _pass_on(low, heads, block, scores, peaks, weights)
    heads.weighed[block] = low.rows.add(
        Op.EXP,
        n=1,
        src_tag=scores.tag(scores.first),
        src2_tag=peaks.tag(peaks.first),
        dst_tag=weights.tag(weights.first),
        **same,
    )
    early = block in heads.fetched
    read = low.rows.add(
        Op.PVF if early else Op.PV,
        src_tag=weights.tag(weights.first),
        dst_tag=made,
        **heads.find(low, block),
        **same,
    )
    if early:
        release(low, heads, block, read)
    else:
        low.rows.edge(heads.append[heads.regions(block)], read)


def _pass_on(low: Lowering, heads: Heads, block: int, *values: Lines) -> None:
    """Values of a block that takes the room of one twice as many blocks before as are worked on at a time."""
    if heads.before(block, 2 * heads.ahead) >= 0:
        low.passing.update(value.uid for value in values)


def _scores(low: Lowering, heads: Heads, block: int) -> tuple[Lines, Lines]:
    """The scores of one block of every head and their maxima."""
    same = {"rank": heads.rank(block), "aux": heads.aux}
    scores = heads.value(low, "f32", score_lines(heads.kernel), [heads.rank(block)])
    early = block < heads.kernel.early
    if early:
        fetch(low, heads, block)
    read = low.rows.add(
        Op.QKF if early else Op.QK,
        src_tag=heads.query,
        dst_tag=scores.tag(scores.first),
        **heads.find(low, block),
        **same,
    )
    if not early:
        low.rows.edge(heads.append[heads.regions(block)], read)
    if (earlier := heads.before(block, heads.ahead)) in heads.weighed:
        low.rows.edge(heads.weighed[earlier], read)
    peaks = heads.value(low, "stat", 1, [heads.rank(block)])
    low.rows.add(Op.SMAX, n=1, src_tag=scores.tag(scores.first), dst_tag=peaks.tag(peaks.first), **same)
    return scores, peaks


def _append(low: Lowering, node: Node, group: int, owner: np.ndarray, query: np.ndarray) -> Heads:
    """KVW rows of the step's K and V, and the bookkeeping of heads and stripes."""
    (k, keys), (v, values) = low.segments(node.inputs[1], node), low.segments(node.inputs[2], node)
    kv_heads, head_dim = attention_shape(low.graph, node)
    kv = "fp16" if low.graph.values[node.inputs[3].value].dtype == "float16" else "fp8"
    block, words = int(node.attributes["block"]), kv_words(head_dim, kv)
    reach = node_reach(node.attributes)
    ringed = 0 < reach < low.longest
    capacity = ring_tokens(reach, block, low.appended, low.longest) if ringed else low.capacity
    blocks, deal = int(ceil_div(low.context, block)), WHOLE if ringed else low.deal
    early = {} if ringed else early_section(low, block)
    kernel = AttentionKernel(
        head_dim=head_dim,
        group=group,
        block=block,
        chunk=chunk_of(low.context, block),
        chunks=min(blocks, max(capacity // block, 1)) if ringed else blocks,
        kv=kv,
        kv_words=words,
        kv_stride=capacity * words,
        capacity=capacity,
        rows=low.batch,
        sequences=low.graph.values[node.inputs[3].value].shape[0],
        cached=low.cached,
        stripes=deal.stripes,
        run=block if ringed else low.run,
        window=int(node.attributes.get("window", 0)),
        span=int(node.attributes.get("span", 0)),
        scale=float(node.attributes.get("scale", 0.0)),
        cap=float(node.attributes.get("cap", 0.0)),
        sinks=len(node.inputs) > SINK,
        whole=bool(node.attributes.get("whole", False)),
        **early,
    )
    aux = low.kernels.index(kernel)
    holder = holders(low, owner, deal)
    region = kv_regions(low, holder, low.cached * capacity * words)
    region_tag = tag(low.weight_uid(), np.arange(len(holder)))
    stripes = deal.stripes
    stripe = np.tile(np.arange(stripes), kv_heads)
    part_head = np.repeat(np.arange(kv_heads), stripes)
    if stripes > 1:
        for value, segments in ((k, keys), (v, values)):
            low.gather(value, needed(low, value, segments.first, segments.lines, holder))
    append = low.rows.add(
        Op.KVW,
        rank=holder,
        n=1,
        aux=aux,
        src_tag=k.tag(keys.first[part_head]),
        src2_tag=v.tag(values.first[part_head]),
        src3=stripe if stripes > 1 else -1,
        dst=region,
        dst_tag=region_tag,
    )
    queues, place = order(deal, kernel)
    return Heads(
        aux=aux,
        kernel=kernel,
        owner=owner,
        holder=holder,
        region=region,
        region_tag=region_tag,
        append=append,
        query=query,
        order=queues,
        place=place,
        ahead=ahead_of(low, kernel),
    )


def ahead_of(low: Lowering, kernel: AttentionKernel) -> int:
    """Blocks to work on at a time: two for every chain, and what they take up while results are on their way.

    On its way from the weights of an earlier block to its own, a block waits for QK, SMAX and EXP to be
    through, and about as long for chains and planes.
    """
    times = {op: timing(op, 1, kernel, low.chip, low.batch) for op in (Op.QK, Op.SMAX, Op.EXP)}
    through = sum(int(latency - hold) for hold, latency in times.values())
    busy = int(times[Op.SMAX][0] + times[Op.EXP][0])
    return 2 * low.chip.vxm_chains + int(ceil_div(2 * through * low.chip.vxm_chains, busy))


def _wants(uses: Uses, node: Node, operand: int) -> int | None:
    """The query heads of one KV head together; K and V head by head."""
    if operand == SINK:
        return None
    heads, head_dim = attention_shape(uses.graph, node)
    return head_dim * (node.inputs[0].width // head_dim // heads) if operand == 0 else head_dim


RULE = LoweringRule(
    op="attention",
    lower=lower_attention,
    wants=_wants,
    by_head=True,
    kv_heads=lambda graph, node: attention_shape(graph, node)[0],
)
