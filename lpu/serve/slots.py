"""Slots that sequences wait for: the lowest priority number first, among equals who came first."""

import asyncio
from heapq import heappop, heappush


class SlotQueue:
    """`free` slots, and those who wait for one."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._came = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    async def acquire(self, priority: int) -> None:
        """Wait for a slot; nobody is put out of one."""
        if self._free and not self._waiting:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (priority, self._came, turn))
        self._came += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the slot came at the same moment
                self.release()
            raise

    def release(self) -> None:
        """A slot is free: whoever is next has it."""
        while self._waiting:
            turn = heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
