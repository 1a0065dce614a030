"""Which call of a program a row of a step is of."""

import numpy as np
from jaxtyping import Int

from compiler.program.program import Program


class Calls:
    """Names of a program's calls, in order, and where each ends among the rows of every context's step."""

    def __init__(self, program: Program) -> None:
        self.names = [call.name for call in program.calls]
        self._ends = {
            context: np.cumsum([len(program.blocks[call.block].columns[context]) for call in program.calls])
            for context in program.manifest.contexts
        }

    def of(self, context: int, rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
        """The number of the call of each row."""
        return np.searchsorted(self._ends[context], rows, side="right")
