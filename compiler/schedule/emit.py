"""Emission: scheduled rows and addresses -> the columns of a block."""

import numpy as np

from compiler.lower.rows import Rows
from compiler.program.isa import READS, TAG_SHIFT, TRANSIENT, WRITES, Columns, Op
from compiler.schedule.allocate import Addresses
from compiler.schedule.list_schedule import Times


def emit(rows: Rows, times: Times, addresses: Addresses) -> Columns:
    """Columns of a block in program order; transient tags become addresses."""
    columns = {name: getattr(rows, name).copy() for name in ("dst", "src", "src2", "src3")}
    for op in Op:
        which = np.flatnonzero(rows.op == op)
        if not len(which):
            continue
        write = WRITES[op]
        for operand in READS[op] + ((write,) if write else ()):
            if operand.space != TRANSIENT:
                continue
            at_peer = operand is write and op in (Op.SEND, Op.FORWARD)
            rank = (rows.peer if at_peer else rows.rank)[which]
            columns[operand.column][which] = addresses.of(rank, getattr(rows, operand.column + "_tag")[which])
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
    for name in ("dst_tag", "src_tag", "src2_tag", "src3_tag"):
        tags = fields[name]
        line = tags & ((1 << TAG_SHIFT) - 1)
        fields[name] = np.where((tags >= 0) & (tags >> TAG_SHIFT == old), new << TAG_SHIFT | line, tags)
    return Rows(**fields)
