"""Emission: scheduled rows and addresses -> the columns of a block."""

import numpy as np

from compiler.lower.rows import Rows
from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import OPERANDS, TAG_SHIFT, TAGS, TRANSIENT, Columns, Op
from compiler.schedule.allocate import Addresses
from compiler.schedule.list_schedule import Times


def emit(rows: Rows, times: Times, addresses: Addresses) -> Columns:
    """Columns of a block in program order; transient tags become addresses."""
    columns = {name: getattr(rows, name).copy() for name in OPERANDS}
    for op in np.unique(rows.op).tolist():
        which = np.flatnonzero(rows.op == op)
        record = INSTRUCTIONS[op]
        for operand in record.operands:
            if operand.space != TRANSIENT:
                continue
            at_peer = operand is record.write and op in (Op.SEND, Op.FORWARD)
            tags = getattr(rows, operand.column + "_tag")
            there = which[tags[which] >= 0]  # not every kernel has every operand
            rank = (rows.peer if at_peer else rows.rank)[there]
            columns[operand.column][there] = addresses.of(rank, tags[there])
    transfer = times.lanes >= 0
    return Columns(
        op=rows.op,
        chip=rows.rank,
        unit=times.unit,
        t0=times.t0,
        t1=times.t1,
        aux=np.where(transfer, times.lanes, rows.aux),
        n=rows.n,
        peer=rows.peer,
        lane=times.lane,
        dst_tag=rows.dst_tag,
        src_tag=rows.src_tag,
        src2_tag=rows.src2_tag,
        src3_tag=rows.src3_tag,
        **columns,
    )


def rename(rows: Rows, old: int, new: int) -> Rows:
    """The rows with value `old` numbered `new` in every tag."""
    fields = {name: getattr(rows, name) for name in Rows.__dataclass_fields__}
    for name in TAGS:
        tags = fields[name]
        line = tags & ((1 << TAG_SHIFT) - 1)
        fields[name] = np.where((tags >= 0) & (tags >> TAG_SHIFT == old), new << TAG_SHIFT | line, tags)
    return Rows(**fields)
