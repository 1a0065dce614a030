"""A model that is served: slots for sequences, its tokens, and their modelled times."""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from lpu.inputs.model import OpenModel
from lpu.inputs.text import Tokenizer
from lpu.report.words import EXACT
from lpu.serve.engine import TokenSource
from lpu.serve.job import Job, NewToken
from lpu.serve.meters import Meters
from lpu.serve.modelled import LiveClock, ServedTimes, SlotTimes, TimedSequence, alone, cycles_of, together
from lpu.serve.refusal import RefusalError
from lpu.serve.runs import Runs
from lpu.serve.slots import SlotQueue
from lpu.traffic.served import Served

KEPT = 100_000  # sequences with a stated arrival, for the schedule of all of them
TICK_NS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """What is served. tokens: real or synthetic; pace: real or fast. label: what stands above its times.

    mode: how GPUs and LPUs share the work, if there are GPUs. rounds: a step gives one token or more.
    header: an expression for what is left out at the beginning of a text.
    """

    name: str
    model: OpenModel
    tokenizer: Tokenizer | None
    ends: frozenset[int]
    vocab: int
    times: ServedTimes
    digest: str
    label: str | None
    tokens: str = "real"
    pace: str = "fast"
    queue: int = 1024
    mode: str | None = None
    rounds: bool = False
    header: str | None = None

    def stripped(self, text: str) -> str:
        """A text without its header."""
        found = re.match(self.header, text) if self.header else None
        return text[found.end() :] if found else text

    @property
    def kinds(self) -> tuple[str, str]:
        """How the time to the first token is known, and that between later ones."""
        if self.mode is None:
            return EXACT, EXACT
        return "modelled", EXACT if self.times.turn is None else "modelled"

    @property
    def machine(self) -> Served:
        """Slots and prefills."""
        return self.times.machine


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedTime:
    """What a request says of its time: nanoseconds of its arrival, its run and how many requests that has."""

    arrival_ns: int | None = None
    run: str = ""
    requests: int | None = None
    order: tuple[Any, ...] = ()


class PlacedToken(NamedTuple):
    """A token of one sequence of a request."""

    choice: int
    new: NewToken


@dataclass(slots=True)
class Sitting:
    """A request that is served: its jobs, what it states, and the pieces of its answer as they come.

    priority: the lower, the sooner it has a slot.
    """

    jobs: list[Job]
    stated: StatedTime
    received: float
    arrival: int
    priority: int = 0
    pieces: asyncio.Queue[PlacedToken | BaseException] = field(default_factory=asyncio.Queue)
    times: dict[int, SlotTimes] = field(default_factory=dict[int, SlotTimes])
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        for job in self.jobs:
            job.cancelled = True
        for task in self.tasks:
            task.cancel()


class Service:
    """Takes requests for a model. `epoch` is the wall clock's zero."""

    def __init__(self, served: ServedModel, engine: TokenSource) -> None:
        self.served, self.engine = served, engine
        self.meters = Meters(served.name)
        self.running, self.waiting = 0, 0
        self._slots = SlotQueue(served.machine.slots)
        self._live = LiveClock(served.times)
        self._epoch = time.monotonic_ns()
        self.runs = Runs(lambda every: together(served.times, every))
        self.kept: deque[TimedSequence] = deque(maxlen=KEPT)
        self.meters.watch(
            lambda: self.running, lambda: self.waiting, lambda: self.running / served.machine.slots
        )

    def begin(self, make: Callable[[int], Job], count: int, stated: StatedTime, priority: int = 0) -> Sitting:
        """Take a request of `count` sequences. Raises RefusalError where they are too many."""
        machine = self.served.machine
        if count > machine.slots:
            raise RefusalError(
                400, f"{count} sequences are asked for at once, there are {machine.slots} slots.", "n"
            )
        there, most = self.running + self.waiting, machine.slots + self.served.queue
        if there + count > most:
            raise RefusalError(
                429, f"{there} sequences are in slots or wait; with {count} more they are over {most}."
            )
        if stated.requests is not None:
            self.runs.check(stated.run, stated.requests)
        wall = (time.monotonic_ns() - self._epoch) // TICK_NS * TICK_NS
        arrival = wall if stated.arrival_ns is None else stated.arrival_ns
        sitting = Sitting([], stated, time.monotonic(), cycles_of(arrival, machine.clock_hz), priority)
        sitting.jobs += [make(i) for i in range(count)]
        self.waiting += count
        for i, job in enumerate(sitting.jobs):
            waits = [True]
            task = asyncio.create_task(self._decode(sitting, i, job, waits))
            task.add_done_callback(lambda _, waits=waits: self._seated(waits))
            sitting.tasks.append(task)
        return sitting

    def _seated(self, waits: list[bool]) -> None:
        """A sequence waits no longer: it has its slot, or was cancelled before."""
        if waits:
            waits.clear()
            self.waiting -= 1

    async def _decode(self, sitting: Sitting, index: int, job: Job, waits: list[bool]) -> None:
        """One sequence: wait for a slot, decode in it, hand on each token at its time."""
        try:
            await self._in_slot(sitting, index, job, waits)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # the handler answers it
            sitting.pieces.put_nowait(error)

    async def _in_slot(self, sitting: Sitting, index: int, job: Job, waits: list[bool]) -> None:
        await self._slots.acquire(sitting.priority)
        self._seated(waits)
        self.running += 1
        slot = None
        try:
            if sitting.stated.arrival_ns is None:
                held = self.engine.known(job.prompt)
                self.meters.looked_up(len(job.prompt), held)
                slot, times = self._live.take(sitting.arrival, len(job.prompt), job.most, held)
            else:
                times = alone(self.served.times, TimedSequence(sitting.arrival, len(job.prompt), job.most))
            sitting.times[index] = times
            await self._tokens(sitting, index, job, times)
        finally:
            job.cancelled = True
            if slot is not None:
                self._live.give(slot, sitting.times[index].at(job.steps))
            self.running -= 1
            self._slots.release()

    async def _tokens(self, sitting: Sitting, index: int, job: Job, times: SlotTimes) -> None:
        inbox: asyncio.Queue[NewToken | BaseException] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def told(new: NewToken | BaseException) -> None:
            loop.call_soon_threadsafe(inbox.put_nowait, new)

        job.told = told
        self.engine.submit(job)
        place = 0
        while True:
            new = await inbox.get()
            if isinstance(new, BaseException):
                raise new
            if self.served.pace == "real":
                due = (
                    sitting.received
                    + (times.at(job.ticks[place] if job.ticks else 0) - times.arrival)
                    / self.served.machine.clock_hz
                )
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            place += 1
            sitting.pieces.put_nowait(PlacedToken(index, new))
            if new.finish is not None:
                return

    async def settled(self, sitting: Sitting) -> list[SlotTimes]:
        """The times of a request's sequences, when all are decoded."""
        stated, jobs = sitting.stated, sitting.jobs
        times = [sitting.times[i] for i in range(len(jobs))]
        if stated.arrival_ns is None:
            return times
        sequences = [
            TimedSequence(
                sitting.arrival,
                len(job.prompt),
                len(job.tokens),
                (*stated.order, i),
                self._steps(job),
                sitting.priority,
            )
            for i, job in enumerate(jobs)
        ]
        self.kept.extend(sequences)
        if stated.requests is None:
            return [alone(self.served.times, one) for one in sequences]
        return await self.runs.times(stated.run, stated.requests, sequences)

    def _steps(self, job: Job) -> int | None:
        """Steps after the first token's, where they are not one for each other token."""
        return job.steps if self.served.rounds else None

    def note(self, job: Job, times: SlotTimes, reason: str) -> None:
        """Count a sequence that is done."""
        hz = self.served.machine.clock_hz
        every = [times.at(step) for step in job.ticks]
        self.meters.sequence(
            len(job.tokens),
            reason,
            (times.begin - times.arrival) / hz,
            (times.first - times.begin) / hz,
            [(end - begin) / hz for begin, end in pairwise(every)],
        )

    def schedule(self) -> list[dict[str, Any]]:
        """All sequences with a stated arrival as if they had shared the machine, by arrival."""
        hz = self.served.machine.clock_hz
        every = sorted(self.kept, key=lambda one: (one.arrival, one.order))
        return [
            {
                "request": one.order[0] if one.order else "",
                "prompt_tokens": one.prompt,
                "completion_tokens": one.new,
                "arrival_cycle": times.arrival,
                "begin_cycle": times.begin,
                "first_token_cycle": times.first,
                "last_token_cycle": times.at(one.taken),
                "time_to_first_token_ms": (times.first - times.arrival) * 1000 / hz,
                "queue_time_ms": (times.begin - times.arrival) * 1000 / hz,
            }
            for one, times in zip(every, together(self.served.times, every), strict=True)
        ]
