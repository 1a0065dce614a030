"""A model on GPUs that takes drafts back: where layers keep states, by copies from before each token.

KV needs none: what lies behind the end is overwritten.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from lpu.afd.gpu_side import GpuSide, TakenTokens
from lpu.decode.prefixes.cache import StateBytes
from lpu.decode.speculate import Verifier
from lpu.inputs.model import OpenModel
from lpu.run.error import MachineError


class RewoundSide:
    """The verifier of a model with states. A sequence may go on at 0, or anywhere in what it took last."""

    def __init__(self, gpu: GpuSide) -> None:
        self._gpu = gpu
        self.batch, self.vocab, self.context = gpu.batch, gpu.vocab, gpu.context
        self._before: list[dict[int, StateBytes]] = [{} for _ in range(gpu.batch)]  # by position

    def prefill(self, sequence: int, tokens: Sequence[int], start: int = 0) -> TakenTokens:
        """Take tokens of one sequence from a position on. Raises MachineError where no copy is of it."""
        self._back(sequence, start)
        found = self._gpu.prefill(sequence, tokens, start)
        self._before[sequence] = {start + len(tokens): self._gpu.state(sequence)}
        return found

    def rows(
        self, tokens: Int[np.ndarray, "batch rows"], positions: Int[np.ndarray, "batch rows"]
    ) -> TakenTokens:
        """Take rows of every sequence; a repeated position has what it gave before. Raises MachineError."""
        logits, chosen = [], []
        for sequence, (ids, at) in enumerate(zip(tokens, positions, strict=True)):
            first = np.flatnonzero(np.diff(at, prepend=-1) > 0)
            begin = int(at[0])
            self._back(sequence, begin)
            before, taken = {begin: self._gpu.state(sequence)}, list[TakenTokens]()
            for row in first.tolist():
                taken.append(self._gpu.prefill(sequence, ids[row : row + 1], int(at[row])))
                before[int(at[row]) + 1] = self._gpu.state(sequence)
            self._before[sequence] = before
            every = TakenTokens(*(np.concatenate(column) for column in zip(*taken, strict=True)))
            logits.append(every.logits[at - begin])
            chosen.append(every.chosen[at - begin])
        return TakenTokens(np.stack(logits), np.stack(chosen))

    def _back(self, sequence: int, position: int) -> None:
        """The states from before a position; at 0 a sequence begins anew by itself."""
        if not position:
            return
        held = self._before[sequence]
        if position not in held:
            kept = ", ".join(map(str, held)) or "none"
            raise MachineError(
                f"draft: sequence {sequence} goes on at position {position}, states are kept before {kept}."
            )
        self._gpu.put_state(sequence, held[position])


def verifier_of(model: OpenModel) -> Verifier:
    """The model on GPUs, taking whole rounds of drafts."""
    gpu = GpuSide(model)
    return RewoundSide(gpu) if gpu.state_shapes else gpu
