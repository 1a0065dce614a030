"""Where the cycles of a step went: the chain of rows that ends each block, cycle by cycle.

From the row of a block whose result comes last, walk to the operand that it waited for, and on. What lies
between an operand and the row's start is waiting for a unit or for lanes; the rest is the rows' own time. So
the parts add up to the block's length, to the cycle.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.analyse.dataflow import edges
from compiler.analyse.holds import holds
from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import DRAIN, HOST_IN, HOST_OUT, LINK, MXM, VXM, Columns
from compiler.program.program import Program

HOST = "host lanes"
HOLDS = {LINK: "link slots", MXM: "MXM", DRAIN: "drains", VXM: "VXM", HOST_IN: HOST, HOST_OUT: HOST}
RESULTS = {
    LINK: "link hops",
    MXM: "MXM fill",
    DRAIN: "MXM fill",
    VXM: "VXM latency",
    HOST_IN: HOST,
    HOST_OUT: HOST,
}
WAITS = {
    LINK: "waits for lanes",
    MXM: "waits for planes",
    DRAIN: "waits for drains",
    VXM: "waits for chains",
    HOST_IN: "waits for host lanes",
    HOST_OUT: "waits for host lanes",
}
PARTS = tuple(dict.fromkeys((*RESULTS.values(), *HOLDS.values(), *WAITS.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The chain that ends a block: cycles by part, in the order of PARTS. calls: how often a step runs it."""

    name: str
    calls: int
    cycles: dict[str, int]


def chains(program: Program, context: int) -> tuple[Chain, ...]:
    """The chain of every block that a step of the bucket runs."""
    manifest = program.manifest
    first = {call.block: call for call in reversed(program.calls)}
    uses = np.bincount([call.block for call in program.calls], minlength=len(program.blocks)).tolist()
    out: list[Chain] = []
    for block, call in sorted(first.items()):
        columns = program.expand_call(call, context)
        if len(columns):
            pairs = edges(columns, manifest.kernels, manifest.chip.planes, call.tag)
            cycles = last_chain(columns, pairs, holds(columns, manifest), call.base[context])
            out.append(Chain(name=call.name, calls=uses[block], cycles=cycles))
    return tuple(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRow:
    """A row of a chain: its class of unit, and cycles: waiting for it, holding it, to the result."""

    row: int
    unit: int
    wait: int
    hold: int
    result: int


def rows_of_chain(columns: Columns, pairs: np.ndarray, hold: np.ndarray, base: int) -> tuple[ChainRow, ...]:
    """The rows from `base` to the last result, first to last; `pairs` as `edges` gives them."""
    order = np.argsort(pairs[:, 1], kind="stable")
    earlier, later = pairs[order, 0], pairs[order, 1]
    found: list[ChainRow] = []
    row = int(np.argmax(columns.t1))
    while row >= 0:
        before = earlier[slice(*np.searchsorted(later, [row, row + 1]))]
        last = int(before[np.argmax(columns.t1[before])]) if len(before) else -1
        ready = int(columns.t1[last]) if last >= 0 else base
        found.append(
            ChainRow(
                row=row,
                unit=INSTRUCTIONS[int(columns.op[row])].unit,
                wait=int(columns.t0[row]) - ready,
                hold=int(hold[row]),
                result=int(columns.t1[row] - columns.t0[row] - hold[row]),
            )
        )
        row = last
    return tuple(reversed(found))


def last_chain(columns: Columns, pairs: np.ndarray, hold: np.ndarray, base: int) -> dict[str, int]:
    """Cycles by part from `base` to the last result; `pairs` as `edges` gives them."""
    parts = dict.fromkeys(PARTS, 0)
    for one in rows_of_chain(columns, pairs, hold, base):
        parts[HOLDS[one.unit]] += one.hold
        parts[RESULTS[one.unit]] += one.result
        parts[WAITS[one.unit]] += one.wait
    return parts


def chain_totals(found: Sequence[Chain]) -> dict[str, int]:
    """Cycles of a step by part, largest first; they add up to its length."""
    totals = {part: sum(one.calls * one.cycles[part] for one in found) for part in PARTS}
    return dict(sorted(totals.items(), key=lambda item: (-item[1], PARTS.index(item[0]))))
