"""A step of a program as a trace in Perfetto's own format: layers, units, lanes, flows and counters.

One nanosecond of the trace is one cycle of the schedule, so that every time in it is exact. Perfetto's
package (the extra `trace`) writes the format.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from compiler.analyse.dataflow import edges
from compiler.analyse.holds import holds
from compiler.analyse.live import live_words
from compiler.program.instruction_set import name_of
from compiler.program.isa import WORD_BYTES, Columns, is_transfer
from compiler.program.manifest import Manifest
from compiler.program.program import Program
from lpu.inputs.document import FileError
from lpu.screen import plain

STEP = 1  # uuid of the track of the step; chips have theirs from CHIPS on
CHIPS, PER_CHIP = 1 << 20, 1 << 20
LANES = 128  # tracks set aside per link
FEW = 16  # chips of which every lane has a track; of more only the first lane of a transfer
SEQUENCE = 1
TRANSIENTS, POWER = (1 << 19) + 2, (1 << 19) + 5  # tracks of counters of a chip; 2 to 4 are its regions
Power = tuple[np.ndarray, np.ndarray]  # cycles, watts from each on
BEGIN, END, COUNTER = 1, 2, 4  # TrackEvent.Type


class Slice(NamedTuple):
    """What a track does from one cycle to another. flows: that begin in it; ends: that end in it."""

    track: int
    name: str
    begin: int
    end: int
    notes: tuple[tuple[str, int], ...] = ()
    flows: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()


class Track(NamedTuple):
    """A line of the trace. unit: of a counter, nothing for a line of slices."""

    uuid: int
    parent: int
    name: str
    unit: str = ""


@dataclass(slots=True)
class StepTrace:
    """Tracks, slices and counts (track, cycle, value) of a trace."""

    tracks: dict[int, Track] = field(default_factory=dict[int, Track])
    slices: list[Slice] = field(default_factory=list[Slice])
    counts: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])

    def track(self, uuid: int, parent: int, name: str, unit: str = "") -> int:
        """The track of that number, made if it is new."""
        self.tracks.setdefault(uuid, Track(uuid, parent, name, unit))
        return uuid


def timeline(
    program: Program, context: int, chips: Sequence[int], power: Mapping[int, Power] | None = None
) -> StepTrace:
    """What the chips do in a step, and which layers they do it for; calls without them are left out.

    power: watts by chip, as cycles at which they change and what they change to.
    """
    manifest, out = program.manifest, StepTrace()
    chosen = np.zeros(manifest.chips, bool)
    chosen[list(chips)] = True
    title = f"{plain(manifest.model.name, 60)} on {plain(manifest.rack, 60)}, context {context}"
    out.track(STEP, 0, f"{title}; 1 ns is 1 cycle of {manifest.clock_hz / 1e9:g} GHz")
    for chip in chips:
        out.track(CHIPS + chip * PER_CHIP, 0, f"chip {chip}")
    layers: list[tuple[str, int, int]] = []
    row = 0
    for call in program.calls:
        size = len(program.blocks[call.block].columns[context])
        if size and chosen[list(call.chips)].any():
            columns = program.expand_call(call, context)
            if (chosen[columns.chip]).any():
                _transients(out, columns, program.manifest, chosen)
                base = call.base[context]
                layers.append((call.name, base, base + program.blocks[call.block].cycles[context]))
                _rows(out, program, columns, chosen, len(chips) <= FEW, row, call.tag)
        row += size
    out.slices += nested_layers(out, layers)
    _counts(out, chips)
    _memory(out, program, chips)
    for chip, (cycles, watts) in (power or {}).items():
        own = CHIPS + chip * PER_CHIP
        counter = out.track(own + POWER, own, "power at mid prices, modelled", "mW")
        out.counts += [
            (counter, c, round(1000 * w)) for c, w in zip(cycles.tolist(), watts.tolist(), strict=True)
        ]
    return out


def _transients(out: StepTrace, columns: Columns, manifest: Manifest, chosen: np.ndarray) -> None:
    """Bytes of values that wait for a reader on the chosen chips, wherever that changes in a call."""
    for chip, (cycles, words) in live_words(columns, manifest).items():
        if chosen[chip]:
            own = CHIPS + chip * PER_CHIP
            counter = out.track(own + TRANSIENTS, own, "SRAM: transients that wait for a reader", "bytes")
            last = np.flatnonzero(np.append(np.diff(cycles) > 0, True))  # of each cycle
            counts = zip(cycles[last].tolist(), (words[last] * WORD_BYTES).tolist(), strict=True)
            out.counts += [(counter, cycle, count) for cycle, count in counts]


def _memory(out: StepTrace, program: Program, chips: Sequence[int]) -> None:
    """What weights and KV take of a chip's SRAM: the same in every cycle."""
    words = program.manifest.region_table()[:, :, 1]
    for chip in chips:
        own = CHIPS + chip * PER_CHIP
        for i, name in ((1, "KV"), (2, "weights")):
            counter = out.track(own + TRANSIENTS + i, own, f"SRAM: {name}", "bytes")
            out.counts.append((counter, 0, int(words[chip, i]) * WORD_BYTES))


def _rows(
    out: StepTrace, program: Program, columns: Columns, chosen: np.ndarray, every: bool, first: int, tag: int
) -> None:
    """The rows of a call on the chosen chips; `first` is the number of its first row."""
    manifest = program.manifest
    hold, moved = holds(columns, manifest), is_transfer(columns.op)
    pairs = edges(columns, manifest.kernels, manifest.chip.planes, tag)
    sent = pairs[moved[pairs[:, 0]] & chosen[columns.chip[pairs[:, 0]]] & chosen[columns.chip[pairs[:, 1]]]]
    order = np.lexsort((columns.t0[sent[:, 1]], sent[:, 0]))
    reader: dict[int, int] = {}
    for one, other in sent[order].tolist():
        reader.setdefault(one, other)
    ends: dict[int, list[int]] = {}
    for one, other in reader.items():
        ends.setdefault(other, []).append(first + one + 1)
    names = {op: name_of(op) for op in np.unique(columns.op).tolist()}
    for row in np.flatnonzero(chosen[columns.chip]).tolist():
        chip, peer = int(columns.chip[row]), int(columns.peer[row])
        lanes = int(columns.aux[row]) if peer >= 0 and every else 1
        begin = int(columns.t0[row])
        notes = (("row", first + row), ("n", int(columns.n[row])), ("result", int(columns.t1[row])))
        for lane in range(lanes):
            out.slices.append(
                Slice(
                    _track(out, program, chip, int(columns.unit[row]), peer, int(columns.lane[row]) + lane),
                    names[int(columns.op[row])],
                    begin,
                    begin + int(hold[row]),
                    notes,
                    (first + row + 1,) if row in reader and not lane else (),
                    tuple(ends.get(row, ())) if not lane else (),
                )
            )


def _track(out: StepTrace, program: Program, chip: int, unit: int, peer: int, lane: int) -> int:
    """The track of a unit, or of a lane under that of its link."""
    own = CHIPS + chip * PER_CHIP
    planes, chains = program.manifest.chip.planes, program.manifest.chip.vxm_chains
    if peer >= 0:
        link = out.track(own + 1000 + peer * LANES, own, f"link to {peer}")
        return out.track(link + 1 + lane, link, f"lane {lane}")
    if unit < planes:
        name = f"MXM plane {unit}"
    elif unit < 2 * planes:
        name = f"drain {unit - planes}"
    elif unit < 2 * planes + chains:
        name = f"VXM chain {unit - 2 * planes}"
    else:
        name = ("host lane in", "host lane out")[unit - 2 * planes - chains]
    return out.track(own + 1 + unit, own, name)


def nested_layers(out: StepTrace, calls: Iterable[tuple[str, int, int]]) -> Iterator[Slice]:
    """Calls as nested slices, by the words of their names: `layers.3` around its attention and its FFN."""
    track = out.track(STEP + 1, STEP, "layers")

    def nested(some: list[tuple[list[str], int, int]], depth: int) -> Iterator[Slice]:
        for word, group in groupby(some, lambda one: one[0][depth] if depth < len(one[0]) else ""):
            inner = list(group)
            if not word:
                continue
            yield Slice(track, plain(word, 60), min(o[1] for o in inner), max(o[2] for o in inner))
            yield from nested(inner, depth + 1)

    yield from nested([(_words(name), begin, end) for name, begin, end in calls], 0)


def _words(name: str) -> list[str]:
    """`layers.3.ffn` as `layers.3` and `ffn`: a number goes with the word before it."""
    out: list[str] = []
    for word in name.split("."):
        if word.isdigit() and out:
            out[-1] += f".{word}"
        else:
            out.append(word or "-")
    return out


def _counts(out: StepTrace, chips: Sequence[int]) -> None:
    """Lanes and planes in use by chip, wherever that changes."""
    kinds = {"lane": ("lanes in use", 1 << 19), "MXM": ("planes in use", (1 << 19) + 1)}
    changes: dict[int, list[tuple[int, int]]] = {}
    for one in out.slices:
        kind = kinds.get(out.tracks[one.track].name.split()[0])
        if one.track < CHIPS or kind is None:
            continue
        own = one.track - one.track % PER_CHIP
        counter = out.track(own + kind[1], own, kind[0], "lanes" if kind[0].startswith("l") else "planes")
        changes.setdefault(counter, []).extend([(one.begin, 1), (one.end, -1)])
    for counter, some in changes.items():
        value = 0
        for cycle, group in groupby(sorted(some), lambda change: change[0]):
            value += sum(by for _, by in group)
            out.counts.append((counter, cycle, value))


def encoded(made: StepTrace) -> bytes:
    """The timeline in Perfetto's format. Raises FileError if its package is not installed."""
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        raise FileError("trace: needs perfetto. pip install 'lpu-emulator[trace]'.") from None
    kinds: Any = perfetto_trace_pb2
    trace = kinds.Trace()
    for track in made.tracks.values():
        packet = trace.packet.add()
        described = packet.track_descriptor
        described.uuid, described.name = track.uuid, track.name
        if track.parent:
            described.parent_uuid = track.parent
        else:
            described.process.pid = max((track.uuid - CHIPS) // PER_CHIP + 2, 1)
            described.process.process_name = track.name
        if track.unit:
            described.counter.unit_name = track.unit
    for cycle, _, kind, what in sorted(_events(made), key=lambda event: event[:3]):
        packet = trace.packet.add()
        packet.timestamp, packet.trusted_packet_sequence_id = cycle, SEQUENCE
        event = packet.track_event
        event.type, event.track_uuid = kind, what[0]
        if isinstance(what, Slice):
            if kind == BEGIN:
                event.name = what.name
                event.flow_ids.extend(what.flows)
                event.terminating_flow_ids.extend(what.ends)
                for name, value in what.notes:
                    note = event.debug_annotations.add()
                    note.name, note.int_value = name, value
        else:
            event.counter_value = what[2]
    return bytes(trace.SerializeToString(deterministic=True))


def _events(made: StepTrace) -> Iterator[tuple[int, int, int, Any]]:
    """(cycle, order, type, what): what ends comes before what begins, an outer slice begins first."""
    for i, one in enumerate(made.slices):
        instant = one.begin == one.end
        yield one.begin, (i + 1) * 2, BEGIN, one
        yield one.end, -(i + 1) * 2 if not instant else (i + 1) * 2 + 1, END, one
    for count in made.counts:
        yield count[1], 0, COUNTER, count
