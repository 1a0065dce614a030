"""Speculative greedy decode: the tokens and logits of a big model, in fewer of its steps.

A round: the drafter proposes k tokens of every sequence, one per step; the verifier takes all of them in one
step, keeps those that it would have chosen, and adds one token. Source: facts/afd.md sections 3.3, 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, Int32

from lpu.decode.generate import Decode, Ids, Prefill, check_room, chunk_starts
from lpu.folder import Progress, quiet
from lpu.inputs.document import FileError


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


def speculate(
    draft: Drafter,
    verify: Verifier,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    k: int,
    *,
    held: Held | None = None,
    progress: Progress = quiet,
) -> Speculation:
    """`tokens` new tokens per prompt, those of the verifier's own greedy decode whatever the drafts are.

    held: tokens whose KV the sides hold; a prompt that begins with them continues after them. Raises
    FileError if the vocabularies differ, or the prompts do not fit one of the two.
    """
    _check(draft, verify, prompts, tokens, k)
    held = held or Held()
    new: list[list[int]] = []
    logits: list[list[Float32[np.ndarray, " vocab"]]] = []
    starts = _starts(prompts, held.verify)
    for i, (prompt, start) in enumerate(zip(prompts, starts, strict=True)):
        progress("verifier: prompts", i, len(prompts))
        out, chosen = verify.prefill(i, prompt[start:], start)
        new.append([int(chosen[-1])])
        logits.append([np.array(out[-1], np.float32)])
    steps, chunks = _feed(draft, prompts, _starts(prompts, held.draft))
    rounds: list[Round] = []
    while (least := min(map(len, new))) < tokens:
        progress("rounds", least, tokens)
        rounds.append(_round(draft, verify, prompts, new, logits, tokens, k))
    return Speculation(
        prompts=tuple(map(tuple, prompts)),
        tokens=tuple(map(tuple, new)),
        logits=tuple(map(np.stack, logits)),
        k=k,
        rounds=tuple(rounds),
        prompt_steps=steps,
        prompt_chunks=chunks,
        verified=tuple(len(prompt) - start for prompt, start in zip(prompts, starts, strict=True)),
    )


@dataclass(slots=True)
class _Line:
    """Tokens of one sequence in a round: the last known token and its drafts, from position `begin` on.

    Only `useful` drafts can become tokens; after them the last position repeats, on both sides.
    """

    tokens: list[int]
    begin: int
    useful: int

    def at(self, row: int) -> tuple[int, int]:
        """Token and position of a row."""
        row = min(row, self.useful)
        return self.tokens[row], self.begin + row


def _line(prompt: Sequence[int], new: list[int], count: int) -> _Line:
    """The line of a sequence; of a finished one its last token but one, whose KV both sides hold."""
    known = [*prompt, *new]
    back = 1 if len(new) < count else 2
    return _Line([known[-back]], len(known) - back, max(count - len(new) - 1, 0))


def _round(
    draft: Drafter,
    verify: Verifier,
    prompts: Sequence[Sequence[int]],
    new: list[list[int]],
    logits: list[list[Float32[np.ndarray, " vocab"]]],
    count: int,
    k: int,
) -> Round:
    """Draft, verify, and extend `new` and `logits`.

    The drafter takes k + 1 steps for k drafts: the last step takes the last draft, so that its KV is complete
    if all are accepted. Its result is not needed, so it can run while the verifier does.
    KV of rejected drafts lies after the end of the sequence and is overwritten.
    """
    lines = [_line(prompt, tokens, count) for prompt, tokens in zip(prompts, new, strict=True)]
    for line in lines:
        line.useful = min(line.useful, k)
    for row in range(k + 1):
        _, chosen = draft.decode(*_rows(lines, draft.batch, [row]))
        for i, line in enumerate(lines):
            if row < line.useful:
                line.tokens.append(int(chosen[i]))
    tokens, at = _rows(lines, verify.batch, range(k + 1))
    out, chosen = verify.rows(tokens.reshape(verify.batch, -1), at.reshape(verify.batch, -1))
    emitted: list[int] = []
    for i, line in enumerate(lines):
        if len(new[i]) == count:
            emitted.append(0)
            continue
        agreed = [token == wish for token, wish in zip(line.tokens[1:], chosen[i].tolist(), strict=False)]
        accepted = [*agreed, False].index(False)
        new[i] += chosen[i, : accepted + 1].tolist()
        logits[i] += list(np.array(out[i, : accepted + 1], np.float32))
        emitted.append(accepted + 1)
    return Round(tuple(line.useful for line in lines), tuple(emitted))


def _rows(
    lines: list[_Line], batch: int, rows: Sequence[int]
) -> tuple[Int32[np.ndarray, " batch_rows"], Int32[np.ndarray, " batch_rows"]]:
    """Tokens and positions of `batch` x `rows` rows; 0 in the rows of the batch without a sequence."""
    both = np.zeros((2, batch, len(rows)), np.int32)
    for i, line in enumerate(lines):
        both[:, i] = np.array([line.at(row) for row in rows]).T
    return both[0].reshape(-1), both[1].reshape(-1)


def _feed(draft: Drafter, prompts: Sequence[Sequence[int]], starts: list[int]) -> tuple[int, int]:
    """Feed the prompts to the drafter; returns the steps and chunks that it took."""
    chunks, left = 0, list(starts)
    for i, prompt in enumerate(prompts):
        if draft.prefill is None or len(prompt) < draft.prefill.size:
            continue
        for first in chunk_starts(len(prompt), draft.prefill.size, starts[i]):
            where = np.arange(first, first + draft.prefill.size, dtype=np.int32)
            draft.prefill.take(np.array(prompt, np.int32)[where], where, i)
            chunks += 1
        left[i] = len(prompt)
    steps = max(len(prompt) - begin for prompt, begin in zip(prompts, left, strict=True))
    for step in range(steps):
        lines = [
            _Line([prompt[at]], at, 0)
            for prompt, begin in zip(prompts, left, strict=True)
            for at in [min(begin + step, len(prompt) - 1)]
        ]
        draft.decode(*_rows(lines, draft.batch, [0]))
    return steps, chunks


def _starts(prompts: Sequence[Sequence[int]], held: Ids) -> list[int]:
    """Tokens of each prompt that are held; its last token is taken again, for its logits."""
    known = [*held, *[()] * (len(prompts) - len(held))]
    return [_shared(prompt[:-1], tokens) for prompt, tokens in zip(prompts, known, strict=True)]


def _shared(prompt: Sequence[int], held: Sequence[int]) -> int:
    """Length of the common prefix."""
    equal = [one == other for one, other in zip(prompt, held, strict=False)]
    return [*equal, False].index(False)


def _check(draft: Drafter, verify: Verifier, prompts: Sequence[Sequence[int]], tokens: int, k: int) -> None:
    if draft.vocab != verify.vocab:
        raise FileError(
            f"draft: the drafter has a vocabulary of {draft.vocab} tokens, the big model one of "
            f"{verify.vocab}. Give two models of one tokenizer."
        )
    if k < 1:
        raise FileError(f"draft: {k} drafts per round. Take at least 1.")
    for side in (draft, verify):
        check_room(prompts, tokens, side.batch, side.context)
