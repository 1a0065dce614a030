"""All instructions by opcode: the project's own, and those that extensions register."""

import numpy as np
from jaxtyping import Int

from compiler.program.instructions import (
    attention,
    cold,
    experts,
    fetched,
    host,
    matmul,
    norms,
    recurrent,
    transfer,
    vector,
)
from compiler.program.isa import OPCODES, Instruction, Kernel, by_opcode

INSTRUCTIONS: dict[int, Instruction] = {}
KERNELS: dict[str, type[Kernel]] = {}
"""The kernel records by the name of their family in files."""


def register(record: Instruction) -> Instruction:
    """Add an instruction; programs that use it can then be compiled, checked, read and run.

    Raises ValueError if its number is taken or out of range, or its kernel's family names another record.
    """
    known = INSTRUCTIONS.get(record.op)
    if known is record:
        return record
    if known is not None or not 0 <= record.op < OPCODES:
        why = f"is that of {known.name}" if known else f"is not from 0 to {OPCODES - 1}"
        raise ValueError(f"instruction {record.name}: opcode {record.op} {why}. Give it another number.")
    for kernel in (record.kernel, *record.forms):
        if KERNELS.setdefault(kernel.family, kernel) is not kernel:
            other = KERNELS[kernel.family].__qualname__
            raise ValueError(
                f"instruction {record.name}: kernels {kernel.family!r} are {other}. "
                "Name its family otherwise."
            )
    INSTRUCTIONS[record.op] = record
    return record


for _family in (transfer, norms, vector, attention, fetched, matmul, host, recurrent, experts, cold):
    for _record in _family.INSTRUCTIONS:
        register(_record)


def unit_classes() -> Int[np.ndarray, " opcodes"]:
    """The class of unit that each opcode holds; -1 for unknown opcodes."""
    return by_opcode([(op, record.unit) for op, record in INSTRUCTIONS.items()], -1)


def name_of(op: int) -> str:
    """The mnemonic of an opcode."""
    return INSTRUCTIONS[op].name if op in INSTRUCTIONS else f"op {op}"
