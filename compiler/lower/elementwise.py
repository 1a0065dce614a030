"""Lowering of element-wise ops: one row for each run of lines, or for each segment, of an operand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from compiler.errors import UnsupportedOpError
from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.latent.joint import joined
from compiler.lower.layout import LANES, NO_RANK, Lines, Segments, natural
from compiler.lower.rows import tag
from compiler.program.isa import F16_LANES, F32_LANES, Kernel, ceil_div
from compiler.program.ranges import ramp


def by_lines(
    low: Lowering,
    node: Node,
    op: int,
    kernel: Kernel,
    operands: Sequence[View] | None = None,
    beside: View | None = None,
    factors: int | None = None,
) -> None:
    """Rows that make f32 line i of the result of line i of one or two f32 operands, in `src` and `src2`.

    They run wherever the operand that was computed last lies, or the value `beside` if one is named; operands
    are held there or are sent. The rule of such an op says `wants=every(F32_LANES)` and, if its result may be
    handed on, `residual=True`. operands: those of the node in another order. factors: a parameter, a number
    for each lane, whose words are preloaded beside each row, in `src2`.
    """
    read = [low.segments(view, node) for view in operands or node.inputs]
    new, segments = max(read, key=lambda one: one[0].uid)
    if beside is not None:
        new, segments = low.segments(beside, node)
    ranks, count = low.group.ranks, len(segments)
    held = new.held[:ranks, segments.first]
    for value, cut in read:
        if value is not new:
            need = np.zeros((ranks, value.lines), bool)
            need[:, cut.first] = held
            low.gather(value, need)
    steady = np.all([np.diff(cut.first, prepend=-9) == 1 for _, cut in read], axis=0)
    first = np.flatnonzero(np.isin(segments.first, new.first) | ~steady)
    n = np.diff(np.append(first, count))
    total = node.inputs[0].width
    _, columns = natural(total, ranks)
    made = held if new.made is not None else None
    out = low.value("f32", new.owner[segments.first], columns, first=first, count=n, made=made)
    out.held[:ranks] = held
    row, rank = np.nonzero(held[:, first].T)
    tags = {
        f"{column}_tag": value.tag(cut.first[first[row]])
        for column, (value, cut) in zip(("src", "src2"), read, strict=False)
    }
    if factors is not None:
        uid, line = low.weight_uid(), np.repeat(first[row], n[row]) + ramp(n[row])
        words = low.gain(factors, columns, np.repeat(rank, n[row]), line, uid)
        tags |= {"src2": words[np.cumsum(n[row]) - n[row]], "src2_tag": tag(uid, first[row])}
    low.rows.add(op, rank=rank, n=n[row], aux=low.kernels.index(kernel), dst_tag=out.tag(first[row]), **tags)
    in_natural_order(low, node.outputs[0], out, total)


def require_f32(low: Lowering, node: Node) -> None:
    """Raise UnsupportedOpError for an op on a value that came back in fp16, which GPUs alone do."""
    if any(low.graph.values[view.value].dtype != "float32" for view in node.inputs):
        raise UnsupportedOpError(
            "lower",
            f"{node.path}: {node.op} ({node.source})",
            "one operand is float16, the chips take float32",
            "Leave it unrounded: float16 results cross between GPUs and LPUs only.",
        )


def in_natural_order(low: Lowering, value: int, lines: Lines, total: int) -> None:
    """Say that the lines of an f32 value hold its `total` columns in order."""
    segments = Segments(start=0, total=total, width=F32_LANES, first=np.arange(lines.lines), lines=1)
    low.where[View(value=value, start=0, width=total)] = (lines, segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmented:
    """An operand in segments, and a new fp16 result in equal ones: `first` is the first line of each.

    owner: rank of each row; segment: which one it makes, on several ranks where the operand lies on several.
    """

    source: Lines
    segments: Segments
    result: Lines
    first: Int[np.ndarray, " segments"]
    owner: Int[np.ndarray, " rows"]
    segment: Int[np.ndarray, " rows"]

    def add_rows(self, low: Lowering, op: int, kernel: Kernel, *, n: int, **fields: Any) -> None:
        """The rows, from lines of the operand to lines of the result."""
        low.rows.add(
            op,
            rank=self.owner,
            n=n,
            aux=low.kernels.index(kernel),
            src_tag=self.source.tag(self.segments.first[self.segment]),
            dst_tag=self.result.tag(self.first[self.segment]),
            **fields,
        )


def by_segments(low: Lowering, node: Node) -> Segmented:
    """The first operand of a node, and its result laid out as fp16 in the same segments on the same ranks."""
    view = node.inputs[0]
    value, segments = low.segments(view, node)
    lines, count, lanes = int(ceil_div(segments.width, F16_LANES)), len(segments), LANES[value.dtype]
    columns = np.full((count, lines * F16_LANES), -1)
    for i, line in enumerate(segments.first):
        real = value.columns[line * lanes : line * lanes + segments.width]
        columns[i, : segments.width] = real - view.start
    owner, segment = value.owner[segments.first], np.arange(count)
    copies = np.flatnonzero(value.held[: low.group.ranks, segments.first[0]])
    everywhere = bool((owner == NO_RANK).all())
    joint = None if everywhere else joined(low, node, owner)
    if joint is not None:
        out, first = joint
    else:
        first = np.arange(count) * lines
        sizes = np.full(count, lines)
        out = low.value("f16", np.repeat(owner, lines), columns.reshape(-1), first=first, count=sizes)
    if everywhere:
        out.held[copies] = True
        owner, segment = np.repeat(copies, count), np.tile(segment, len(copies))
    whole = Segments(start=0, total=view.width, width=segments.width, first=first, lines=lines)
    low.where[View(value=node.outputs[0], start=0, width=view.width)] = (out, whole)
    return Segmented(source=value, segments=segments, result=out, first=first, owner=owner, segment=segment)
