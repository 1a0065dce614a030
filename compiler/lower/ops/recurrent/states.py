"""What rows with a state share: regions of the KV space, and words preloaded beside their lines."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import in_natural_order
from compiler.lower.layout import Lines, natural
from compiler.lower.rows import tag
from compiler.program.instructions.recurrent import DeltaKernel, SsmKernel
from compiler.program.isa import GAIN, KV, SPACE_SHIFT, Op
from compiler.program.ranges import ramp


def regions(low: Lowering, rank: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Space-coded first words of regions of this many words on these ranks."""
    out = np.empty(len(rank), np.int64)
    for i, (one, count) in enumerate(zip(rank.tolist(), words.tolist(), strict=True)):
        out[i] = (KV << SPACE_SHIFT) | low.kv_words[one]
        low.kv_words[one] += count
    return out


def beside(
    low: Lowering, rank: np.ndarray, lines: np.ndarray, vectors: Sequence[tuple[int, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """(address, tag) of the words that each row finds: of every vector those of its lines, vector by vector.

    rank, lines: of each row, and how many lines it has; rows follow each other line by line. vectors: a
    parameter and the index of every padded lane.
    """
    count, rows = len(vectors), len(rank)
    slots = np.array([low.slot(value, None, columns) for value, columns in vectors])
    first = np.cumsum(lines) - lines
    row = np.repeat(np.arange(rows), lines * count)
    within = ramp(lines * count)
    size = lines[row]
    line = first[row] + within % size
    uid = low.weight_uid()
    number = np.arange(len(row))
    address = low.weights.load(
        rank[row],
        1,
        kind=GAIN,
        tensor=slots[within // size],
        k0=0,
        n0=line * 80,
        lines=1,
        tag=tag(uid, number),
    )
    begin = first * count
    return address[begin], np.asarray(tag(uid, begin), np.int64)


def kernel_of(low: Lowering, node: Node, operand: int) -> dict[str, Any]:
    """The fields of a kernel that its state says; operand: which one of the node's it is."""
    sequences, kept, _ = low.graph.values[node.inputs[operand].value].shape
    return {"kept": kept, "cached": low.cached, "rows": low.batch, "sequences": sequences}


def whole(low: Lowering, node: Node, operand: int, reads: np.ndarray) -> Lines:
    """An operand that rows take whole, on the ranks that read it."""
    value, cut = low.segments(node.inputs[operand], node)
    if len(cut) != value.lines or (np.diff(cut.first) != 1).any():
        raise CompileError(
            "lower",
            f"{node.path}: {node.op} ({node.source})",
            f"its operand {operand} is part of another value",
            "Let a conv or a bias of its own make it.",
        )
    low.gather(value, np.repeat(reads[:, None], value.lines, axis=1))
    return value


def two_rows(
    low: Lowering,
    node: Node,
    kernel: SsmKernel | DeltaKernel,
    ops: tuple[Op, Op],
    size: int,
    raw: np.ndarray | int,
    both: Lines,
    vectors: Callable[[np.ndarray], Sequence[tuple[int, np.ndarray]]],
) -> None:
    """Two rows for each line of channels, where it lies: what its states need beside it, its step over them.

    size: lines that the first row makes of one. raw: tags that the first reads besides; both: what the second
    reads whole. vectors: of the index of every padded lane, the parameters beside a line, as for `beside`.
    """
    view, (first, second) = node.inputs[0], ops
    value, cut = low.segments(view, node)
    owner, line = value.owner[cut.first], np.arange(len(cut))
    aux, (_, columns) = low.kernels.index(kernel), natural(view.width, low.group.ranks)
    words, tags = beside(low, owner, np.ones_like(line), vectors(columns))
    made = low.value("f32", np.repeat(owner, size), first=line * size, count=np.full(len(line), size))
    low.rows.add(
        first,
        rank=owner,
        n=line,
        aux=aux,
        src_tag=value.tag(cut.first),
        src2_tag=raw,
        src3=words,
        src3_tag=tags,
        dst_tag=made.tag(line * size),
    )
    state = regions(low, owner, np.full(len(line), kernel.kept * kernel.cached))
    out = low.value("f32", owner, columns, first=line, count=np.ones_like(line))
    low.rows.add(
        second,
        rank=owner,
        n=line,
        aux=aux,
        src_tag=made.tag(line * size),
        src2_tag=both.tag(0),
        src3=state,
        src3_tag=tag(low.weight_uid(), line),
        dst_tag=out.tag(line),
    )
    in_natural_order(low, node.outputs[0], out, view.width)
