"""A mode under a server: how it takes steps of many sequences, as real math, and what they take in time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, Int32

from compiler.program.program import Program
from lpu.gpu.share import GpuShare


class TakenStep(NamedTuple):
    """What a step gave: logits and the most likely next token of every token that each row took.

    drafts: of each row the tokens that it took after its own; any of them may be wrong.
    """

    logits: Float32[np.ndarray, "batch rows vocab"]
    likely: Int[np.ndarray, "batch rows"]
    drafts: tuple[tuple[int, ...], ...] = ()


class Joined(NamedTuple):
    """What was taken of a prompt before its first step: its tokens up to `tokens`.

    logits: of those that were computed, the last of them. cached: how many were not.
    """

    tokens: int
    logits: Float32[np.ndarray, "computed vocab"]
    cached: int = 0


@runtime_checkable
class RowSteps(Protocol):
    """Sequences in rows of a batch; what a row computes does not depend on the others."""

    batch: int

    def join(self, row: int, prompt: Sequence[int], scored: bool) -> Joined | None:
        """Begin a sequence; None: its tokens are to be fed, one a step. scored: logits of all are wanted."""
        ...

    def known(self, prompt: Sequence[int]) -> int:
        """Tokens of a prompt that `join` would not compute, from any thread."""
        ...

    def close(self) -> None:
        """Let go of what is held beside memory."""
        ...

    def step(
        self, tokens: Int32[np.ndarray, " batch"], at: Int32[np.ndarray, " batch"], more: Sequence[int]
    ) -> TakenStep:
        """One token of every row at its position; more: tokens of each row that may come after the next."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedMode:
    """A mode whose first token is the GPUs'. Times are picoseconds.

    program: that of the LPUs. prefill: of (tokens of a prompt). prompt: in which the LPUs take those, beside
    the GPUs. turn: from token to token, on average, at (tokens of KV). round: of a round that gives one token
    or more, where the mode has rounds. steps: loads the weights.
    """

    program: Program
    gpus: GpuShare
    prefill: Callable[[int], int]
    turn: Callable[[int], int]
    steps: Callable[[], RowSteps]
    prompt: Callable[[int], int] = lambda tokens: 0
    round: Callable[[int], int] | None = None
