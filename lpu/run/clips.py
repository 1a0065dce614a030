"""Clips: values that fp16 cannot hold and that the contract sets to +-65504, by call and instruction.

Each position of a sequence counts once, and what many chips compute alike counts once, so the counts are the
model's: no batch, chunk or placement changes them. A value that rounds to 65504 by itself (above 65488) is
counted with those that are clipped.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float16, Int, Int32, UInt8

from compiler.program.instruction_set import name_of
from compiler.program.program import Program
from lpu.run.calls import Calls

LARGEST_BITS = 0x7BFF  # of 65504, without the sign; source: IEEE 754 binary16
Made = Int32[np.ndarray, "rows 2"]
"""Of each fp16 pool row: the row of the program that leaves it (-1: none), and its opcode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipped:
    """How many fp16 results of one instruction in one call are +-65504, over all positions taken."""

    call: str
    instruction: str
    values: int

    def __str__(self) -> str:
        return f"{self.values:,} of {self.instruction} in {self.call}"


def at_limit(pool: Float16[Array, "rows batch lanes"]) -> UInt8[Array, "rows batch"]:
    """How many values of each pool row are +-65504, the largest that fp16 holds."""
    bits = lax.bitcast_convert_type(pool, jnp.uint16) & 0x7FFF
    return jnp.sum(bits == LARGEST_BITS, axis=-1, dtype=jnp.uint8)


class Clips:
    """Counts what the steps of a program clip; programs of one cache (`beside`) share the counts."""

    def __init__(self, program: Program, beside: "Clips | None" = None) -> None:
        self._calls = Calls(program)
        self._seen: dict[int, int] = {} if beside is None else beside._seen
        # By call, opcode and sequence.
        self._values: dict[tuple[str, int, int], int] = {} if beside is None else beside._values

    def reset(self) -> None:
        """Nothing counted, no position taken."""
        self._seen.clear()
        self._values.clear()

    def fresh(
        self, sequences: Int[np.ndarray, " batch"], positions: Int32[np.ndarray, " batch"]
    ) -> Bool[np.ndarray, " batch"]:
        """Which rows of a step are at positions that were not taken before; they are from now on."""
        last = np.array([self._seen.get(one, -1) for one in sequences.tolist()])
        for one, position in zip(sequences.tolist(), positions.tolist(), strict=True):
            self._seen[one] = max(position, self._seen.get(one, -1))
        return positions > last

    def add(
        self,
        context: int,
        made: Made,
        counts: UInt8[np.ndarray, "pool batch"],
        sequences: Int[np.ndarray, " batch"],
        fresh: Bool[np.ndarray, " batch"],
    ) -> None:
        """Add what a step left at the limit, of its fresh rows; counts: of its pool, first what it made."""
        row, column = np.nonzero(counts[: len(made)])
        keep = fresh[column] & (made[row, 0] >= 0)
        row, column = row[keep], column[keep]
        calls = self._calls.of(context, made[row, 0])
        found = (calls, made[row, 1], sequences[column], counts[row, column])
        for call, op, sequence, values in zip(*(one.tolist() for one in found), strict=True):
            key = self._calls.names[call], op, sequence
            self._values[key] = self._values.get(key, 0) + values

    def found(self, sequences: int) -> tuple[Clipped, ...]:
        """What the first `sequences` sequences clipped since the start, in the order of its calls."""
        total: dict[tuple[str, int], int] = {}
        for (call, op, sequence), values in self._values.items():
            if sequence < sequences:
                total[call, op] = total.get((call, op), 0) + values
        order = {name: i for i, name in enumerate(self._calls.names)}
        return tuple(
            Clipped(call=call, instruction=name_of(op), values=values)
            for (call, op), values in sorted(total.items(), key=lambda one: (order[one[0][0]], one[0]))
        )


def in_words(clipped: tuple[Clipped, ...]) -> str:
    """What was clipped, the most of an instruction first."""
    if not clipped:
        return "none: no value reaches 65504, the largest of fp16"
    worst = sorted(clipped, key=lambda one: -one.values)
    shown = ", ".join(map(str, worst[:3]))
    more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
    return f"{sum(one.values for one in clipped):,} values at +-65504, the largest of fp16: {shown}{more}"
