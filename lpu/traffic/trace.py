"""A trace: when requests come, how long their prompts and answers are, and the blocks of their prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptBlocks:
    """Prefix blocks of the prompts: request i has `ids[starts[i]:starts[i + 1]]`, in their order.

    Equal ids are equal tokens after equal tokens. tokens: of a whole block; the last of a prompt may be
    shorter.
    """

    tokens: int
    starts: Int64[np.ndarray, " requests_and_one"]
    ids: Int64[np.ndarray, " blocks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Requests in the order of their arrival.

    arrivals: nanoseconds after the first. inputs: tokens of each prompt; outputs: new tokens, at least 1.
    blocks: of the prompts, where the trace tells them. left_out: requests of the file that have no answer.
    priorities: class of each request, 0 first; None: one class. users: of a closed loop, how many send their
    next request (arrivals are then pauses before it) after an answer; 0: arrivals are times.
    """

    name: str
    arrivals: Int64[np.ndarray, " requests"]
    inputs: Int64[np.ndarray, " requests"]
    outputs: Int64[np.ndarray, " requests"]
    blocks: PromptBlocks | None = None
    left_out: int = 0
    priorities: Int64[np.ndarray, " requests"] | None = None
    users: int = 0

    def __len__(self) -> int:
        return len(self.arrivals)

    @property
    def longest(self) -> int:
        """Tokens of context that the longest request takes: all but the KV of its last token."""
        return int((self.inputs + self.outputs).max()) - 1


class TraceLines:
    """Collects the requests of a file line by line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.left_out = 0
        self._arrivals: list[int] = []
        self._inputs: list[int] = []
        self._outputs: list[int] = []
        self._starts: list[int] = [0]
        self._ids: list[int] = []

    def add(self, arrival: int, prompt: int, new: int, ids: Sequence[int] = ()) -> None:
        """One request; one without new tokens is counted and left out."""
        if new == 0:
            self.left_out += 1
            return
        self._arrivals.append(arrival)
        self._inputs.append(prompt)
        self._outputs.append(new)
        self._ids += ids
        self._starts.append(len(self._ids))

    def trace(self, block_tokens: int | None = None) -> Trace:
        """What was collected, counted from the first arrival. block_tokens: None for a trace without ids."""
        first = self._arrivals[0] if self._arrivals else 0
        arrivals = np.array([moment - first for moment in self._arrivals], np.int64)
        blocks = None
        if block_tokens is not None:
            starts, ids = np.array(self._starts, np.int64), np.array(self._ids, np.int64)
            blocks = PromptBlocks(tokens=block_tokens, starts=starts, ids=ids)
        return Trace(
            name=self.name,
            arrivals=arrivals,
            inputs=np.array(self._inputs, np.int64),
            outputs=np.array(self._outputs, np.int64),
            blocks=blocks,
            left_out=self.left_out,
        )

    def __len__(self) -> int:
        return len(self._arrivals)
