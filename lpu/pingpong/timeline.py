"""The result of a ping-pong schedule: columns of stages, makespan, busy times and bubble."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Int64

RESOURCES = ("attention", "down", "ffn", "up")
ATTENTION, DOWN, FFN, UP = range(4)


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

    @property
    def token_out(self) -> Int64[np.ndarray, "steps micro_batches"]:
        """When each token is out: the end of the last stage of its step."""
        return self.end.reshape(self.steps, -1)[:, -self.micro_batches :]

    def of(self, resource: int) -> Bool[np.ndarray, " rows"]:
        """Mask of the rows on `resource`."""
        return self.resource == resource

    def __str__(self) -> str:
        busy = ", ".join(f"{name} {time:,}" for name, time in self.busy.items())
        return (
            f"ping-pong: {self.steps} x {self.micro_batches} micro-batches in {self.makespan:,} ps; "
            f"busy {busy} ps; attention idle {float(self.bubble_share):.1%}"
        )
