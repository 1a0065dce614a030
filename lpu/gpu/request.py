"""A request of several turns: the tokens that each turn brings and decodes."""

from dataclasses import dataclass
from math import inf
from typing import Annotated

from compiler.options import Option
from lpu.inputs.document import FileError

MOST_TURNS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`turns` turns of `batch` sequences: each brings `prompt_tokens` tokens, then `new_tokens` are decoded.

    later_tokens: what turns after the first bring. cached_tokens: of the first prompt, those whose KV the
    GPUs have. queue_seconds: before each prefill.
    """

    prompt_tokens: Annotated[int, Option("--prompt-tokens", "Tokens that a turn brings.")] = 4096
    new_tokens: Annotated[int, Option("--new-tokens", "Tokens decoded in a turn.")] = 512
    later_tokens: Annotated[
        int | None, Option("--later-tokens", "Tokens that turns after the first bring.", shown="the same")
    ] = None
    batch: Annotated[int, Option("--batch", "Sequences at once.")] = 1
    turns: Annotated[int, Option("--turns", "Turns of the conversation.")] = 1
    queue_seconds: Annotated[float, Option("--queue-seconds", "Before a prefill begins.")] = 0.0
    cached_tokens: int = 0

    def __post_init__(self) -> None:
        least = {"prompt_tokens": 2, "new_tokens": 1, "batch": 1, "turns": 1, "queue_seconds": 0}
        for name, bound in least.items():
            if not bound <= getattr(self, name) < inf:
                option, given = f"--{name.replace('_', '-')}", getattr(self, name)
                raise FileError(f"request: {option} is {given}, must be at least {bound} and finite.")
        if self.turns > MOST_TURNS:
            raise FileError(f"request: --turns is {self.turns}, must be at most {MOST_TURNS}.")
        if self.later_tokens is not None and self.later_tokens < 1:
            raise FileError(f"request: --later-tokens is {self.later_tokens}, must be at least 1.")

        if not 0 <= self.cached_tokens < self.prompt_tokens - 1:
            raise FileError(
                f"request: --cached-tokens is {self.cached_tokens}, must be 0 to {self.prompt_tokens - 2}: "
                "two tokens of a prompt are always taken."
            )

    def brings(self, turn: int) -> int:
        """Tokens of the user in a turn, counted from 0."""
        return self.prompt_tokens if turn == 0 or self.later_tokens is None else self.later_tokens

    def before(self, turn: int) -> int:
        """Tokens of a sequence before a turn: those that it brought, and those that were decoded."""
        return sum(self.brings(earlier) + self.new_tokens for earlier in range(turn))

    def middle(self, turn: int) -> int:
        """Tokens of a sequence when half of a turn is decoded: the mean length of its KV."""
        return self.before(turn) + self.brings(turn) + self.new_tokens // 2

    @property
    def context(self) -> int:
        """Tokens of a sequence after the last turn."""
        return self.before(self.turns)
