"""Experts without a slot, of programs with fewer slots than rows choose: an error, or left out and counted.

SLOTS says it in two lanes of every slot that it makes; every chip of a group counts the same, so one counts.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, Int32

from compiler.program.instructions.experts import SlotsKernel, bound_of
from compiler.program.isa import TAG_SHIFT, Op
from compiler.program.program import Program
from lpu.link.link import Dataflow
from lpu.run.calls import Calls
from lpu.run.error import MachineError

LANES = slice(2, 4)  # of a slot: experts without one, and those of them that the row itself chose
COUNTED = ("steps", "experts", "choices")
Rows = Int[np.ndarray, " tables"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What found no slot in one call: experts, and choices of single rows, over `steps` tables of steps."""

    call: str
    steps: int
    experts: int
    choices: int


def counting_rows(flow: Dataflow) -> Rows:
    """One SLOTS row for each table that may not suffice, in the order of the program."""
    c = flow.columns
    few = [isinstance(one, SlotsKernel) and one.bounded for one in flow.kernels]
    rows = np.flatnonzero(c.op == Op.SLOTS)
    rows = rows[np.array(few, bool)[c.aux[rows]]]
    return np.sort(rows[np.unique(c.dst_tag[rows] >> TAG_SHIFT, return_index=True)[1]]) if len(rows) else rows


class Overflow:
    """Counts what found no slot; stops the run unless the program drops it."""

    def __init__(self, program: Program, beside: "Overflow | None" = None) -> None:
        self._experts = program.manifest.options.experts
        self._drops = self._experts.startswith("drop:")
        self._calls = Calls(program)
        self._found: dict[str, Dropped] = {} if beside is None else beside._found

    def reset(self) -> None:
        """Nothing counted."""
        self._found.clear()

    def add(
        self,
        context: int,
        rows: Rows,
        counts: Float32[np.ndarray, "tables batch 2"],
        positions: Int32[np.ndarray, " batch"],
    ) -> None:
        """Add what a step left out, by the program's row of each table.

        Raises MachineError unless the program drops it.
        """
        calls = self._calls.of(context, rows).tolist()
        for number, count in zip(calls, counts.astype(np.int64), strict=True):
            experts, choices = int(count[0, 0]), int(count[:, 1].sum())
            if not experts:
                continue
            call = self._calls.names[number]
            if not self._drops:
                raise MachineError(
                    f"run: {call}: at position {int(positions[0])} its rows choose {experts} experts more "
                    f"than a table has slots ({self._experts}). Compile with --experts exact, or drop:N to "
                    "leave them out."
                )
            one = self._found.get(call, Dropped(call=call, steps=0, experts=0, choices=0))
            self._found[call] = Dropped(
                call=call, steps=one.steps + 1, experts=one.experts + experts, choices=one.choices + choices
            )

    def found(self) -> tuple[Dropped, ...]:
        """What was left out since the start, in the order of the program's calls."""
        return tuple(self._found[name] for name in dict.fromkeys(self._calls.names) if name in self._found)


def in_words(dropped: tuple[Dropped, ...]) -> str:
    """What was left out, all calls together."""
    steps, experts, choices = (sum(getattr(one, name) for one in dropped) for name in COUNTED)
    return (
        f"{choices:,} choices of rows, of {experts:,} experts in {steps:,} tables of steps, found no slot: "
        "the bits are not the model's"
    )


def require_enough(program: Program, where: str) -> None:
    """Raise MachineError for a program whose slots may not suffice, where nothing counts what finds none."""
    if bound := bound_of(program.manifest.kernels):
        raise MachineError(
            f"run: {where} does not count experts without a slot, the program is for steps {bound}. Compile "
            "with --experts exact."
        )
