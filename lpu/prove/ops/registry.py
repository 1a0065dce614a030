"""The rules of the proof by opcode: the project's own, and those that extensions register."""

from compiler.program.isa import OPCODES
from lpu.prove.ops import attention, cold, experts, host, matmul, recurrent, transfer, vector
from lpu.prove.rule import Proved

PROVED: dict[int, Proved] = {}


def register(record: Proved) -> Proved:
    """Add the rule of an opcode. Raises ValueError if its number is taken or out of range."""
    if PROVED.get(record.op) is record:
        return record
    if record.op in PROVED or not 0 <= record.op < OPCODES:
        why = "has a rule" if record.op in PROVED else f"is not from 0 to {OPCODES - 1}"
        raise ValueError(f"proof: opcode {record.op} {why}. Give it another number.")
    PROVED[record.op] = record
    return record


for _family in (transfer, vector, attention, recurrent, matmul, host, experts, cold):
    for _record in _family.PROOF:
        register(_record)
