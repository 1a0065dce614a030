"""GPUs, links and LPUs of a divided request as a Chrome/Perfetto trace: a process per side, a thread each."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lpu.afd.hops import Pace
from lpu.afd.pd import Handover
from lpu.gpu.request import PS_PER_US, Part
from lpu.inputs.files import write_json_atomic
from lpu.pingpong.timeline import RESOURCES

SIDES = {"attention": "GPUs", "down": "bridge", "ffn": "LPUs", "up": "bridge"}
BASES = {"attention": "modelled", "down": "modelled", "ffn": "exact", "up": "modelled"}


class Event(NamedTuple):
    """Something that a thread of a side does from one picosecond to another."""

    side: str
    thread: str
    name: str
    begin: int
    end: int
    basis: str


def of_pace(pace: Pace) -> Iterator[Event]:
    """One step of all micro-batches through all layers, from an empty pipeline."""
    line = pace.timeline
    columns = (line.resource, line.layer, line.micro_batch, line.start, line.end)
    for resource, layer, micro_batch, begin, end in zip(*(c.tolist() for c in columns), strict=True):
        stage = RESOURCES[resource]
        name = f"layer {layer}" if layer < len(pace.plan.layers) else "head"
        text = f"{name} micro-batch {micro_batch}"
        yield Event(SIDES[stage], stage, text, begin, end, BASES[stage])


def of_handover(handover: Handover, first_token: int) -> Iterator[Event]:
    """A prefill layer by layer, the way of its KV, and the step that takes the last token of the prompt.

    KV down: as long as the NICs send; its latency is what lies between that and its slot at least.
    """
    computed, sent = handover.computed, 0
    groups = list(dict.fromkeys(handover.chips))
    begin = max(0, 2 * computed[0] - computed[1]) if len(computed) > 1 else 0
    for layer, end in enumerate(computed):
        yield Event("GPUs", "prefill", f"layer {layer}", begin, end, "modelled")
        yield Event("bridge", "KV down", f"layer {layer}", max(sent, end), handover.sent[layer], "modelled")
        sent = handover.sent[layer]
        slot = handover.begins[layer], handover.ends[layer]
        thread = f"ingest, group {groups.index(handover.chips[layer])}"
        yield Event("LPUs", thread, f"layer {layer}", *slot, "exact")
        begin = end
    last = max(handover.ends)
    yield Event("LPUs", "decode", "first token", last, last + first_token, "exact")


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
            "args": {"basis": event.basis},
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
    write_json_atomic(path, trace(events, about))
