"""A machine as requests see it: the steps of a compiled program, its slots, and what prefills for it.

All times are whole cycles of the LPUs' clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from lpu.traffic.tiers import LowerTier


class StepPace(NamedTuple):
    """A bucket in time: a wave enters every `interval`, a user steps once a `turn`, a step takes `step`."""

    context: int
    interval: int
    turn: int
    step: int


class Prompt(NamedTuple):
    """A prefill on GPUs in time.

    compute: until the first token's logits would be there. exposed: what of the hand-over of its KV is left
    then, if a slot was there from the beginning. handover: all of it, where it begins when the prefill is
    done. wire: of it, what holds the NICs.
    """

    compute: int
    exposed: int
    handover: int
    wire: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTier:
    """KV that slots still hold. cost: of a prefill, as below, and the tokens whose KV is in its slot.

    fetch: of blocks that the GPUs lack, over the bridge; `blocks` of it means nothing.
    """

    cost: Callable[[int, int, int], Prompt]
    fetch: LowerTier


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefiller:
    """GPUs that prefill, one prompt at a time to each of `replicas`.

    cost: of (tokens of the prompt, of which the GPUs hold the KV of the first). room: bytes that all GPUs
    have for what waits to be handed over, of which a prompt takes `token` for each token and `state` besides.
    cache_blocks: blocks of the prefix cache in HBM, each with states where there are any; None: no limit.
    tiers: below it. slots: what is known of KV in slots, if it is used again.
    """

    replicas: int
    cost: Callable[[int, int], Prompt]
    room: int
    cache_blocks: int | None
    token: int = 1
    state: int = 0
    tiers: tuple[LowerTier, ...] = ()
    slots: SlotTier | None = None

    def waiting(self, tokens: int) -> int:
        """Bytes of a prompt that waits to be handed over."""
        return tokens * self.token + self.state


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """`groups` groups of `rows` users, each group with a wave of its own in the program's pipeline.

    paces: by context bucket, ascending; all users in flight have one bucket. prefill: None if prompts are fed
    token by token, in the slot of their user. queue: requests that may wait for a prefill or a slot; None:
    any number.

    gpus_step: the GPUs have a part in every step. So a prefill takes a slot when it begins, gives the first
    new token, and stops all steps until it is done. by_load: the LPUs take a prompt where the GPUs would be
    done with it later. keeps: a prompt takes a slot that still holds KV of its beginning. ddr5: beside the
    LPUs, holds blocks that slots held; from it they come into the slot that a prompt takes.
    """

    clock_hz: int
    groups: int
    rows: int
    paces: tuple[StepPace, ...]
    prefill: Prefiller | None = None
    queue: int | None = None
    gpus_step: bool = False
    by_load: bool = False
    keeps: bool = False
    ddr5: LowerTier | None = None

    @property
    def slots(self) -> int:
        """Users at once."""
        return self.groups * self.rows

    @property
    def longest(self) -> int:
        """Tokens of the largest bucket."""
        return self.paces[-1].context
