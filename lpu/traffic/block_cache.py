"""Which prefix blocks are held: by their ids, the least recently used go first."""

from collections.abc import Sequence


class BlockCache:
    """Ids of blocks. capacity: the most that are held; None: no limit.

    The rule of `lpu.decode.prefix_cache`, without the bytes: a hit is the longest run of held blocks from the
    first one on, and of one prompt later blocks count as older, so that what is left can be reached.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self._held: dict[int, None] = {}  # the least recently used first

    def take(self, ids: Sequence[int]) -> int:
        """Blocks of a prompt that were held; all of them are held afterwards, as far as they fit."""
        held, capacity = self._held, self.capacity
        hits = 0
        for one in ids:
            if one not in held:
                break
            hits += 1
        if capacity is None:
            held.update(dict.fromkeys(ids))
            return hits
        for one in reversed(ids):
            held.pop(one, None)
            held[one] = None
        while len(held) > capacity:
            del held[next(iter(held))]
        return hits

    def __len__(self) -> int:
        return len(self._held)
