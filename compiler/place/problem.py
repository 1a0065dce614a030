"""The placement problem: blocks of a model cut into shards, what each asks of chips; what a placement is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from compiler.errors import CapacityError, CompileError
from compiler.place.stages import Room, Size, compared

Placement = Int[np.ndarray, "blocks tp"]
"""The chip of every shard. A block runs on its distinct chips in order of first shard, evenly spread."""


class PlacementError(CompileError):
    """A strategy that gave no placement that can be used, or that cannot run here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a block of some kind asks of each of its chips.

    words: of SRAM for weights and KV, by rank. work: cycles from its input to its result, all exchanges
    between its chips taken out. busy: cycles that its busiest unit class is held. rounds: exchanges inside,
    where every chip sends `sent` words to every other. handed: words that each of the first `sources`
    ranks hands to the chips of the next block.
    """

    words: tuple[int, ...]
    work: int
    busy: int
    rounds: int = 0
    sent: int = 0
    handed: int = 0
    sources: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """Blocks in order, each cut into `tp` shards. need(kind, ranks): what such a block asks of each chip.

    kinds: of each block. before: the earlier blocks that each one reads. ring: the last block hands the token
    to the first. room: words of each chip for weights and KV.
    """

    names: tuple[str, ...]
    kinds: tuple[int, ...]
    before: tuple[tuple[int, ...], ...]
    tp: int
    room: int
    need: Callable[[int, int], Need]
    ring: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_chain(self) -> bool:
        """Whether every block reads the one before it and nothing else."""
        return all(reads == ((i - 1,) if i else ()) for i, reads in enumerate(self.before))

    def sizes(self) -> list[Size]:
        """What each block takes on `tp` chips, as the compiler's own assignment wants it."""
        return [
            Size(name=name, words=np.array(self.need(kind, self.tp).words), transient=0)
            for name, kind in zip(self.names, self.kinds, strict=True)
        ]

    def room_of(self, rack: str, groups: int) -> Room:
        """The room that there is in `groups` groups of a rack."""
        return Room(rack=rack, groups=groups, tp=self.tp, words=self.room, capacity=self.room)


def chips_of(row: np.ndarray) -> tuple[int, ...]:
    """The distinct chips of a block's shards in order of the first shard on each."""
    return tuple(dict.fromkeys(row.tolist()))


def words_by_chip(shards: Shards, placement: Placement, chips: int) -> Int[np.ndarray, " chips"]:
    """Words of weights and KV on every chip."""
    used = np.zeros(chips, np.int64)
    for kind, row in zip(shards.kinds, placement, strict=True):
        mine = chips_of(row)
        used[list(mine)] += shards.need(kind, len(mine)).words
    return used


def checked(shards: Shards, chips: int, found: object, who: str) -> Placement:
    """What strategy `who` gave, as an int64 array, if it is a placement on `chips` chips within their SRAM.

    Raises PlacementError (type, shape, chips that are not there) or CapacityError.
    """
    shape = (len(shards), shards.tp)
    if not isinstance(found, np.ndarray):
        raise PlacementError(
            "place",
            who,
            f"gave a {type(found).__name__}, must be a numpy array of ints of shape {shape}",
            "Return the chip of every shard, [blocks, tp].",
        )
    if found.shape != shape or found.dtype.kind not in "iu":
        raise PlacementError(
            "place",
            who,
            f"gave {found.dtype} of shape {found.shape}, must be ints of shape {shape}",
            "Return the chip of every shard, [blocks, tp].",
        )
    placement = found.astype(np.int64)
    low, high = int(placement.min()), int(placement.max())
    if low < 0 or high >= chips:
        raise PlacementError(
            "place",
            who,
            f"put a shard on chip {low if low < 0 else high}, the rack has 0 to {chips - 1}",
            "Place on chips of the rack.",
        )
    used = words_by_chip(shards, placement, chips)
    worst = int(np.argmax(used))
    if used[worst] > shards.room:
        put, most = compared(int(used[worst]), shards.room)
        raise CapacityError(
            "place",
            who,
            f"put {put} on chip {worst}, a chip has {most} for weights and KV",
            "Use another strategy, a larger rack or a shorter context.",
        )
    return placement
