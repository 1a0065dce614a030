"""Lowering of everything but matmul and attention: embedding, norms, RoPE, GLU, residual, argmax."""

from collections.abc import Callable, Mapping

import numpy as np

from compiler.errors import CompileError, UnsupportedOpError
from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.layout import LANES, Lines, Segments, is_head_norm, natural
from compiler.program.instructions.vector import (
    AddKernel,
    ArgmaxKernel,
    ArgredKernel,
    CastKernel,
    EmbedKernel,
    GluKernel,
    HeadNormKernel,
    NormKernel,
    RopeKernel,
    RstatKernel,
)
from compiler.program.isa import F16_LANES, F32_LANES, SHARED, SPACE_SHIFT, TABLE, WORD_BYTES, Op, ceil_div


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
            owner[line],
            vocab * stride,
            kind=TABLE,
            tensor=slot,
            k0=0,
            n0=line * F32_LANES,
            lines=n,
            tag=(uid << 40) | int(line),
        )
        low.rows.add(
            Op.EMBED,
            rank=owner[line],
            n=n,
            aux=low.kernels.index(EmbedKernel(vocab=vocab, stride=stride)),
            src=address,
            src_tag=(uid << 40) | int(line),
            dst_tag=value.tag(int(line)),
        )
    _natural_segments(low, out, value, total)


def _natural_segments(low: Lowering, out: int, value: Lines, total: int) -> None:
    segments = Segments(start=0, total=total, width=F32_LANES, first=np.arange(value.lines), lines=1)
    low.where[View(value=out, start=0, width=total)] = (value, segments)


def lower_rms_norm(low: Lowering, node: Node) -> None:
    """rms_norm over all features, on every rank that multiplies the result; or per head."""
    if is_head_norm(low.demands, node):
        _per_segment(low, node, Op.HNORM)
        return
    value, _ = low.lines(node.inputs[0], node)
    if value.dtype != "f32":
        raise CompileError(
            "lower", f"{node.path}: rms_norm", "its input is not f32", "Normalise the residual."
        )
    active = low.multipliers(node.outputs[0])
    ranks = np.flatnonzero(active)
    low.gather(value, np.repeat(active[:, None], value.lines, axis=1))
    width = node.inputs[0].width
    aux = low.kernels.index(RstatKernel(width=width, eps=node.attributes["eps"]))
    stat = low.value("stat", np.zeros(1, np.int64), first=np.zeros(1, np.int64), count=np.ones(1, np.int64))
    stat.held[: len(active), 0] = active
    low.rows.add(Op.RSTAT, rank=ranks, n=value.lines, aux=aux, src_tag=value.tag(0), dst_tag=stat.tag(0))
    lines = int(ceil_div(value.lines, 2))
    columns = np.full(lines * F16_LANES, -1)
    columns[: len(value.columns)] = value.columns
    first = np.arange(0, lines, 2)
    count = np.minimum(2, lines - first)
    out = low.value("f16", np.full(lines, -1), columns, first=first, count=count)
    need = low.group.needs(lines, active)
    out.held[: len(active)] = need
    rank, tile = np.nonzero(need[:, ::2])
    n = np.minimum(4, value.lines - 4 * tile)
    uid = low.weight_uid()
    starts = np.cumsum(n) - n
    line = np.repeat(4 * tile - starts, n) + np.arange(n.sum())
    gains = low.gain(node.inputs[1].value, value.columns, np.repeat(rank, n), line, uid)
    low.rows.add(
        Op.NORM,
        rank=rank,
        n=n,
        aux=low.kernels.index(NormKernel()),
        src_tag=value.tag(4 * tile),
        src2_tag=stat.tag(0),
        src3=gains[starts],
        src3_tag=(uid << 40) | (4 * tile),
        dst_tag=out.tag(2 * tile),
    )
    low.where[View(value=node.outputs[0], start=0, width=width)] = (out, None)


def _per_segment(low: Lowering, node: Node, op: Op) -> None:
    """HNORM, ROPE, CAST: one row per segment, fp16 result with the same segments."""
    view = node.inputs[0]
    value, segments = low.segments(view, node)
    lines = int(ceil_div(segments.width, F16_LANES))
    count = len(segments)
    owner = value.owner[segments.first]
    columns = np.full((count, lines * F16_LANES), -1)
    lanes = LANES[value.dtype]
    for i, line in enumerate(segments.first):
        columns[i, : segments.width] = (
            value.columns[line * lanes : line * lanes + segments.width] - view.start
        )
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
        "aux": low.kernels.index(HeadNormKernel(head_dim=head_dim, eps=node.attributes["eps"])),
        "src3": gains[::words][np.searchsorted(ranks, owner)],
        "src3_tag": uid << 40,
    }


def _rope(
    low: Lowering, node: Node, value: Lines, segments: Segments, owner: np.ndarray
) -> Mapping[str, object]:
    positions, _, half = low.graph.values[node.inputs[1].value].shape
    stride = int(ceil_div(4 * half, WORD_BYTES))
    low.angles.add(low.graph.values[node.inputs[1].value].name)
    aux = low.kernels.index(
        RopeKernel(
            head_dim=2 * half,
            input="f32" if value.dtype == "f32" else "f16",
            positions=positions,
            stride=stride,
        )
    )
    return {"n": segments.width // (2 * half), "aux": aux, "src2": SHARED_ANGLES}


def _cast(
    low: Lowering, node: Node, value: Lines, segments: Segments, owner: np.ndarray
) -> Mapping[str, object]:
    return {"n": segments.lines, "aux": low.kernels.index(CastKernel())}


SHARED_ANGLES = SHARED << SPACE_SHIFT  # the first word of the shared space: one RoPE table per chip
_SEGMENT_FIELDS: dict[Op, Callable[..., Mapping[str, object]]] = {
    Op.HNORM: _hnorm,
    Op.ROPE: _rope,
    Op.CAST: _cast,
}


def lower_rope(low: Lowering, node: Node) -> None:
    """Rope on each segment of heads."""
    _per_segment(low, node, Op.ROPE)


def lower_round16(low: Lowering, node: Node) -> None:
    """round16 on each segment."""
    _per_segment(low, node, Op.CAST)


def lower_glu(low: Lowering, node: Node) -> None:
    """glu: one row per strip of 160 columns, gate and up side by side on one rank."""
    (gate, gates), (up, ups) = (low.segments(view, node) for view in node.inputs)
    owner = gate.owner[gates.first]
    total = node.inputs[0].width
    columns = np.arange(len(gates) * F16_LANES)
    line = np.arange(len(gates))
    out = low.value(
        "f16", owner, np.where(columns < total, columns, -1), first=line, count=np.ones_like(line)
    )
    low.rows.add(
        Op.GLU,
        rank=owner,
        n=2,
        aux=low.kernels.index(GluKernel(activation=node.attributes["activation"])),
        src_tag=gate.tag(gates.first),
        src2_tag=up.tag(ups.first),
        dst_tag=out.tag(line),
    )
    low.where[View(value=node.outputs[0], start=0, width=total)] = (out, None)


def lower_add(low: Lowering, node: Node) -> None:
    """add: wherever the freshly computed operand lies; the residual is held there already or is sent."""
    if any(low.graph.values[view.value].dtype != "float32" for view in node.inputs):
        raise UnsupportedOpError(
            "lower",
            f"{node.path}: add ({node.source})",
            "one operand is float16, the chips add float32",
            "Leave the sum unrounded: float16 sums cross between GPUs and LPUs only.",
        )
    pairs = [low.segments(view, node) for view in node.inputs]
    if pairs[0][0].uid > pairs[1][0].uid:
        pairs.reverse()
    (old, old_segments), (new, segments) = pairs
    count = len(segments)
    total = node.inputs[0].width
    owner = new.owner[segments.first]
    held = new.held[: low.group.ranks, segments.first]
    need = np.zeros((low.group.ranks, old.lines), bool)
    need[:, old_segments.first] = held
    low.gather(old, need)
    steady = np.diff(segments.first, prepend=-9) == 1
    starts_row = np.isin(segments.first, new.first) | ~steady
    first = np.flatnonzero(starts_row)
    n = np.diff(np.append(first, count))
    _, columns = natural(total, low.group.ranks)
    out = low.value("f32", owner, columns, first=first, count=n)
    out.held[: low.group.ranks] = held
    row, rank = np.nonzero(held[:, first].T)
    low.rows.add(
        Op.ADD,
        rank=rank,
        n=n[row],
        aux=low.kernels.index(AddKernel()),
        src_tag=old.tag(old_segments.first[first[row]]),
        src2_tag=new.tag(segments.first[first[row]]),
        dst_tag=out.tag(first[row]),
    )
    _natural_segments(low, node.outputs[0], out, total)


def lower_argmax(low: Lowering, node: Node) -> None:
    """argmax: each rank over its own vocabulary lines, then the first rank over the ranks."""
    logits, _ = low.segments(node.inputs[0], node)
    owner = logits.owner
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    n = np.diff(np.append(first, logits.lines))
    line = np.arange(len(first))
    best = low.value("stat", owner[first], first=line, count=np.ones_like(line))
    low.rows.add(
        Op.ARGMAX,
        rank=owner[first],
        n=n,
        aux=low.kernels.index(ArgmaxKernel(vocab=node.inputs[0].width)),
        src_tag=logits.tag(first),
        src3=first,
        dst_tag=best.tag(line),
    )
    need = np.zeros((low.group.ranks, best.lines), bool)
    need[0] = True
    low.gather(best, need)
    zero, one = np.zeros(1, np.int64), np.ones(1, np.int64)
    token = low.value("stat", zero, first=zero, count=one)
    low.rows.add(
        Op.ARGRED,
        rank=0,
        n=best.lines,
        aux=low.kernels.index(ArgredKernel()),
        src_tag=best.tag(0),
        dst_tag=token.tag(0),
    )
    width = 1
    low.where[View(value=node.outputs[0], start=0, width=width)] = (token, None)
    low.keep += [logits.uid, token.uid]
