"""Which prefix blocks of a model with states are held, and behind which of them its states are, too.

The rule of `lpu.decode.prefixes.cache`, without the bytes: a hit ends at a block whose states are kept. A
prompt leaves states behind its last whole block, and where its blocks that were held already ended: there
another prompt parted from it.
"""

from collections.abc import Sequence


class StatedBlocks:
    """Ids of blocks in HBM, the least recently used go first. capacity: blocks with states; None: no limit.

    block, state: bytes of a block's KV, and of the states behind one.
    """

    def __init__(self, capacity: int | None, block: int, state: int) -> None:
        self._block, self._state = block, state
        self._room = None if capacity is None else capacity * (block + state)
        self._held: dict[int, bool] = {}  # whether its states are; the least recently used first
        self._bytes = 0

    def take(self, ids: Sequence[int]) -> int:
        """Blocks of a prompt that need not be taken; all are held afterwards, as far as they fit."""
        found, run = self.known(ids), self._run(ids)
        ends = {ids[count - 1] for count in (run, len(ids)) if count}
        for one in reversed(ids):
            before = self._held.pop(one, None)
            self._held[one] = bool(before) or one in ends
            self._bytes += self._size(one) - (0 if before is None else self._block + self._state * before)
        while self._room is not None and self._bytes > self._room:
            oldest = next(iter(self._held))
            self._bytes -= self._size(oldest)
            del self._held[oldest]
        return found

    def known(self, ids: Sequence[int]) -> int:
        """Blocks that `take` would find; nothing is used by it."""
        run = self._run(ids)
        while run and not self._held[ids[run - 1]]:
            run -= 1
        return run

    def _run(self, ids: Sequence[int]) -> int:
        """Blocks from the first on whose KV is held."""
        return next((i for i, one in enumerate(ids) if one not in self._held), len(ids))

    def _size(self, one: int) -> int:
        return self._block + self._state * self._held[one]

    def __len__(self) -> int:
        return len(self._held)
