"""Greedy decode, token by token: the same loop for the machine, the reference and the plain f32 baseline."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32

from lpu.document import FileError
from lpu.folder import Progress

Ids = tuple[tuple[int, ...], ...]
Decode = Callable[[Int32[np.ndarray, " batch"], Int32[np.ndarray, " batch"]], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a decode gave. Sequence i took `len(prompts[i]) + len(tokens[i]) - 1` steps.

    logits: of every sequence, one row per step that it took. positions: the largest of each step.
    """

    prompts: Ids
    tokens: Ids
    logits: tuple[Float32[np.ndarray, "_ vocab"], ...]
    positions: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def steps(self) -> int:
        """Steps that the longest sequence took."""
        return len(self.positions)

    @property
    def digest(self) -> str:
        """Sha256 over the f32 bytes of all logits, sequence by sequence, step by step."""
        sha = hashlib.sha256()
        for rows in self.logits:
            sha.update(np.ascontiguousarray(rows, "<f4").tobytes())
        return sha.hexdigest()


def steps_needed(prompts: Sequence[Sequence[int]], count: int) -> int:
    """Steps, and so words of context, that the longest prompt takes with `count` new tokens."""
    return max(len(prompt) for prompt in prompts) + count - 1


def check_room(prompts: Sequence[Sequence[int]], count: int, batch: int, context: int) -> None:
    """Raise FileError if the prompts are too many, or too long for the context with `count` new tokens."""
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
) -> Generation:
    """Feed each prompt one token per step, then its own greedy choice, until each has `count` new tokens.

    A sequence that is done, or a row of the batch without a prompt, repeats its last step.
    """
    fed = [list(prompt) for prompt in prompts]
    new: list[list[int]] = [[] for _ in prompts]
    logits: list[list[np.ndarray]] = [[] for _ in prompts]
    positions: list[int] = []
    seconds: list[float] = []
    total = steps_needed(prompts, count)
    for step in range(total):
        if progress:
            progress(stage, step, total)
        at = np.zeros(batch, np.int32)
        tokens = np.zeros(batch, np.int32)
        for i, sequence in enumerate(fed):
            at[i] = min(step, len(sequence) - 1)
            tokens[i] = sequence[at[i]]
        start = time.perf_counter()
        out, chosen = decode(tokens, at)
        seconds.append(time.perf_counter() - start)
        positions.append(int(at.max()))
        for i, prompt in enumerate(prompts):
            if len(new[i]) == count:
                continue
            logits[i].append(np.array(out[i], np.float32))
            if step >= len(prompt) - 1:
                new[i].append(int(chosen[i]))
                if len(new[i]) < count:
                    fed[i].append(int(chosen[i]))
    return Generation(
        prompts=tuple(map(tuple, prompts)),
        tokens=tuple(map(tuple, new)),
        logits=tuple(map(np.stack, logits)),
        positions=tuple(positions),
        seconds=tuple(seconds),
    )


def replay(
    decode: Decode, run: Generation, batch: int, progress: Progress | None = None, stage: str = "replay"
) -> Generation:
    """Decode again with the tokens that `run` fed and chose, whatever `decode` would choose."""
    known = [[*prompt, *tokens] for prompt, tokens in zip(run.prompts, run.tokens, strict=True)]

    def forced(tokens: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out, chosen = decode(tokens, at)
        chosen = np.array(chosen)
        for i, sequence in enumerate(known):
            chosen[i] = sequence[min(int(at[i]) + 1, len(sequence) - 1)]
        return out, chosen

    return generate(forced, run.prompts, len(run.tokens[0]), batch, progress, stage)
