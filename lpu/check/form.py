"""Rule 0: rows of which the other rules can make sense at all."""

import functools
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import numpy as np
from annotated_types import Ge, Lt
from jaxtyping import Bool, Int

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.instructions.attention import AttentionKernel, KVKernel
from compiler.program.instructions.cold import ColdTileKernel
from compiler.program.instructions.experts import ExpertTileKernel
from compiler.program.instructions.host import HandoverKernel, StateMoveKernel
from compiler.program.instructions.matmul import MatmulKernel
from compiler.program.instructions.recurrent import StateKernel
from compiler.program.isa import (
    F16_LANES,
    OPCODES,
    TILE_ROWS,
    Columns,
    Instruction,
    Kernel,
    by_opcode,
    is_transfer,
)
from lpu.check.cycles import CYCLES
from lpu.check.findings import Findings
from lpu.check.follow.cold import wrong_copy
from lpu.check.follow.experts import wrong_slots
from lpu.check.follow.states import wrong_state
from lpu.check.rows import CYCLE, Alike, alike
from lpu.check.stated import Stated

_MOST_LANES = 1 << 16


def form(findings: Findings, stated: Stated) -> None:
    """Opcodes, chips, cycles, counts and kernels are possible ones, and of the program's kind."""
    c = findings.columns
    within = (c.op >= 0) & (c.op < OPCODES)
    op = np.where(within, c.op, 0).astype(np.int16)  # a quarter of the memory
    known = within & _table(lambda record: 1)[op].astype(bool)
    transfer = is_transfer(op) & known
    findings.add(0, np.flatnonzero(~known), "no instruction has this opcode")
    _index(findings, "chip", "chips", c.chip, np.ones(len(c), bool), stated.chips)
    _index(findings, "peer", "chips", c.peer, transfer, stated.chips)
    late = np.flatnonzero((c.t0 < 0) | (c.t1 < c.t0) | (c.t1 > CYCLE >> 1))
    findings.add(0, late, lambda i: f"from cycle {c.t0[late[i]]} to cycle {c.t1[late[i]]}")
    least, most = _table(lambda record: record.least), _table(lambda record: record.most)
    count = np.flatnonzero(known & ((c.n < least[op]) | (c.n > most[op])))
    findings.add(
        0,
        count,
        lambda i: f"n is {c.n[count[i]]}, at least {least[op[count[i]]]}, at most {most[op[count[i]]]}",
    )
    meant = _table(lambda record: record.moves == stated.moves).astype(bool)
    findings.add(0, np.flatnonzero(~meant[op]), f"is no row of a program of kind {stated.kind!r}")
    lanes = np.flatnonzero(transfer & ((c.aux < 1) | (c.aux > _MOST_LANES)))
    findings.add(0, lanes, lambda i: f"uses {c.aux[lanes[i]]} lanes, at least 1")
    stray = np.flatnonzero(known & ~transfer & (c.peer != -1))
    findings.add(0, stray, lambda i: f"names peer {c.peer[stray[i]]}, only a transfer has one")
    _index(findings, "kernel", "kernels", c.aux, known & ~transfer, len(stated.kernels))
    if sum(findings.counts) == 0:
        for group in alike(c, stated.kernels):
            if wrong := _wrong(group, stated, c):
                findings.add(0, group.rows, wrong)


def _table(value: Callable[[Instruction], int]) -> Int[np.ndarray, " opcodes"]:
    """A number of every instruction by opcode, 0 where there is none."""
    return by_opcode([(op, value(record)) for op, record in INSTRUCTIONS.items()], 0).astype(np.int32)


def _index(
    findings: Findings,
    name: str,
    among: str,
    values: Int[np.ndarray, " rows"],
    relevant: Bool[np.ndarray, " rows"],
    count: int,
) -> None:
    bad = np.flatnonzero(relevant & ((values < 0) | (values >= count)))
    findings.add(0, bad, lambda i: f"{name} {values[bad[i]]}, {among} are 0 .. {count - 1}")


def _wrong(group: Alike, stated: Stated, c: Columns) -> str:
    """What is wrong with a kernel for an opcode, or nothing."""
    kernel, record = group.kernel, group.instruction.kernel
    if type(kernel) not in (record, *group.instruction.forms):
        return f"its kernel is for {kernel.family}, must be for {record.family}"
    for name, (admits, what) in _attributes(type(kernel)).items():
        if not admits(value := getattr(kernel, name)):
            return f"its kernel has {name} {value!r}, not {what}"
    if not group.transfers and group.op not in CYCLES:
        return "the checker has no timing rule for it. Give it one with lpu.check.cycles.register"
    if isinstance(kernel, AttentionKernel) and (wrong := _wrong_attention(kernel, stated)):
        return wrong
    if isinstance(kernel, StateKernel) and (wrong := wrong_state(kernel, stated)):
        return wrong
    if isinstance(kernel, HandoverKernel | StateMoveKernel) and kernel.cached != stated.sequences:
        return f"its kernel has {kernel.cached} cached sequences, the program {stated.sequences}"
    if isinstance(kernel, KVKernel) and kernel.kv_words != kernel.token_words:
        return f"its kernel has kv_words {kernel.kv_words}, {kernel.kv} heads take another number"
    if isinstance(kernel, ColdTileKernel) and (wrong := wrong_copy(kernel, stated.rows, c.n[group.rows])):
        return wrong
    if isinstance(kernel, MatmulKernel | ExpertTileKernel) and kernel.k_lines * F16_LANES > TILE_ROWS:
        return f"its kernel has k_lines {kernel.k_lines}, a plane takes {TILE_ROWS // F16_LANES}"
    return wrong_slots(kernel, stated.rows)


def _wrong_attention(kernel: AttentionKernel, stated: Stated) -> str:
    if kernel.rows != stated.rows:
        return f"its kernel has {kernel.rows} rows, the program {stated.rows}"
    if kernel.sequences * stated.chunk != stated.rows:
        return (
            f"its kernel has {kernel.sequences} sequences of {stated.chunk} rows, the program {stated.rows}"
        )
    if kernel.cached != stated.sequences or kernel.sequences > stated.sequences:
        return (
            f"its kernel takes {kernel.sequences} of {kernel.cached} cached sequences, "
            f"the program has {stated.sequences}"
        )
    if kernel.chunk != kernel.block and (kernel.chunk > kernel.block or kernel.chunks > 1):
        return f"its kernel has {kernel.chunk} tokens of {kernel.chunks} blocks of {kernel.block}"
    if kernel.reach and kernel.stripes > 1:
        return f"its kernel sees {kernel.reach} tokens, in {kernel.stripes} stripes; a ring is one"
    if kernel.stripes > 1 and kernel.run % kernel.block:
        return f"its kernel has runs of {kernel.run} tokens, blocks of {kernel.block}"
    return ""


Admits = Callable[[Any], bool]


@functools.cache
def _attributes(record: type[Kernel]) -> dict[str, tuple[Admits, str]]:
    """Of each field of a kernel record: whether a value is of its type, and what such values are."""
    hints = get_type_hints(record, include_extras=True)
    return {name: _type(hint) for name, hint in hints.items() if get_origin(hint) is not ClassVar}


def _type(hint: Any) -> tuple[Admits, str]:
    """The test of one type, and the type in words.

    Raises TypeError for what is no type of a kernel's fields.
    """
    args = get_args(hint)
    if get_origin(hint) is Literal:
        return lambda value: value in args, f"one of {args}"
    if get_origin(hint) is Annotated and args[0] is int:
        return lambda value: _is_number(value, int) and _within(value, args[1:]), "a count"
    if hint is float:
        return lambda value: _is_number(value, int | float), "a number"
    if hint in (int, bool):
        return lambda value: type(value) is hint, f"of type {hint.__name__}"
    raise TypeError(f"kernel fields are Count, Literal, bool, float or int, not {hint}")


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _within(value: int, bounds: tuple[Any, ...]) -> bool:
    low: list[Any] = [bound.ge for bound in bounds if isinstance(bound, Ge)]
    high: list[Any] = [bound.lt for bound in bounds if isinstance(bound, Lt)]
    return all(value >= bound for bound in low) and all(value < bound for bound in high)
