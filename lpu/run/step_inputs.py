"""The inputs of a step: tokens and positions that a program takes, and the context bucket that holds them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Int32

from lpu.run.error import MachineError

Inputs = Int32[np.ndarray, " batch"]


def bucket_of(contexts: Iterable[int], positions: Any) -> int:
    """The smallest of these context buckets that holds the positions; MachineError if none does."""
    last = int(np.max(positions))
    largest = max(contexts := sorted(contexts))
    if last >= largest:
        raise MachineError(
            f"run: position {last} is beyond the largest context, {largest}. Compile with a longer --context."
        )
    return next(context for context in contexts if last < context)


def checked_inputs(
    batch: int, known: int, context: int, tokens: Any, positions: Any, first: int = 0
) -> tuple[Inputs, Inputs]:
    """Tokens below `known`, positions from `first` on below `context`, `batch` of each; else MachineError."""
    tokens, positions = np.asarray(tokens, np.int32), np.asarray(positions, np.int32)
    for name, array, most in (("token", tokens, known), ("position", positions, context)):
        if array.shape != (batch,):
            raise MachineError(f"run: {name}s have shape {array.shape}, the program takes {batch}.")
        if array.min() < 0 or array.max() >= most:
            raise MachineError(f"run: {name} {array.min()}..{array.max()} is outside 0..{most - 1}.")
    if positions.min() < first:
        raise MachineError(
            f"run: position {positions.min()} stands beside {positions.max()}: tokens before {first} lie in "
            "DDR5, where a step appends none. Let sequences be of one section of the context."
        )
    return tokens, positions


def check_order(
    tokens: Int32[np.ndarray, "sequences rows"],
    positions: Int32[np.ndarray, "sequences rows"],
    *,
    whole: bool,
) -> None:
    """Raise MachineError unless positions ascend; of whole sequences from 0, the last token perhaps again."""
    steps = np.diff(positions, axis=1)
    if not whole:
        if (steps < 1).any():
            raise MachineError("run: the positions of a chunk do not ascend.")
        return
    rows = np.arange(positions.shape[1])
    if (positions != np.minimum(rows, positions[:, -1:])).any():
        raise MachineError("run: the positions of a whole sequence are not 0, 1, ..., the last one again.")
    if ((steps == 0) & (np.diff(tokens, axis=1) != 0)).any():
        raise MachineError("run: a row that fills a whole sequence has another token than its last one.")
