"""Stages of a ping-pong schedule: the times of a layer, the plan of a step, and the timeline that results."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Int64

from lpu.inputs.document import FileError

RESOURCES = ("attention", "down", "ffn", "up")
ATTENTION, DOWN, FFN, UP = range(4)


class StageError(FileError):
    """A time or a count that no schedule can have; exit code 2."""


@dataclass(frozen=True, slots=True)
class Stages:
    """The ping-pong stages of one layer of a micro-batch: t_a, t_dn (GPU to LPU), t_f, t_up, in picoseconds.

    down and up are one direction each. latency: each way, after a link's bytes; slot: until the FFN's slot
    begins. Both only delay a micro-batch, no resource is held meanwhile. Source: facts/afd.md section 1.
    """

    attention: int
    down: int
    ffn: int
    up: int
    latency: int = 0
    slot: int = 0

    def __post_init__(self) -> None:
        named = zip((*RESOURCES, "latency", "slot"), (*self.times, self.latency, self.slot), strict=True)
        for name, time in named:
            if time < 0:
                raise StageError(
                    f"pingpong: {name}: takes {time} ps, needs 0 or more. Give no negative time."
                )

    @property
    def times(self) -> tuple[int, int, int, int]:
        """In the order of RESOURCES."""
        return (self.attention, self.down, self.ffn, self.up)

    @property
    def delays(self) -> tuple[int, int, int, int]:
        """Time between the end of each of `times` and the earliest begin of the next."""
        return (0, self.latency + self.slot, 0, self.latency)


@dataclass(frozen=True, slots=True, kw_only=True)
class PingPongPlan:
    """`micro_batches` micro-batches through `layers`, for `steps` steps.

    embed: time on the attention pool before layer 0, part of its first stage. head: time on the attention
    pool after the last layer, a separate stage. Both per micro-batch, integer picoseconds. A micro-batch
    enters its next step when its token is out: after the head, or the last link up where there is no head.
    """

    layers: tuple[Stages, ...]
    micro_batches: int
    embed: int = 0
    head: int = 0
    steps: int = 1

    def __post_init__(self) -> None:
        for name, least in (("micro_batches", 1), ("steps", 1), ("embed", 0), ("head", 0)):
            value = getattr(self, name)
            if value < least:
                raise StageError(f"pingpong: {name}: is {value}, needs {least} or more. Raise it.")
        if not self.layers:
            raise StageError("pingpong: layers: there are 0, needs 1 or more. Give Stages for each layer.")

    @property
    def columns(self) -> Iterator[tuple[int, int, int, int]]:
        """The stages of a micro-batch in a step, in order: (resource, layer, time, delay after it)."""
        for number, layer in enumerate(self.layers):
            for resource, (time, delay) in enumerate(zip(layer.times, layer.delays, strict=True)):
                first = resource == ATTENTION and number == 0
                yield resource, number, time + (self.embed if first else 0), delay
        if self.head or self.layers[-1].latency:  # a token is out when it has arrived
            yield ATTENTION, len(self.layers), self.head, 0

    def without_transfers(self) -> "PingPongPlan":
        """This plan with links of zero time and zero latency; waits for slots stay."""
        bare = (replace(one, down=0, up=0, latency=0) for one in self.layers)
        return replace(self, layers=tuple(bare))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timeline:
    """One row per stage, in the order (step, layer, resource, micro-batch); times are picoseconds.

    resource: index into RESOURCES. layer: the head's is the number of layers.
    """

    step: Int64[np.ndarray, " rows"]
    resource: Int64[np.ndarray, " rows"]
    layer: Int64[np.ndarray, " rows"]
    micro_batch: Int64[np.ndarray, " rows"]
    start: Int64[np.ndarray, " rows"]
    end: Int64[np.ndarray, " rows"]
    steps: int
    micro_batches: int

    @property
    def makespan(self) -> int:
        """From 0, when all micro-batches may enter, to the last token."""
        return int(self.end[-1])

    @property
    def busy(self) -> dict[str, int]:
        """Picoseconds for which each resource is busy."""
        time = self.end - self.start
        return {name: int(time[self.of(index)].sum()) for index, name in enumerate(RESOURCES)}

    @property
    def bubble(self) -> int:
        """Picoseconds within the makespan in which the attention pool is idle."""
        return self.makespan - self.busy["attention"]

    @property
    def bubble_share(self) -> Fraction:
        """The bubble as a share of the makespan; 0 if the makespan is 0."""
        return Fraction(self.bubble, self.makespan or 1)

    def of(self, resource: int) -> Bool[np.ndarray, " rows"]:
        """Mask of the rows on `resource`."""
        return self.resource == resource

    def __str__(self) -> str:
        busy = ", ".join(f"{name} {time:,}" for name, time in self.busy.items())
        return (
            f"ping-pong: {self.steps} x {self.micro_batches} micro-batches in {self.makespan:,} ps; "
            f"busy {busy} ps; attention idle {float(self.bubble_share):.1%}"
        )
