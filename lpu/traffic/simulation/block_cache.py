"""Which prefix blocks are held, and in which tier: by their ids, the least recently used go first."""

from collections.abc import Sequence


class BlockCache:
    """Ids of blocks in tiers, the fastest first; a block is in one tier. capacities: blocks; None: no limit.

    The rule of `lpu.decode.prefixes.cache`, without the bytes: a hit is the longest run of held blocks from
    the first one on, and of one prompt later blocks count as older, so that what is left can be reached.
    What a tier has no room for goes to the next one, out of the last it is gone.
    """

    def __init__(self, *capacities: int | None) -> None:
        self.capacities = capacities or (None,)
        self._held: list[dict[int, None]] = [{} for _ in self.capacities]  # the least recently used first

    def take(self, ids: Sequence[int]) -> int:
        """Blocks of a prompt that were held; all of them are held afterwards, as far as they fit."""
        return sum(self.take_from(ids))

    def take_from(self, ids: Sequence[int]) -> list[int]:
        """The same by the tier that the blocks were in. They are in the first one afterwards."""
        found = [0] * len(self._held)
        for one in ids:
            tier = next((t for t, held in enumerate(self._held) if one in held), None)
            if tier is None:
                break
            found[tier] += 1
        self._use(ids)
        return found

    def known(self, ids: Sequence[int]) -> int:
        """Blocks that `take` would find; nothing is used by it."""
        count = 0
        for one in ids:
            if not any(one in held for held in self._held):
                break
            count += 1
        return count

    def _use(self, ids: Sequence[int]) -> None:
        first = self._held[0]
        if self.capacities[0] is None:
            first.update(dict.fromkeys(ids))
            return
        for one in reversed(ids):
            for held in self._held:
                held.pop(one, None)
            first[one] = None
        for tier, capacity in enumerate(self.capacities):
            held = self._held[tier]
            while capacity is not None and len(held) > capacity:
                oldest = next(iter(held))
                del held[oldest]
                if tier + 1 < len(self._held):
                    self._held[tier + 1][oldest] = None

    def __len__(self) -> int:
        return sum(map(len, self._held))
