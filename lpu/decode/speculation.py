"""The two sides of speculative decoding, drafter and verifier, and the record of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int

from lpu.decode.generate import Decode, Ids, Prefill


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafter:
    """The small model: `decode` takes one token of each of `batch` rows, each row at its position.

    prefill: takes chunks of the prompts that have at least one chunk; None if there is no such program.
    """

    decode: Decode
    batch: int
    vocab: int
    context: int
    prefill: Prefill | None = None


@runtime_checkable
class Verifier(Protocol):
    """The big model, as `lpu.afd.gpu_side.GpuSide`: (logits, chosen) of every token that it takes."""

    batch: int
    vocab: int
    context: int

    def prefill(
        self, sequence: int, tokens: Sequence[int], start: int
    ) -> tuple[Float32[np.ndarray, "tokens vocab"], Int[np.ndarray, " tokens"]]:
        """Take tokens of one sequence from a position on."""
        ...

    def rows(
        self, tokens: Int[np.ndarray, "batch rows"], positions: Int[np.ndarray, "batch rows"]
    ) -> tuple[Float32[np.ndarray, "batch rows vocab"], Int[np.ndarray, "batch rows"]]:
        """Take `rows` tokens of every sequence in one step; a position may repeat with the same token."""
        ...


class Held(NamedTuple):
    """Tokens of each sequence, from position 0 on, whose KV the two sides hold from an earlier turn."""

    draft: Ids = ()
    verify: Ids = ()


class Round(NamedTuple):
    """Per sequence: drafts that could become tokens in this round, and new tokens (0: finished before)."""

    drafted: tuple[int, ...]
    emitted: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """The result of a speculative decode; all counts are of this run.

    logits: of the big model, one row per new token. prompt_steps, prompt_chunks: what the drafter took for
    the prompts. verified: tokens that the verifier took for them, one sequence at a time.
    """

    prompts: Ids
    tokens: Ids
    logits: tuple[Float32[np.ndarray, "tokens vocab"], ...]
    k: int
    rounds: tuple[Round, ...]
    prompt_steps: int
    prompt_chunks: int
    verified: tuple[int, ...]

    @property
    def verify_steps(self) -> int:
        """Steps of k + 1 tokens per sequence that the verifier took."""
        return len(self.rounds)

    @property
    def draft_steps(self) -> int:
        """Steps of one token per sequence that the drafter took in the rounds: k + 1 in each."""
        return len(self.rounds) * (self.k + 1)

    @property
    def drafted(self) -> int:
        """Drafts that could become tokens; drafts beyond the wanted tokens are not counted."""
        return sum(sum(one.drafted) for one in self.rounds)

    @property
    def accepted(self) -> int:
        """Drafts that became tokens."""
        return sum(n - 1 for one in self.rounds for n in one.emitted if n)

    @property
    def acceptance_rate(self) -> float:
        """Accepted over judged drafts; a draft is judged if all before it were accepted. 0 without any.

        The alpha of facts/afd.md section 4, counted.
        """
        pairs = [pair for one in self.rounds for pair in zip(one.drafted, one.emitted, strict=True)]
        judged = sum(min(drafted, emitted) for drafted, emitted in pairs)
        return self.accepted / judged if judged else 0.0

    @property
    def tokens_per_verify(self) -> float:
        """Mean new tokens per sequence and round, without finished sequences; 0 without rounds."""
        emitted = [n for one in self.rounds for n in one.emitted if n]
        return sum(emitted) / len(emitted) if emitted else 0.0

    @property
    def held(self) -> Held:
        """For the next turn: both sides hold the KV of all tokens but the last."""
        every = zip(self.prompts, self.tokens, strict=True)
        known = tuple((*prompt, *tokens[:-1]) for prompt, tokens in every)
        return Held(known, known)
