"""What user slots still hold of the prompts before: the SRAM tier of the prefix cache, by blocks.

A slot keeps the KV of its last prompt until another is written over it; a prompt that begins with the same
blocks takes that slot, and only what follows is written. Equal ids are equal tokens after equal tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple


class UserSlot(NamedTuple):
    """A row of a group."""

    group: int
    row: int


class KeptSlots:
    """Slots of `groups` groups of `rows`, free and empty; of a group the least recently used goes first."""

    def __init__(self, groups: int, rows: int) -> None:
        self._free = [dict.fromkeys(range(rows)) for _ in range(groups)]  # the least recently used first
        self._holds: dict[UserSlot, tuple[int, ...]] = {}
        self._having: dict[int, dict[UserSlot, None]] = {}  # free slots that hold a block, the latest last

    def find(self, ids: Sequence[int]) -> tuple[UserSlot | None, int]:
        """The free slot that holds the longest run of a prompt's blocks from the first on, and its length."""
        best, count = None, 0
        for one in ids:
            holders = self._having.get(one)
            if not holders:
                break
            best, count = next(reversed(holders)), count + 1
        return best, count

    def take(self, slot: UserSlot) -> None:
        """The slot has a user."""
        del self._free[slot.group][slot.row]
        for one in self._holds.pop(slot, ()):
            held = self._having[one]
            del held[slot]
            if not held:
                del self._having[one]

    def take_oldest(self, group: int) -> UserSlot:
        """A free slot of the group, the one that was used least recently."""
        slot = UserSlot(group, next(iter(self._free[group])))
        self.take(slot)
        return slot

    def give(self, slot: UserSlot, ids: Sequence[int]) -> None:
        """The slot is free again, and holds these blocks."""
        self._free[slot.group][slot.row] = None
        kept = tuple(dict.fromkeys(ids))
        self._holds[slot] = kept
        for one in kept:
            self._having.setdefault(one, {})[slot] = None
