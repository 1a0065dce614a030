"""GPUs, links and LPUs of a divided request as a Chrome/Perfetto trace: a process per side, a thread each."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lpu.gpu.units import PS_PER_US, Part
from lpu.outputs.write import write_json


class Event(NamedTuple):
    """Something that a thread of a side does from one picosecond to another."""

    side: str
    thread: str
    name: str
    begin: int
    end: int
    basis: str


def of_parts(parts: Iterable[Part], side: str, thread: str) -> Iterator[Event]:
    """Parts one after another on one thread."""
    at = 0
    for part in parts:
        yield Event(side, thread, part.name, at, at + part.picoseconds, part.basis)
        at += part.picoseconds


def trace(events: Iterable[Event], about: dict[str, Any]) -> dict[str, Any]:
    """The trace as JSON values; `ts` and `dur` are microseconds, `args` say how a time is known."""
    every = list(events)
    sides = list(dict.fromkeys(event.side for event in every))
    threads = list(dict.fromkeys((event.side, event.thread) for event in every))
    out: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": i, "args": {"name": side}} for i, side in enumerate(sides)
    ]
    out += [
        {
            "name": "thread_name",
            "ph": "M",
            "pid": sides.index(side),
            "tid": i,
            "args": {"name": thread},
        }
        for i, (side, thread) in enumerate(threads)
    ]
    out += [
        {
            "name": event.name,
            "cat": event.basis,
            "ph": "X",
            "pid": sides.index(event.side),
            "tid": threads.index((event.side, event.thread)),
            "ts": event.begin / PS_PER_US,
            "dur": (event.end - event.begin) / PS_PER_US,
            "args": {"kind": event.basis},
        }
        for event in every
    ]
    return {
        "displayTimeUnit": "ns",
        "otherData": {"schema": "lpu-afd-trace/1", **about},
        "traceEvents": out,
    }


def write_trace(path: str | Path, events: Iterable[Event], about: dict[str, Any]) -> None:
    """Write the trace as a JSON file, whole or not at all."""
    write_json(path, trace(events, about), "--trace")
