"""What a block takes from the one before it: whether it sends that on, and what of it nobody there reads."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Int

from compiler.graph.graph import width
from compiler.lower.blocks import ModelBlock
from compiler.lower.context import INPUT
from compiler.lower.layout import Demands, natural
from compiler.lower.rows import Rows
from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import TAG_SHIFT, TRANSFER, TRANSIENT, Columns, Op, is_transfer
from compiler.program.packed import by_kind
from compiler.program.ranges import ramp
from compiler.schedule.template import Template

_LINE = (1 << TAG_SHIFT) - 1
_SOURCES = ("src", "src2", "src3")
Chips = tuple[int, ...]
Places = tuple[Int[np.ndarray, " reads"], Int[np.ndarray, " reads"]]  # ranks, and lines of a value


def sends_input(op: Int[np.ndarray, " rows"], src_tag: Int[np.ndarray, " rows"]) -> bool:
    """Whether rows of a block send lines of its input to other chips."""
    return bool((is_transfer(op) & (src_tag >> TAG_SHIFT == INPUT)).any())


def arrived(
    demands: Demands, block: ModelBlock, chips: Chips, rows: Columns | Rows, uid: int, at: Chips
) -> tuple[bool, ...]:
    """Of each line of its input, whether its owner in a block has it by a transfer.

    chips: of the block. rows: of the block that its input comes from, where it is the value `uid`; at: the
    chip of each of their ranks.
    """
    if block.source < 0:
        return ()
    owner = np.array(chips)[natural(width(demands.graph.values[block.source]), len(chips))[0]]
    (sent,) = np.nonzero(is_transfer(rows.op) & (rows.dst_tag >> TAG_SHIFT == uid))
    n, line = rows.n[sent], np.arange(len(owner))
    got = np.zeros((max(*chips, *at) + 1, len(owner)), bool)
    peer = np.array(at)[rows.peer[sent]]
    got[np.repeat(peer, n), np.repeat(rows.dst_tag[sent] & _LINE, n) + ramp(n)] = True
    return tuple(got[owner, line].tolist())


def unread(
    made: Template,
    at: Chips,
    by: Template,
    there: Chips,
    targets: Chips,
    lines: int,
) -> Bool[np.ndarray, "targets lines"]:
    """Which of the `lines` of a block's result a chip computes where no row reads them, by the `targets`.

    at: the chips of the block by rank; by, there: the block that reads it, and its chips.
    """
    context = max(made.columns)
    c = made.columns[context]
    (rows,) = np.nonzero(c.dst_tag >> TAG_SHIFT == made.uids)
    rows = rows[[not INSTRUCTIONS[op].unread for op in c.op[rows].tolist()]]
    computed, read = (np.zeros((max(*targets, *at, *there) + 1, lines), bool) for _ in range(2))
    ranks, which = np.repeat(c.chip[rows], c.n[rows]), np.repeat(c.dst_tag[rows] & _LINE, c.n[rows])
    computed[np.array(at)[ranks], which + ramp(c.n[rows])] = True
    for one, uid, chips in ((made, made.uids, at), (by, INPUT, there)):
        for ranks, which in _read(one, one.columns[context], uid):
            read[np.array(chips)[ranks], which] = True
    return (computed & ~read)[list(targets)]


def _read(made: Template, c: Columns, uid: int) -> Iterable[Places]:
    """Where rows read a value."""
    for name in _SOURCES:
        tags = getattr(c, f"{name}_tag")
        (mine,) = np.nonzero(tags >> TAG_SHIFT == uid)
        for op, aux, some in by_kind(c.op[mine], c.aux[mine]):
            rows = mine[some]
            kernel = TRANSFER if op in (Op.SEND, Op.FORWARD) else made.kernels[aux]
            for operand in INSTRUCTIONS[op].reads:
                if operand.column != name or operand.space != TRANSIENT or not operand.is_in(kernel):
                    continue
                n = c.n[rows]
                count = n if operand.stride is not None else np.asarray(operand.extent(n, kernel))
                step = 1 if operand.stride is None else operand.stride(kernel)
                yield (
                    np.repeat(c.chip[rows], count),
                    np.repeat(tags[rows] & _LINE, count) + ramp(count) * step,
                )
