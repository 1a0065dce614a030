"""A conversation of several turns with its real math: the result that every AFD mode must reproduce."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int32

from lpu.decode.decoders import reference_decode
from lpu.decode.generate import Ids, generate
from lpu.folder import Progress, quiet
from lpu.inputs.document import FileError
from lpu.inputs.model import OpenModel

Users = Sequence[Ids]
"""Token ids that the user brings, by turn and sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """One turn: whole prompts (what was said before and what the user brings), new tokens, their logits."""

    prompts: Ids
    tokens: Ids
    logits: tuple[Float32[np.ndarray, "tokens vocab"], ...]

    @classmethod
    def of(
        cls,
        prompts: Sequence[tuple[int, ...]],
        chosen: Int32[np.ndarray, "tokens batch"],
        logits: Float32[np.ndarray, "tokens batch vocab"],
    ) -> "Spoken":
        """The turn of what each step chose."""
        return cls(
            prompts=tuple(prompts),
            tokens=tuple(map(tuple, chosen.T.tolist())),
            logits=tuple(np.ascontiguousarray(logits[:, i], np.float32) for i in range(len(prompts))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What a way to run a model gave, turn by turn. counts: what it did for it, by name."""

    turns: tuple[Spoken, ...]
    counts: dict[str, int] = field(default_factory=dict[str, int])

    def differs(self, other: "Conversation") -> str:
        """Where tokens or bits of logits first differ from another's; empty if nowhere."""
        if len(self.turns) != len(other.turns):
            return f"{len(self.turns)} turns against {len(other.turns)}"
        for number, (mine, yours) in enumerate(zip(self.turns, other.turns, strict=True), 1):
            pairs = zip(mine.tokens, yours.tokens, mine.logits, yours.logits, strict=True)
            for i, (tokens, others, logits, wanted) in enumerate(pairs):
                wrong = np.flatnonzero((logits.view(np.uint32) != wanted.view(np.uint32)).any(axis=1))
                if len(wrong):
                    return f"turn {number}, sequence {i}: logits of new token {wrong[0]} differ"
                if tokens != others:
                    return f"turn {number}, sequence {i}: tokens differ"
        return ""


def prompts_of(spoken: Sequence[Spoken], users: Users) -> list[tuple[int, ...]]:
    """The whole prompts of the next turn."""
    brought = users[len(spoken)]
    if not spoken:
        return [tuple(ids) for ids in brought]
    before = zip(spoken[-1].prompts, spoken[-1].tokens, brought, strict=True)
    return [(*prompt, *tokens, *ids) for prompt, tokens, ids in before]


def default_users(turns: int, batch: int, vocab: int, first: int, later: int) -> Users:
    """Turns of arbitrary but fixed token ids: `first` of each sequence in the first turn, then `later`."""
    if vocab < 2:
        raise FileError(f"afd: a vocabulary of {vocab} token cannot make a prompt, 2 are needed.")
    sizes = [first] + [later] * (turns - 1)
    draw = np.random.default_rng(0)
    return [tuple(tuple(draw.integers(0, vocab, size).tolist()) for _ in range(batch)) for size in sizes]


def reference(model: OpenModel, users: Users, tokens: int, progress: Progress = quiet) -> Conversation:
    """The module itself on one device, one token a step, every turn from an empty cache."""
    spoken: list[Spoken] = []
    for number in range(len(users)):
        prompts = prompts_of(spoken, users)
        stage = f"reference: turn {number + 1}"
        run = generate(reference_decode(model), prompts, tokens, model.step.batch, progress, stage)
        spoken.append(
            Spoken(
                prompts=run.prompts,
                tokens=run.tokens,
                logits=tuple(logits[-tokens:] for logits in run.logits),
            )
        )
    return Conversation(turns=tuple(spoken))
