"""A conversation of many turns in one slot: what of the KV is used again, and what must be fed anew.

A slot holds the KV of the tokens that it was fed. The prompt of the next turn is fed from the first token on
that differs; its last token is always fed, for its logits. What is kept of an answer's reasoning decides how
much that is: a token that is dropped moves all that follow, and their KV is of no use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from lpu.decode.choose import GREEDY, Choice
from lpu.decode.generate import Decode, check_room

Keep = Literal["all", "tools", "none"]
KEEPS: tuple[Keep, ...] = ("all", "tools", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkTurn:
    """What a turn brings. tool: the result of a tool, not a user's message. new: tokens of the answer.

    reasoning: of those, how many at the beginning are reasoning.
    """

    brings: tuple[int, ...]
    new: int
    reasoning: int = 0
    tool: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A turn: its whole prompt, the new tokens, their logits, and how many tokens' KV was used again."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logits: Float32[np.ndarray, "tokens vocab"]
    reused: int

    @property
    def fed(self) -> int:
        """Tokens of the prompt that were fed."""
        return len(self.prompt) - self.reused


class Talk:
    """One sequence in row 0 of a machine that starts empty; the other rows repeat its steps."""

    def __init__(self, decode: Decode, batch: int, context: int) -> None:
        self._decode, self._batch, self._context = decode, batch, context
        self.held: list[int] = []

    def say(self, prompt: Sequence[int], new: int, how: Choice = GREEDY) -> Answered:
        """`new` tokens after a prompt. Raises FileError if they do not fit the context."""
        check_room([prompt], new, self._batch, self._context)
        equal = [one == other for one, other in zip(self.held, prompt[:-1], strict=False)]
        reused = [*equal, False].index(False)
        self.held = list(prompt[:reused])
        tokens: list[int] = []
        logits: list[Float32[np.ndarray, " vocab"]] = []
        while len(tokens) < new:
            at = len(self.held)
            fed = prompt[at] if at < len(prompt) else tokens[-1]
            out, likely = self._decode(
                np.full(self._batch, fed, np.int32), np.full(self._batch, at, np.int32)
            )
            self.held.append(fed)
            if at >= len(prompt) - 1:
                logits.append(np.array(out[0], np.float32))
                tokens.append(how.pick(logits[-1], int(likely[0]), at + 1))
        return Answered(prompt=tuple(prompt), tokens=tuple(tokens), logits=np.stack(logits), reused=reused)


def talk_through(talk: Talk, turns: Sequence[TalkTurn], keep: Keep, how: Choice = GREEDY) -> list[Answered]:
    """All turns, each after what is kept of those before.

    keep: of reasoning, all; while results of tools come (a user's next message drops it); or none.
    """
    said: list[tuple[tuple[int, ...], bool]] = []  # (tokens, whether they are reasoning)
    found: list[Answered] = []
    for turn in turns:
        if keep == "tools" and not turn.tool:
            said = [one for one in said if not one[1]]
        said.append((turn.brings, False))
        prompt = [token for tokens, _ in said for token in tokens]
        found.append(talk.say(prompt, turn.new, how))
        tokens = found[-1].tokens
        if keep != "none":
            said.append((tokens[: turn.reasoning], True))
        said.append((tokens[turn.reasoning :], False))
    return found
