"""Requests through a machine, event by event: waiting, prefill, hand-over, decode. Times in cycles.

At the same cycle what ends comes first, then what is handed over, then what arrives; each in the order of the
requests. So the same requests on the same machine make the same times, whatever computes them.
"""

from collections import deque
from heapq import heapify, heappop, heappush, heapreplace

import numpy as np
from jaxtyping import Int64

from lpu.traffic.outcome import REFUSED, SERVED, TOO_LONG, Outcome
from lpu.traffic.served import Served
from lpu.traffic.simulation.kept_slots import KeptSlots, UserSlot
from lpu.traffic.simulation.prefixes import Prefixes
from lpu.traffic.simulation.slots import FIRST, DecodeSlots
from lpu.traffic.trace import Trace

NS_PER_SECOND = 10**9
_ASK, _PREFILLED, _HANDED = 0, 1, 2
Cycles = Int64[np.ndarray, " requests"]


def in_cycles(nanoseconds: Cycles, clock_hz: int) -> list[int]:
    """The first cycle at or after each moment."""
    return [-(-int(moment) * clock_hz // NS_PER_SECOND) for moment in nanoseconds.tolist()]


def simulate(trace: Trace, machine: Served, *, cycles: bool = False) -> Outcome:
    """What becomes of each request. cycles: the trace's arrivals are cycles already."""
    return _Run(trace, machine, cycles).run()


class _Run:
    """One simulation. `now` moves from event to event; columns hold what is known of each request."""

    def __init__(self, trace: Trace, machine: Served, cycles: bool) -> None:
        count = len(trace)
        self.trace, self.machine, self.slots = trace, machine, DecodeSlots(machine)
        self.inputs, self.outputs = trace.inputs.tolist(), trace.outputs.tolist()
        self.gaps = trace.arrivals.tolist() if cycles else in_cycles(trace.arrivals, machine.clock_hz)
        self.classes = None if trace.priorities is None else trace.priorities.tolist()
        self.arrived, self.started = [0] * count, [0] * count
        self.ready, self.joined = [0] * count, [0] * count
        self.first, self.last = [0] * count, [0] * count
        self.status = bytearray(count)
        self.computed = [0] * count
        self.waiting: deque[int] = deque()
        self.by_class: list[tuple[int, int]] = []
        self.events: list[tuple[int, int, int]] = []
        self.now, self.sent = 0, 0
        prefill = machine.prefill
        keeps = machine.keeps and trace.blocks is not None
        self.kept = KeptSlots(machine.groups, machine.rows) if keeps else None
        self.sat: dict[int, UserSlot] = {}
        self.reused = 0
        self.prefixes = Prefixes(trace, machine)
        self.until = [0] * (prefill.replicas if prefill else 0)  # a replica is done with what it was sent
        self.idle = list(range(prefill.replicas)) if prefill else []
        self.wires = [0] * len(self.idle)
        self.room = prefill.room if prefill else 0
        self.of: dict[int, tuple[int, UserSlot | None, int]] = {}  # replica, slot, since when
        self.wanting: deque[int] = deque()  # prefills that asked for a slot and have none
        self.prefills: dict[int, tuple[int, int, int, int]] = {}
        self.busy = self.wired = self.peak_waiting = 0

    def run(self) -> Outcome:
        """Until every request is served or refused."""
        trace, count, slots, events = self.trace, len(self.trace), self.slots, self.events
        sent, ahead = 0, []
        if trace.users:
            ahead = [(self.gaps[i], i) for i in range(trace.users)]
            heapify(ahead)
            sent = trace.users
        self.ahead = ahead
        self.sent = sent
        closed, gaps = bool(trace.users), self.gaps
        never = 1 << 200
        while True:
            ends = slots.next_end()
            at = never if ends is None else ends
            event = events[0][0] if events else never
            if closed:
                coming = ahead[0][0] if ahead else never
            else:
                coming = gaps[self.sent] if self.sent < count else never
            if at <= event and at <= coming:
                if at == never:
                    break
                self.now = at
                self._ended()
            elif event <= coming:
                self.now = event
                self._event()
            else:
                self.now = coming
                request = heappop(ahead)[1] if closed else self.sent
                if not closed:
                    self.sent += 1
                self._arrive(request)
        return self._outcome()

    def _arrive(self, request: int) -> None:
        self.arrived[request] = self.now
        waiting = len(self.by_class) if self.classes else len(self.waiting)
        if self.inputs[request] + self.outputs[request] - 1 > self.machine.longest:
            self._leave(request, TOO_LONG)
        elif self.machine.by_load and self._by_lpus(request):
            return
        elif self.machine.queue is not None and waiting >= self.machine.queue and not self._is_free():
            self._leave(request, REFUSED)
        else:
            if self.classes:
                heappush(self.by_class, (self.classes[request], request))
            else:
                self.waiting.append(request)
            self._start()
            self.peak_waiting = max(self.peak_waiting, len(self.by_class) or len(self.waiting))

    def _leave(self, request: int, status: int) -> None:
        """A request is over; in a closed loop its user sends another."""
        self.status[request] = status
        if self.trace.users and self.sent < len(self.trace):
            heappush(self.ahead, (self.now + self.gaps[self.sent], self.sent))
            self.sent += 1

    def _is_free(self) -> bool:
        """Whether a request would begin at once."""
        return bool(self.idle) if self.machine.prefill else self.slots.is_free

    def _next(self) -> int | None:
        """The request that is next, still in the queue."""
        if self.classes:
            return self.by_class[0][1] if self.by_class else None
        return self.waiting[0] if self.waiting else None

    def _pop(self) -> None:
        if self.classes:
            heappop(self.by_class)
        else:
            self.waiting.popleft()

    def _start(self) -> None:
        """Begin whatever waits and can begin: a prefill, or the prompt in a slot of its own."""
        if self.machine.prefill:
            while self.idle and (request := self._next()) is not None and self._prefill(request):
                self._pop()
            return
        while (request := self._next()) is not None:
            if not self._take_prompt(request):
                return
            self._pop()

    def _take_prompt(self, request: int) -> bool:
        """Begin a prompt token by token in a slot; False if there is none."""
        slot, blocks, there = self._again(request)
        slot = slot or self._seat(request)
        if slot is None:
            return False
        self.started[request], self.ready[request] = self.now, there
        self.prefixes.hits[request] = blocks
        self.prefixes.written(request)
        tokens = self.inputs[request]
        known = self.prefixes.tokens(request, blocks)
        turns = tokens - known + self.outputs[request] - 1
        self.joined[request] = self.slots.join(request, slot.group, there, known, tokens - known, turns)
        return True

    def _by_lpus(self, request: int) -> bool:
        """Give a prompt to the LPUs if they would be done with it first; else note what the GPUs have."""
        prefill, pace, tokens = self.machine.prefill, self.machine.paces[-1], self.inputs[request]
        assert prefill is not None
        cost = prefill.cost(tokens, self.prefixes.held(request))
        begin = max(self.now, self.until[0])
        gpus = begin + cost.compute + cost.exposed + pace.step
        if self.slots.is_free and not self.wanting and self.now + tokens * pace.turn < gpus:
            return self._take_prompt(request)
        heapreplace(self.until, begin + cost.compute)
        return False

    def _seat(self, request: int) -> UserSlot | None:
        """The free slot that comes first; None if every slot is taken."""
        group = self.slots.take(self.now)
        if group is None or self.kept is None:
            return None if group is None else UserSlot(group, 0)
        self.sat[request] = self.kept.take_oldest(group)
        return self.sat[request]

    def _again(self, request: int) -> tuple[UserSlot | None, int, int]:
        """The free slot that holds most of a prompt's blocks, taken, how many, and when all are in it.

        None if no slot holds any, and the DDR5 beside the LPUs has none for a free one.
        """
        if self.kept is None:
            return None, 0, self.now
        slot, blocks = self.kept.find(self.prefixes.ids(request))
        if slot is not None:
            self.kept.take(slot)
            self.slots.take_in(slot.group)
            self.sat[request] = slot
        elif self.prefixes.below(request):
            slot = self._seat(request)
        if slot is None:
            return None, 0, self.now
        self.reused += blocks
        return slot, *self.prefixes.raised(request, blocks, self.now)

    def _prefill(self, request: int) -> bool:
        """Begin a prefill on an idle replica; False if the GPUs have no room for its KV."""
        prefill, tokens = self.machine.prefill, self.inputs[request]
        assert prefill is not None
        waiting = prefill.waiting(tokens)
        if waiting > self.room and self.room < prefill.room:
            return False
        slot, blocks, since = self._again(request)
        if self.machine.gpus_step and self.outputs[request] > 1:
            slot = slot or self._seat(request)
            if slot is None:
                return False
        self.room -= waiting
        replica = heappop(self.idle)
        self.started[request] = self.now
        known, there = self.prefixes.take(request, blocks, since, self.now)
        if blocks and prefill.slots:
            cost = prefill.slots.cost(tokens, known, self.prefixes.tokens(request, blocks))
        else:
            cost = prefill.cost(tokens, known)
        if there > self.now:
            cost = cost._replace(compute=cost.compute + there - self.now)
        self.of[request] = replica, slot, since
        self.prefills[request] = cost
        self.busy += cost.compute
        self.wired += cost.wire
        if self.machine.gpus_step:
            self.slots.stop(self.now, self.now + cost.compute)
        elif slot is None:
            asks = self.now + max(0, cost.compute + cost.exposed - cost.handover)
            heappush(self.events, (asks, _ASK, request))
        heappush(self.events, (self.now + cost.compute, _PREFILLED, request))
        return True

    def _event(self) -> None:
        _, kind, request = heappop(self.events)
        if kind == _ASK:
            slot = self._seat(request)
            if slot is None:
                self.wanting.append(request)
            else:
                self.of[request] = self.of[request][0], slot, self.now
        elif kind == _PREFILLED:
            self.computed[request] = self.now
            replica, slot, _ = self.of[request]
            heappush(self.idle, replica)
            if self.machine.gpus_step:
                self.first[request] = self.now
            if slot is not None:
                self._hand_over(request)
            elif self.machine.gpus_step:
                self._over(request)
            self._start()
        else:
            self._handed(request)

    def _over(self, request: int) -> None:
        """A request whose only token was that of its prefill: it had no slot."""
        self._leave_gpus(request)
        del self.of[request], self.prefills[request]
        self.ready[request] = self.joined[request] = self.last[request] = self.now
        self._leave(request, SERVED)

    def _leave_gpus(self, request: int) -> None:
        """What waited on the GPUs to be handed over is there no more."""
        assert self.machine.prefill is not None
        self.room += self.machine.prefill.waiting(self.inputs[request])

    def _handed(self, request: int) -> None:
        """The KV of a prompt is in its slot: its user joins."""
        self._leave_gpus(request)
        slot = self.of.pop(request)[1]
        assert slot is not None
        self.prefixes.written(request)
        self.ready[request] = self.now
        position, turns = self.inputs[request] - 1, self.outputs[request]
        first = 1
        if self.machine.gpus_step:
            position, turns = position + 1, turns - 1
            first = turns
        self.joined[request] = self.slots.join(request, slot.group, self.now, position, first, turns)
        self._start()

    def _hand_over(self, request: int) -> None:
        """Send the KV of a prefill that is done to the slot that it has."""
        replica, _, since = self.of[request]
        _, exposed, handover, wire = self.prefills.pop(request)
        begin = max(since, self.wires[replica])
        done = max(self.computed[request] + exposed, begin + handover)
        self.wires[replica] = max(self.computed[request], begin + wire)
        heappush(self.events, (done, _HANDED, request))

    def _ended(self) -> None:
        found = self.slots.end(self.now)
        if found is None:
            return
        request = found.request
        if found.kind == FIRST:
            self.first[request] = self.now
            return
        if not self.first[request]:
            self.first[request] = self.now
        self.last[request] = self.now
        if self.kept:
            self.kept.give(self.sat.pop(request), self.prefixes.ids(request))
        self._leave(request, SERVED)
        if self.wanting:
            waiting = self.wanting.popleft()
            self.of[waiting] = self.of[waiting][0], self._seat(waiting), self.now
            if self.computed[waiting]:
                self._hand_over(waiting)
        elif self.machine.prefill is None or self.machine.gpus_step:
            self._start()

    def _outcome(self) -> Outcome:
        columns = (self.arrived, self.started, self.computed, self.ready, self.joined, self.first, self.last)
        arrived, started, computed, ready, joined, first, last = (np.array(one, np.int64) for one in columns)
        return Outcome(
            clock_hz=self.machine.clock_hz,
            arrived=arrived,
            started=started,
            computed=computed,
            ready=ready,
            joined=joined,
            first=first,
            last=last,
            inputs=self.trace.inputs,
            outputs=self.trace.outputs,
            block_hits=np.array(self.prefixes.hits, np.int64),
            status=np.frombuffer(bytes(self.status), np.uint8),
            busy=self.busy,
            wired=self.wired,
            peak_waiting=self.peak_waiting,
            drains=self.slots.drains,
            fetched=tuple(self.prefixes.fetched[1:]),
            kept_blocks=self.reused,
            from_slots=self.prefixes.fetched[0],
            from_ddr5=self.prefixes.from_ddr5,
            classes=self.trace.priorities,
        )
