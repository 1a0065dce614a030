"""How the next token is chosen from logits, and when a sequence ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from lpu.inputs.text import Tokenizer
from lpu.run.streamed.feed import StreamRate
from models.contract.sampling import GREEDY as DRAWN_GREEDILY
from models.contract.sampling import Sampling, draw

Logits = Float32[np.ndarray, " vocab"]
Finish = Literal["end", "stop", "length"]
"""Why a sequence is over: an end token, a stop text, or all its tokens are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a decode asks at every new token.

    pick: (logits, most likely token, its place in the sequence) -> the token. ended: (sequence, its new
    tokens) -> whether it is over. told: called with the same after every new token.
    """

    pick: Callable[[Logits, int, int], int] = lambda logits, likely, place: likely
    ended: Callable[[int, Sequence[int]], bool] = lambda sequence, tokens: False
    told: Callable[[int, Sequence[int]], None] = lambda sequence, tokens: None


GREEDY = Choice()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a program is run: how tokens are drawn, and what ends a sequence besides its length.

    stop: texts; ignore_eos: whether the model's own end tokens end nothing. told: see Choice. stream: take
    the weights call by call at every step; None: if they exceed the host's memory. estimated: called before
    the first step of a streamed program, with what a step takes.
    """

    stream: bool | None = None
    sampling: Sampling = DRAWN_GREEDILY
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    told: Callable[[int, Sequence[int]], None] = lambda sequence, tokens: None
    estimated: Callable[[StreamRate], None] | None = None


def choice_of(options: RunOptions, ends: frozenset[int], tokenizer: Tokenizer | None) -> Choice:
    """The choice of a model with these end tokens. `stop` needs a tokenizer."""
    sampling = options.sampling

    def pick(logits: Logits, likely: int, place: int) -> int:
        return draw(logits, sampling, place).token if sampling.temperature else likely

    return Choice(
        pick=pick,
        ended=lambda sequence, tokens: finish_of(options, ends, tokenizer, tokens) != "length",
        told=options.told,
    )


def finish_of(
    options: RunOptions, ends: frozenset[int], tokenizer: Tokenizer | None, tokens: Sequence[int]
) -> Finish:
    """Why a sequence with these new tokens is over; "length" if nothing else says so."""
    if not options.ignore_eos and tokens[-1] in ends:
        return "end"
    if options.stop and tokenizer is not None:
        text = tokenizer.decode(tokens)
        if any(one in text for one in options.stop):
            return "stop"
    return "length"


def until_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop text in it."""
    return text[: min((text.index(one) for one in stop if one in text), default=len(text))]
