"""Decode, token by token: the same loop for the machine, the reference and the plain f32 baseline.

With a prefill step, prompts of at least one chunk go through that step first.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int32

from lpu.decode.choose import GREEDY, Choice
from lpu.folder import Progress
from lpu.inputs.document import FileError

Ids = tuple[tuple[int, ...], ...]
BatchIds = Int32[np.ndarray, " batch"]
ChunkIds = Int32[np.ndarray, " chunk"]
BatchResult = tuple[Float32[np.ndarray, "batch vocab"], BatchIds]
ChunkResult = tuple[Float32[np.ndarray, "chunk vocab"], ChunkIds]
Decode = Callable[[BatchIds, BatchIds], BatchResult]
"""(token, position) of each row of the batch -> (logits, most likely token) of each row."""
Chunk = Callable[[ChunkIds, ChunkIds, int], ChunkResult]
"""(tokens, positions, sequence) of a chunk of one prompt -> (logits, most likely token) of each token."""


@dataclass(frozen=True, slots=True)
class WholeStep:
    """An encoder's step: all tokens of `sequences` at once, the last one again where the step has room."""

    take: Decode
    sequences: int

    def __call__(self, tokens: BatchIds, at: BatchIds) -> BatchResult:
        """Numbers of all labels of each row, and the likeliest label of each."""
        return self.take(tokens, at)


@dataclass(frozen=True, slots=True)
class Prefill:
    """Takes `size` tokens of one sequence at their positions: (logits, most likely tokens) of all of them.

    overlaps: whether it may take tokens again; a state of fixed size has seen each of them once.
    """

    size: int
    take: Chunk
    overlaps: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The result of a decode. Sequence i took `len(prompts[i]) + len(tokens[i]) - 1` positions.

    Of an encoder it took `len(prompts[i])`, and the tokens are labels of them.

    logits: of every sequence, one row per position. positions, seconds: the largest position of each decode
    step and its time; chunks, chunk_seconds: the same of each chunk of a prompt.
    """

    prompts: Ids
    tokens: Ids
    logits: tuple[Float32[np.ndarray, "_ vocab"], ...]
    positions: tuple[int, ...]
    seconds: tuple[float, ...]
    chunks: tuple[int, ...] = ()
    chunk_seconds: tuple[float, ...] = ()

    @property
    def steps(self) -> int:
        """Number of decode steps."""
        return len(self.positions)

    @property
    def digest(self) -> str:
        """Sha256 over the f32 bytes of all logits, sequence by sequence, step by step."""
        sha = hashlib.sha256()
        for rows in self.logits:
            sha.update(np.ascontiguousarray(rows, "<f4").tobytes())
        return sha.hexdigest()


def steps_needed(prompts: Sequence[Sequence[int]], count: int) -> int:
    """Steps, and so positions of the context, that the longest prompt takes with `count` new tokens."""
    return max(len(prompt) for prompt in prompts) + count - 1


def check_room(
    prompts: Sequence[Sequence[int]], count: int, batch: int, context: int, *, whole: bool = False
) -> None:
    """Raise FileError if the prompts are too many, or too long for the context with `count` new tokens.

    whole: an encoder takes one after another, and nothing is new.
    """
    if whole:
        if (longest := max(map(len, prompts))) > context:
            raise FileError(
                f"run: {longest} tokens of a prompt, the program takes sequences of at most {context}. "
                f"Give fewer tokens, or compile with --context {longest}."
            )
        return
    if count < 1:
        raise FileError(f"run: --tokens is {count}, must be at least 1.")
    if len(prompts) > batch:
        raise FileError(
            f"run: {len(prompts)} prompts, the program has a batch of {batch}. "
            f"Compile with --batch {len(prompts)}."
        )
    if (steps := steps_needed(prompts, count)) > context:
        raise FileError(
            f"run: {steps - count + 1} prompt tokens and {count} new ones need a context of {steps}, "
            f"compiled is {context}. Give fewer tokens, or compile with --context {steps}."
        )


def generate(
    decode: Decode,
    prompts: Sequence[Sequence[int]],
    count: int,
    batch: int,
    progress: Progress | None = None,
    stage: str = "run",
    prefill: Prefill | None = None,
    how: Choice = GREEDY,
) -> Generation:
    """Feed each prompt one token per step, then its own choice, until each is over or has `count` new tokens.

    An encoder takes each prompt in one step, and its tokens are the likeliest labels of the prompt's.
    how: the choice, and when a sequence is over before. A sequence that is done, or a row of the batch
    without a prompt, repeats its last step. A prompt that `prefill` took before begins with its first new
    token.
    """
    if isinstance(decode, WholeStep):
        return _encoded(decode, prompts, batch, progress, stage)
    grown = _Grown.of(prompts, count, how)
    if prefill is not None:
        for i, prompt in enumerate(prompts):
            if len(prompt) >= prefill.size:
                _chunked(grown, prefill, prompt, i, progress, stage)
    total = max(len(one) + count - 1 - done for one, done in zip(prompts, grown.ahead, strict=True))
    for step in range(total):
        if all(grown.over):
            break
        if progress:
            progress(stage, step, total)
        tokens, at = grown.fed_at(step, batch)
        start = time.perf_counter()
        out, chosen = decode(tokens, at)
        grown.seconds.append(time.perf_counter() - start)
        grown.positions.append(int(at.max()))
        for i, prompt in enumerate(prompts):
            if grown.over[i]:
                continue
            grown.logits[i].append(np.array(out[i], np.float32))
            if at[i] >= len(prompt) - 1:
                grown.choose(i, int(chosen[i]), int(at[i]) + 1)
    return grown.ended(prompts)


@dataclass(slots=True)
class _Grown:
    """Sequences as they grow to `count` new tokens each.

    fed: tokens that each is made of so far, but for the last one when it is over. ahead: steps that each had
    before the first of all. The rest as in `Generation`.
    """

    count: int
    how: Choice
    fed: list[list[int]]
    new: list[list[int]]
    logits: list[list[Float32[np.ndarray, " vocab"]]]
    ahead: list[int]
    over: list[bool]
    positions: list[int] = field(default_factory=list[int])
    seconds: list[float] = field(default_factory=list[float])
    chunks: list[int] = field(default_factory=list[int])
    chunk_seconds: list[float] = field(default_factory=list[float])

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], count: int, how: Choice) -> "_Grown":
        each = range(len(prompts))
        fed = [list(prompt) for prompt in prompts]
        return cls(
            count, how, fed, [[] for _ in each], [[] for _ in each], [0 for _ in each], [False for _ in each]
        )

    def choose(self, i: int, likely: int, place: int) -> None:
        """The next token of a sequence, by its last logits; place: the position that it gets."""
        new = self.new[i]
        new.append(self.how.pick(self.logits[i][-1], likely, place))
        self.how.told(i, new)
        self.over[i] = len(new) == self.count or self.how.ended(i, new)
        if not self.over[i]:
            self.fed[i].append(new[-1])

    def fed_at(self, step: int, batch: int) -> tuple[BatchIds, BatchIds]:
        """(tokens, positions) of a step of all sequences; rows without one take token 0 at position 0."""
        at, tokens = np.zeros(batch, np.int32), np.zeros(batch, np.int32)
        for i, sequence in enumerate(self.fed):
            at[i] = min(self.ahead[i] + step, len(sequence) - 1)
            tokens[i] = sequence[at[i]]
        return tokens, at

    def ended(self, prompts: Sequence[Sequence[int]]) -> Generation:
        return Generation(
            prompts=tuple(map(tuple, prompts)),
            tokens=tuple(map(tuple, self.new)),
            logits=tuple(map(np.stack, self.logits)),
            positions=tuple(self.positions),
            seconds=tuple(self.seconds),
            chunks=tuple(self.chunks),
            chunk_seconds=tuple(self.chunk_seconds),
        )


def _chunked(
    grown: _Grown, prefill: Prefill, prompt: Sequence[int], i: int, progress: Progress | None, stage: str
) -> None:
    """Chunks of one prompt, the first ones from its start."""
    begins = chunk_starts(len(prompt), prefill.size, overlaps=prefill.overlaps)
    for k, first in enumerate(begins):
        if progress:
            progress(f"{stage}: prompt {i}", k, len(begins))
        where = np.arange(first, first + prefill.size, dtype=np.int32)
        start = time.perf_counter()
        out, chosen = prefill.take(np.array(prompt, np.int32)[where], where, i)
        grown.chunk_seconds.append(time.perf_counter() - start)
        grown.chunks.append(int(where[-1]))
        grown.logits[i] += list(np.array(out[len(grown.logits[i]) - first :], np.float32))
        if where[-1] == len(prompt) - 1:
            grown.choose(i, int(chosen[-1]), len(prompt))
    grown.ahead[i] = begins[-1] + prefill.size


def _encoded(
    step: WholeStep, prompts: Sequence[Sequence[int]], rows: int, progress: Progress | None, stage: str
) -> Generation:
    """As many prompts in a step as it takes, each filled up with its last token at its last position.

    A step that has room for more prompts takes its last one again.
    """
    each = rows // step.sequences
    logits: list[Float32[np.ndarray, "tokens labels"]] = []
    labels: list[tuple[int, ...]] = []
    seconds: list[float] = []
    positions: list[int] = []
    for first in range(0, len(prompts), step.sequences):
        if progress:
            progress(stage, first, len(prompts))
        some = prompts[first : first + step.sequences]
        filled = [*some, *[some[-1]] * (step.sequences - len(some))]
        at = [np.minimum(np.arange(each, dtype=np.int32), len(prompt) - 1) for prompt in filled]
        tokens = [np.array(prompt, np.int32)[place] for prompt, place in zip(filled, at, strict=True)]
        start = time.perf_counter()
        out, chosen = step(np.concatenate(tokens), np.concatenate(at))
        seconds.append(time.perf_counter() - start)
        positions.append(max(map(len, some)) - 1)
        for i, prompt in enumerate(some):
            own = slice(i * each, i * each + len(prompt))
            logits.append(np.array(out[own], np.float32))
            labels.append(tuple(map(int, chosen[own])))
    return Generation(
        prompts=tuple(map(tuple, prompts)),
        tokens=tuple(labels),
        logits=tuple(logits),
        positions=tuple(positions),
        seconds=tuple(seconds),
    )


def chunk_starts(tokens: int, size: int, start: int = 0, *, overlaps: bool = True) -> list[int]:
    """First positions of the chunks of a prompt whose tokens before `start` were taken already.

    The last chunk ends with the prompt: it takes some positions again, with the same keys, values and logits
    as before. Where it may not, what is less than a chunk is left.
    """
    if not overlaps:
        return list(range(start, tokens - size + 1, size))
    return [*range(start, tokens - size, size), tokens - size]


def replay(
    decode: Decode, run: Generation, batch: int, progress: Progress | None = None, stage: str = "replay"
) -> Generation:
    """Decode again with the tokens that `run` fed and chose, whatever `decode` would choose."""
    if isinstance(decode, WholeStep):
        return generate(decode, run.prompts, 1, batch, progress, stage)
    known = [[*prompt, *tokens] for prompt, tokens in zip(run.prompts, run.tokens, strict=True)]

    def forced(tokens: BatchIds, at: BatchIds) -> BatchResult:
        out, chosen = decode(tokens, at)
        chosen = np.array(chosen)
        for i, sequence in enumerate(known):
            chosen[i] = sequence[min(int(at[i]) + 1, len(sequence) - 1)]
        return out, chosen

    ended = Choice(ended=lambda i, tokens: len(tokens) == len(run.tokens[i]))
    return generate(forced, run.prompts, max(map(len, run.tokens)), batch, progress, stage, how=ended)
