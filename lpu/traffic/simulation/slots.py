"""The user slots of a decode program in time: users join at the next step of their group, leave in the end.

Steps go on without a gap while there is a user. All users in flight have the bucket of the longest of them;
for another bucket the pipeline is drained, and its first wave enters when the last one is out.
"""

from bisect import bisect_right
from heapq import heappop, heappush
from typing import NamedTuple

from lpu.traffic.served import Served

FIRST, LAST = 0, 1


class StepEnd(NamedTuple):
    """A step that is somebody's first new token or last: its turn and group, which of both, the request."""

    turn: int
    group: int
    kind: int
    request: int


class DecodeSlots:
    """Slots of a machine: take one, join at a step, and ask what ends next. Times in cycles."""

    def __init__(self, machine: Served) -> None:
        self._paces = machine.paces
        self._contexts = [pace.context for pace in machine.paces]
        self._many = len(machine.paces) > 1
        self._groups = machine.groups
        self._free = [machine.rows] * machine.groups
        self._mask = (1 << machine.groups) - 1  # groups with a free row
        self._base, self._base_turn = 0, 0  # the cycle at which a turn began; steps follow from there
        self._ends: list[StepEnd] = []
        self._ahead: list[tuple[int, int]] = []  # (- position at turn 0, last turn) of users in flight
        self._due: list[list[int]] = []  # by bucket, turns at which a user in flight becomes too long for it
        self._up: int | None = None  # a turn that a newcomer needs a larger bucket for
        self._down: int | None = None  # a turn from which on a smaller one will do
        self.drains = 0
        self._stopped = 0  # no step goes on before this cycle
        self._use(0)

    def take(self, now: int) -> int | None:
        """The free group whose next step comes first, with one row less; None if every slot is taken."""
        mask = self._mask
        if not mask:
            return None
        since = max(now, self._stopped) - self._base
        phase = -(-(since % self._turn) // self._interval) if self._ends and since > 0 else 0
        above = mask >> phase
        group = phase + (above & -above).bit_length() - 1 if above else (mask & -mask).bit_length() - 1
        self.take_in(group)
        return group

    def take_in(self, group: int) -> None:
        """A free row of this group has a user."""
        self._free[group] -= 1
        if not self._free[group]:
            self._mask &= ~(1 << group)

    def stop(self, now: int, until: int) -> None:
        """No step goes on before `until`: the one in progress and all after it end so much later."""
        self._base += max(0, until - max(now, self._stopped))
        self._stopped = max(self._stopped, until)

    @property
    def is_free(self) -> bool:
        """Whether a slot is free."""
        return bool(self._mask)

    def give(self, group: int) -> None:
        """A row of the group is free again."""
        self._free[group] += 1
        self._mask |= 1 << group

    def join(self, request: int, group: int, now: int, position: int, first: int, turns: int) -> int:
        """A user whose first step takes the token at `position`; the cycle at which that step begins.

        first: of its `turns` steps, that which gives its first new token.
        """
        now = max(now, self._stopped)
        if not self._ends:
            self._restart(group, now, position)
        if self._many:
            self._settle(now)
        late = now - self._base - group * self._interval
        turn = self._base_turn + max(0, -(-late // self._turn))
        if self._many:
            turn = self._announce(now, turn, position, turns)
        if first < turns:
            heappush(self._ends, StepEnd(turn + first - 1, group, FIRST, request))
        heappush(self._ends, StepEnd(turn + turns - 1, group, LAST, request))
        return self._base + (turn - self._base_turn) * self._turn + group * self._interval

    def next_end(self) -> int | None:
        """When the next step ends that is somebody's first new token or last, or another bucket begins.

        None if nobody is there.
        """
        if not self._ends:
            return None
        turn, group = self._ends[0][:2]
        if self._many and (change := self._change()) is not None and change <= turn:
            return self._began(change)
        return self._base + (turn - self._base_turn) * self._turn + group * self._interval + self._step

    def end(self, now: int) -> StepEnd | None:
        """Take that end out; a last one leaves its slot. None if another bucket began."""
        if self._many and (change := self._change()) is not None and change <= self._ends[0].turn:
            self._enter(change)
            return None
        found = heappop(self._ends)
        if found.kind == LAST:
            self.give(found.group)
            if self._many and self._ends:
                self._look_down(now)
        return found

    def _use(self, at: int) -> None:
        self._at = at
        _, self._interval, self._turn, self._step = self._paces[at]

    def _restart(self, group: int, now: int, position: int) -> None:
        """The pipeline is empty: a step of this group begins at once, in the bucket that it needs."""
        self._use(bisect_right(self._contexts, position))
        self._base, self._base_turn = now - group * self._interval, 0
        self._ahead, self._due = [], [[] for _ in self._paces]
        self._up = self._down = None

    def _announce(self, now: int, turn: int, position: int, turns: int) -> int:
        """The turn of a newcomer, and the turns at which it needs larger buckets."""
        if position >= self._contexts[self._at]:
            turn = self._next_turn(now)
            self._up = turn if self._up is None else min(self._up, turn)
        heappush(self._ahead, (turn - position, turn + turns - 1))
        for due, context in zip(self._due, self._contexts, strict=True):
            if position < context < position + turns:
                heappush(due, turn + context - position)
        return turn

    def _next_turn(self, now: int) -> int:
        """The first turn of which no wave has entered yet."""
        return self._base_turn + max(0, -(-(now - self._base) // self._turn))

    def _front(self, turn: int) -> int | None:
        """The position of the longest user at a turn; None if nobody is left by then."""
        while self._ahead and self._ahead[0][1] < turn:
            heappop(self._ahead)
        return turn - self._ahead[0][0] if self._ahead else None

    def _change(self) -> int | None:
        """The turn that begins in another bucket; None if nothing asks for one."""
        due = self._due[self._at]
        while due and due[0] < self._base_turn:
            heappop(due)
        asked = [turn for turn in (self._up, self._down, due[0] if due else None) if turn is not None]
        return min(asked) if asked else None

    def _settle(self, now: int) -> None:
        """Enter the buckets that were due by now."""
        while (change := self._change()) is not None and self._began(change) <= now:
            self._enter(change)

    def _began(self, turn: int) -> int:
        return self._base + (turn - self._base_turn) * self._turn

    def _enter(self, turn: int) -> None:
        """From this turn on the bucket that the longest user needs, once the pipeline is drained."""
        if self._up is not None and self._up <= turn:
            self._up = None
        self._down = None
        due = self._due[self._at]
        while due and due[0] <= turn:
            heappop(due)
        front = self._front(turn)
        at = self._at if front is None else bisect_right(self._contexts, front)
        if at == self._at:
            return
        began = self._began(turn)
        drained = began - self._turn + (self._groups - 1) * self._interval + self._step
        self._base, self._base_turn = max(began, drained), turn
        self.drains += 1
        self._use(at)

    def _look_down(self, now: int) -> None:
        """After somebody left: whether those who are left need a smaller bucket, from the next turn on."""
        self._down = None
        turn = self._next_turn(max(now, self._stopped))
        front = self._front(turn)
        if front is not None and self._at and front < self._contexts[self._at - 1]:
            self._down = turn
