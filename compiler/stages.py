"""Stages: which group of chips runs which block, so that every chip's SRAM suffices."""

from dataclasses import dataclass

import numpy as np

from compiler.errors import CapacityError, OptionError
from compiler.isa import WORD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Words that a block takes on each rank of its group (weights and KV), and its transients."""

    name: str
    words: np.ndarray
    transient: int


def assign(
    sizes: list[Size], *, groups: int, pp: int | None, capacity: int, shared: int, tp: int, rack: str
) -> list[int]:
    """The group of each block, in pipeline order; as few groups as fit, or exactly `pp`.

    capacity: words per chip; shared: words that every chip of a group keeps once (RoPE angles).
    Raises CapacityError naming the block or group with bytes needed and available.
    """
    if pp is not None and pp > min(groups, len(sizes)):
        raise OptionError(
            "stages",
            f"--pp {pp}",
            f"there are {groups} groups of {tp} chips and {len(sizes)} blocks",
            f"Give --pp {min(groups, len(sizes))} or less.",
        )
    room = capacity - shared - max(size.transient for size in sizes)
    for size in sizes:
        if size.words.max() > room:
            raise CapacityError(
                "stages",
                size.name,
                f"needs {_mb(int(size.words.max()) + capacity - room)} per chip, a chip has {_mb(capacity)}",
                f"Raise --tp above {tp}, or shorten the context or the batch.",
            )
    if pp is None:
        stages = _first_fit(sizes, room)
        if stages[-1] >= groups:
            total = sum(int(size.words.sum()) for size in sizes)
            raise CapacityError(
                "stages",
                f"rack {rack}",
                f"the model needs {_mb(total)} in {stages[-1] + 1} groups of {tp} chips, "
                f"the rack has {groups} ({_mb(room * groups * tp)} for weights and KV)",
                f"Use a rack of {(stages[-1] + 1) * tp} chips or more, a shorter context, or kv: fp8.",
            )
        return stages
    stages = _balanced(sizes, pp)
    for group in range(pp):
        words = np.sum(
            [size.words for size, stage in zip(sizes, stages, strict=True) if stage == group], axis=0
        )
        if words.max() > room:
            raise CapacityError(
                "stages",
                f"group {group}",
                f"needs {_mb(int(words.max()) + capacity - room)} on one chip, a chip has {_mb(capacity)}",
                f"Raise --pp above {pp} or --tp above {tp}.",
            )
    return stages


def _mb(words: int) -> str:
    return f"{words * WORD_BYTES / 1e6:.1f} MB"


def _first_fit(sizes: list[Size], room: int) -> list[int]:
    stages: list[int] = []
    group, used = 0, np.zeros_like(sizes[0].words)
    for size in sizes:
        if (used + size.words).max() > room:
            group, used = group + 1, np.zeros_like(used)
        used = used + size.words
        stages.append(group)
    return stages


def _balanced(sizes: list[Size], pp: int) -> list[int]:
    """Contiguous runs of nearly equal words, at least one block each."""
    weights = np.array([max(int(size.words.max()), 1) for size in sizes], np.int64)
    middle = np.cumsum(weights) * 2 - weights
    stages = np.minimum(middle * pp // (2 * int(weights.sum())), pp - 1)
    for i in range(1, len(stages)):
        stages[i] = min(max(stages[i], stages[i - 1]), stages[i - 1] + 1)
    for i in range(len(stages) - 1, -1, -1):
        stages[i] = max(stages[i], pp - (len(stages) - i))
    stages[0] = 0
    for i in range(1, len(stages)):
        stages[i] = min(stages[i], stages[i - 1] + 1)
    return [int(stage) for stage in stages]
