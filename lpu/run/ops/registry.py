"""How every opcode is executed: the project's own, and those that extensions register."""

from collections.abc import Iterator, Mapping

import numpy as np

from compiler.program.instruction_set import INSTRUCTIONS, name_of
from compiler.program.isa import ANGLES, OPCODES, SHARED, TABLE, WEIGHTS, Kernel
from lpu.link.link import Dataflow
from lpu.run.error import MachineError
from lpu.run.image import ImagePlan
from lpu.run.kv import region_numbers
from lpu.run.ops import attention, experts, matmul, moves, recurrent, vector
from lpu.run.ops.items import Executed, Items, Reads, Rows, Static

EXECUTED: dict[int, Executed] = {}


def register(record: Executed) -> Executed:
    """Add how an opcode is executed; the order in which records are added changes nothing.

    Raises ValueError if its number is taken or out of range.
    """
    if EXECUTED.get(record.op) is record:
        return record
    if record.op in EXECUTED or not 0 <= record.op < OPCODES:
        why = "has a record" if record.op in EXECUTED else f"is not from 0 to {OPCODES - 1}"
        raise ValueError(f"executor: opcode {record.op} {why}. Give it another number.")
    EXECUTED[record.op] = record
    return record


for _family in (vector, attention, recurrent, matmul, moves, experts):
    for _record in _family.EXECUTED:
        register(_record)


def items(flow: Dataflow, plan: ImagePlan, stores: Mapping[int, int]) -> list[Items]:
    """All items but the products and write-backs; `stores`: index of the KV arrays of each attention kernel.

    Raises MachineError for an opcode that has no record, or an attribute that the pools do not hold.
    """
    reads = Reads(flow, plan, region_numbers(flow, stores))
    out: list[Items] = []
    for op in np.flatnonzero(np.bincount(flow.columns.op, minlength=OPCODES)).tolist():
        if op not in EXECUTED:
            raise MachineError(f"run: no kernel for {name_of(op)}. Register one in lpu.run.ops.registry.")
        record = EXECUTED[op]
        if record.build is not None:
            for rows, static in _alike(record, reads, np.flatnonzero(flow.columns.op == op), stores):
                _check_limits(record, static.kernel)
                out.append(record.build(reads, rows, static))
    return out


def _alike(
    record: Executed, reads: Reads, rows: Rows, stores: Mapping[int, int]
) -> Iterator[tuple[Rows, Static[Kernel]]]:
    """The rows of an opcode that one builder call gets, by kernel, count and tensor in this order."""
    columns = reads.flow.columns
    whole = any(
        operand.space in (WEIGHTS, SHARED) and operand.holds in (TABLE, ANGLES)
        for operand in INSTRUCTIONS[record.op].reads
    )
    counts = columns.n[rows] if record.by_count else 0 * rows
    tensors = reads.tensor(rows) if whole else 0 * rows
    keys = np.stack([columns.aux[rows], counts, tensors])
    distinct, which = np.unique(keys, axis=1, return_inverse=True)
    for i, (aux, n, tensor) in enumerate(distinct.T.tolist()):
        kernel = reads.flow.kernels[aux]
        yield (
            rows[which.reshape(-1) == i],
            Static(kernel=kernel, n=n, tensor=tensor, store=stores.get(aux, 0)),
        )


def _check_limits(record: Executed, kernel: Kernel) -> None:
    for name, value, most in record.limits(kernel):
        if value > most:
            raise MachineError(f"run: {kernel.family}: {name} is {value}, the executor takes {most}.")
