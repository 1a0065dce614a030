"""The rows of a later wave: the first one's, moved to its cycles, its arenas and the KV of its user."""

import numpy as np

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import (
    COLUMNS,
    KV,
    OPCODES,
    OPERANDS,
    PRODUCTS,
    SHARED,
    TAG_SHIFT,
    TAGS,
    TRANSIENT,
    WEIGHTS,
    Columns,
    Op,
    is_transfer,
)
from compiler.program.manifest import Waves
from compiler.program.program import Program


def expand_wave(program: Program, context: int, wave: int) -> Columns:
    """Every instruction of the step that enters `wave` intervals after the first, of the user `wave % turn`.

    Raises ValueError if the program has no waves, or none of that user.
    """
    waves = program.manifest.waves
    if waves is None:
        raise ValueError(f"wave {wave}: the program is of kind {program.manifest.kind!r} and has no waves")
    return _later(program.expand(context), waves, context, wave)


def _later(columns: Columns, waves: Waves, context: int, wave: int) -> Columns:
    entry = waves.contexts[context]
    user = wave % entry.turn
    if user >= waves.users:
        raise ValueError(f"wave {wave} is of user {user}, there are {waves.users}")
    move = np.zeros((4, len(waves.arenas)), np.int64)
    move[TRANSIENT] = wave % np.array(waves.arenas) * np.array(waves.arena_words)
    move[KV] = user * np.array(waves.user_words)
    space = np.full((len(OPERANDS), OPCODES), WEIGHTS)  # [operand, opcode]: what is no operand does not move
    for op, record in INSTRUCTIONS.items():
        for operand in record.operands:
            space[OPERANDS.index(operand.column), op] = operand.space
    named = (space != WEIGHTS) & (space != SHARED)
    named[0, PRODUCTS] = named[3, Op.WB] = True  # tags of accumulators count, too
    out = {name: getattr(columns, name) for name in COLUMNS + TAGS}
    transfer = is_transfer(columns.op)
    for i, name in enumerate(OPERANDS):
        chip = np.where(transfer, columns.peer, columns.chip) if name == "dst" else columns.chip
        value, tag = out[name], out[name + "_tag"]
        out[name] = np.where(value < 0, value, value + move[space[i, columns.op], chip])
        moved = named[i, columns.op] & (tag >= 0)
        out[name + "_tag"] = tag + np.where(moved, wave * waves.tags << TAG_SHIFT, 0)
    out["t0"] = columns.t0 + wave * entry.interval
    out["t1"] = columns.t1 + wave * entry.interval
    return Columns(**out)
