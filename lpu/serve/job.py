"""One sequence to decode: its prompt, how tokens are chosen, and when it is over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from lpu.decode.choose import Finish, RunOptions, finish_of
from lpu.inputs.text import Tokenizer
from models.contract.sampling import draw

Logits = Float32[np.ndarray, " vocab"]


class Likely(NamedTuple):
    """The log of a token's probability, and the most likely tokens of its place with theirs."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class NewToken(NamedTuple):
    """A token of a sequence; of its prompt if echoed. finish: why the sequence is over with it, if it is."""

    token: int
    likely: Likely | None
    finish: Finish | None


@dataclass(slots=True)
class Job:
    """What is asked of a slot. told: called with each new token, from any thread.

    echoed: of each token of the prompt but the first, once it is fed. logprobs: how many most likely tokens
    are wanted beside each; None: not even its own. ticks: of each new token, the steps after the first one's;
    tick: of the next. drafted: tokens that were proposed. cached: of the prompt, those that
    were not computed.
    """

    prompt: tuple[int, ...]
    most: int
    how: RunOptions
    ends: frozenset[int]
    tokenizer: Tokenizer | None
    told: Callable[[NewToken | BaseException], None]
    logprobs: int | None = None
    echo: bool = False
    min_tokens: int = 0
    cancelled: bool = False
    tick: int = 0
    drafted: int = 0
    cached: int = 0
    tokens: list[int] = field(default_factory=list[int])
    ticks: list[int] = field(default_factory=list[int])
    echoed: list[Likely] = field(default_factory=list[Likely])

    def choose(self, logits: Logits, likely: int) -> NewToken:
        """The next token: that of `lpu run` with the same options."""
        sampling = self.how.sampling
        place = len(self.prompt) + len(self.tokens)
        token = draw(logits, sampling, place).token if sampling.temperature else likely
        self.add(token)
        return NewToken(token, self.likelihood(logits, token), self.finish())

    def add(self, token: int) -> None:
        """One more token, made now."""
        self.tokens.append(token)
        self.ticks.append(self.tick)

    @property
    def steps(self) -> int:
        """Steps after that of the first token."""
        return self.ticks[-1] if self.ticks else 0

    def finish(self) -> Finish | None:
        """Why the sequence is over now; None if it is not."""
        if len(self.tokens) >= self.min_tokens:
            over = finish_of(self.how, self.ends, self.tokenizer, self.tokens)
            if over != "length":
                return over
        return "length" if len(self.tokens) >= self.most else None

    def likelihood(self, logits: Logits, token: int) -> Likely | None:
        """What is told of a token's probability, if anything: softmax of the logits in f64."""
        if self.logprobs is None:
            return None
        wide = logits.astype(np.float64)
        whole = wide - wide.max()
        whole -= np.log(np.exp(whole).sum())
        order = np.argsort(-logits, kind="stable")[: self.logprobs].tolist()
        return Likely(float(whole[token]), tuple((one, float(whole[one])) for one in order))


def synthetic(prompt: Sequence[int], place: int, vocab: int) -> int:
    """The made-up token at a place: sha256 of the prompt's ids and the place, modulo the vocabulary."""
    import hashlib

    sha = hashlib.sha256(np.asarray(prompt, "<i4").tobytes())
    sha.update(place.to_bytes(8, "little"))
    return int.from_bytes(sha.digest()[:8], "little") % vocab
