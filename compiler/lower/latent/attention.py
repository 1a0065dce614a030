"""Lowering of latent attention: heads over ranks, the latent KV copied to each rank that has heads.

Copies, as splitting the context instead would send wide partial results of all heads to every rank.
"""

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.holders import kv_regions, needed, order
from compiler.lower.kv_blocks import chunk_of
from compiler.lower.layout import Lines, Segments
from compiler.lower.ops.attention import Heads, ahead_of, context_nodes
from compiler.lower.rows import tag
from compiler.lower.rule import LoweringRule, Uses
from compiler.program.instructions.attention import LatentAttentionKernel, kv_words, node_lines
from compiler.program.isa import F16_LANES, Op, ceil_div
from compiler.timing import timing

Q_LATENT, Q_TURNED, K_TURNED, LATENT, K_CACHE, V_CACHE = range(6)


def lower_latent_attention(low: Lowering, node: Node) -> None:
    """KVW rows of every copy, the blocks of the context of each rank's heads, and the heads' results."""
    if low.resident:
        raise CompileError(
            "lower",
            f"{node.path}: {node.op}",
            f"--spill {low.resident}: latents are kept whole in SRAM, none is fetched",
            "Leave --spill out.",
        )
    if low.deal.chips > 1:
        raise CompileError(
            "lower",
            f"{node.path}: {node.op}",
            f"its context is dealt over {low.deal.chips} ranks, but each rank with heads keeps all latents",
            "Leave --cp out, or give --cp 1.",
        )
    q, first = _queries(low, node)
    owner = np.unique(q.owner[first])
    owner = np.repeat(owner, _runs(low, node, len(first) // len(owner)))
    kernel = _kernel(low, node, len(first) // len(owner))
    heads = _append(low, node, kernel, owner, q.tag(first[:: kernel.group]))
    nodes = context_nodes(low, heads)
    out, segments = _results(low, owner, kernel)
    low.rows.add(
        Op.AOUT,
        rank=owner,
        n=nodes.lines // node_lines(kernel) // len(owner),
        aux=heads.aux,
        src_tag=nodes.tag(nodes.first[:: len(nodes.first) // len(owner)]),
        dst_tag=out.tag(segments.first[:: kernel.group]),
    )
    low.where[View(value=node.outputs[0], start=0, width=segments.total)] = (out, segments)


def _queries(low: Lowering, node: Node) -> tuple[Lines, np.ndarray]:
    """Both parts of all queries as one value, and the first line of each head's part that meets latents."""
    (q, heads), (turned, _) = (low.segments(node.inputs[one], node) for one in (Q_LATENT, Q_TURNED))
    if low.joints.get(node.index) is not q or turned is not q:
        raise CompileError(
            "lower",
            f"{node.path}: {node.op} ({node.source})",
            "its queries are read by others too, or were not laid out head by head",
            "Give it what round16, rope or a norm per head returns, and nobody else.",
        )
    return q, heads.first


def _kernel(low: Lowering, node: Node, group: int) -> LatentAttentionKernel:
    values, block = low.graph.values, int(node.attributes["block"])
    cache = values[node.inputs[V_CACHE].value]
    latent, turned = cache.shape[3], values[node.inputs[K_CACHE].value].shape[3]
    kv = "fp16" if cache.dtype == "float16" else "fp8"
    words = kv_words(latent, kv, turned)
    return LatentAttentionKernel(
        head_dim=latent,
        turned=turned,
        sigma=float(node.attributes["sigma"]),
        group=group,
        block=block,
        chunk=chunk_of(low.context, block),
        chunks=int(ceil_div(low.context, block)),
        kv=kv,
        kv_words=words,
        kv_stride=low.capacity * words,
        capacity=low.capacity,
        rows=low.batch,
        sequences=cache.shape[0],
        cached=low.cached,
        run=low.run,
    )


def _runs(low: Lowering, node: Node, heads: int) -> int:
    """Into how many runs the heads of a rank are cut, whose rows take different chains.

    As many as do not keep planes longer, as all install the same keys; at most one for each chain.
    """

    def planes(runs: int) -> int:
        kernel = _kernel(low, node, heads // runs)
        return runs * sum(int(timing(op, 1, kernel, low.chip, low.batch)[0]) for op in (Op.QK, Op.PV))

    able = [runs for runs in range(1, min(heads, low.chip.vxm_chains) + 1) if heads % runs == 0]
    return max(runs for runs in able if planes(runs) <= planes(1))


def _append(
    low: Lowering, node: Node, kernel: LatentAttentionKernel, run: np.ndarray, query: np.ndarray
) -> Heads:
    """The step's latents and turned keys to every rank that has heads, and its row that appends them.

    run: the rank of each run of heads.
    """
    owner, place = np.unique(run, return_inverse=True)
    (k, keys), (v, values) = (low.segments(node.inputs[one], node) for one in (K_TURNED, LATENT))
    for value, segments in ((k, keys), (v, values)):
        copies = np.repeat(segments.first, len(owner))
        low.gather(value, needed(low, value, copies, segments.lines, owner))
    region = kv_regions(low, owner, low.cached * kernel.kv_stride)
    region_tag = tag(low.weight_uid(), np.arange(len(owner)))
    aux = low.kernels.index(kernel)
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
    queues, places = order(low.deal, kernel)
    return Heads(
        aux=aux,
        kernel=kernel,
        owner=run,
        holder=run,
        region=region[place],
        region_tag=region_tag[place],
        append=append[place],
        query=query,
        order=queues,
        place=places,
        ahead=ahead_of(low, kernel),
    )


def _results(low: Lowering, owner: np.ndarray, kernel: LatentAttentionKernel) -> tuple[Lines, Segments]:
    """The result: each head's lanes on lines of its own, on the rank that has the head."""
    lines, width, count = (
        int(ceil_div(kernel.head_dim, F16_LANES)),
        kernel.head_dim,
        len(owner) * kernel.group,
    )
    columns = np.full((count, lines * F16_LANES), -1)
    columns[:, :width] = np.arange(count * width).reshape(count, width)
    first = np.arange(count) * lines
    out = low.value(
        "f16",
        np.repeat(owner, kernel.head_lines),
        columns.reshape(-1),
        first=first[:: kernel.group],
        count=np.full(len(owner), kernel.head_lines),
    )
    return out, Segments(start=0, total=count * width, width=width, first=first, lines=lines)


def _wants(uses: Uses, node: Node, operand: int) -> int | None:
    """Both parts of the queries head by head; the latent, and the turned key, whole."""
    if operand > LATENT:
        return None
    latent, turned = (uses.graph.values[node.inputs[one].value].shape[3] for one in (V_CACHE, K_CACHE))
    return latent if operand in (Q_LATENT, LATENT) else turned


RULE = LoweringRule(
    op="latent_attention",
    lower=lower_latent_attention,
    wants=_wants,
    by_head=True,
    even=True,
    joined=(Q_LATENT, Q_TURNED),
    runs=_runs,
    copied=(K_TURNED, LATENT),
)
