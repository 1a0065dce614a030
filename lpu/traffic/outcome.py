"""What became of each request of a simulation: columns of cycles, and the spans between them in seconds."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

SERVED, TOO_LONG, REFUSED = 0, 1, 2
STATUS = ("served", "longer than the largest context bucket", "refused, the queue was full")
Cycles = Int64[np.ndarray, " requests"]
Seconds = Float64[np.ndarray, " served"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Cycles of each request: when it arrived and began its prefill (or prompt), and what followed.

    computed: its prefill was done (0: no GPUs). ready: its KV was in its slot. joined: it had its first step.
    first, last: its first and last new token.
    status: an index of STATUS; cycles of requests that were not served are 0 after `arrived`. block_hits:
    blocks of the prompt that the prefix cache held. busy: cycles of all GPU replicas together; wired: of
    their NICs. peak_waiting: the longest queue. drains: changes of the context bucket.
    fetched: blocks that came out of each tier below HBM. classes: of priority, 0 is served first.
    kept_blocks: blocks that the slots of prompts still held; from_slots: of those, what the GPUs lacked.
    from_ddr5: blocks that came into slots from the DDR5 beside the LPUs.
    """

    clock_hz: int
    arrived: Cycles
    started: Cycles
    computed: Cycles
    ready: Cycles
    joined: Cycles
    first: Cycles
    last: Cycles
    inputs: Int64[np.ndarray, " requests"]
    outputs: Int64[np.ndarray, " requests"]
    block_hits: Int64[np.ndarray, " requests"]
    status: UInt8[np.ndarray, " requests"]
    busy: int
    wired: int
    peak_waiting: int
    drains: int
    fetched: tuple[int, ...] = ()
    classes: Int64[np.ndarray, " requests"] | None = None
    kept_blocks: int = 0
    from_slots: int = 0
    from_ddr5: int = 0

    @property
    def served(self) -> Bool[np.ndarray, " requests"]:
        """Which requests were served."""
        return self.status == SERVED

    @property
    def by_lpus(self) -> int:
        """Requests whose prompt no GPU took."""
        return int((self.served & (self.computed == 0)).sum())

    def count(self, status: int) -> int:
        """Requests of a status."""
        return int((self.status == status).sum())

    def seconds(self, begin: Cycles, end: Cycles) -> Seconds:
        """From one moment to another, of the requests that were served."""
        return (end - begin)[self.served] / self.clock_hz

    @property
    def ttft(self) -> Seconds:
        """To the first new token."""
        return self.seconds(self.arrived, self.first)

    @property
    def tpot(self) -> Seconds:
        """Mean time of a token after the first, of requests with more than one."""
        many = self.served & (self.outputs > 1)
        return (self.last - self.first)[many] / (self.outputs[many] - 1) / self.clock_hz

    @property
    def end_to_end(self) -> Seconds:
        """To the last new token."""
        return self.seconds(self.arrived, self.last)

    @property
    def queue(self) -> Seconds:
        """Until the prefill, or the prompt, began."""
        return self.seconds(self.arrived, self.started)

    @property
    def slot_wait(self) -> Seconds:
        """From the end of the prefill to the first step: hand-over, and waits for a slot and its turn."""
        begun = np.where(self.computed > 0, self.computed, self.started)
        return self.seconds(begun, self.joined)

    @property
    def span_cycles(self) -> int:
        """From the first arrival to the last token."""
        if not self.served.any():
            return 0
        return int(self.last.max() - self.arrived.min())

    def meets(
        self, ttft: float | None, tpot: float | None, end_to_end: float | None
    ) -> Bool[np.ndarray, " served"]:
        """Which served requests meet all targets, in seconds; None: no target."""
        served = self.served
        good = np.ones(int(served.sum()), bool)
        if ttft is not None:
            good &= self.ttft <= ttft
        if end_to_end is not None:
            good &= self.end_to_end <= end_to_end
        if tpot is not None:
            later = np.maximum(self.outputs - 1, 1)
            good &= ((self.last - self.first) / later / self.clock_hz <= tpot)[served]
        return good

    def occupancy(self) -> tuple[float, int]:
        """Users in slots: the mean over the span, and the most at once."""
        served, span = self.served, self.span_cycles
        if not span:
            return 0.0, 0
        begins, ends = np.sort(self.joined[served]), np.sort(self.last[served])
        held = int(ends.sum() - begins.sum())
        moments = np.concatenate([ends, begins])
        change = np.concatenate([np.full(len(ends), -1), np.full(len(begins), 1)])
        order = np.argsort(moments, kind="stable")  # who leaves at a cycle is gone before who comes
        return held / span, int(np.cumsum(change[order]).max())

    def kv_tokens(self) -> float:
        """Tokens of KV in the slots, the mean over the span: a user's grows evenly from prompt to end."""
        served, span = self.served, self.span_cycles
        if not span:
            return 0.0
        stay = (self.last - self.joined)[served].astype(float)
        return float((stay * (self.inputs[served] + self.outputs[served] / 2)).sum() / span)
