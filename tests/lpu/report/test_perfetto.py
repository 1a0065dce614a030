"""Traces in Perfetto's own format: slices nest, flows end where they are read, nothing is lost."""

import gzip
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hostile_names import STEERING, program

from compiler.program.isa import WORD_BYTES, is_transfer
from compiler.program.program import Program
from lpu.cli import app as cli
from lpu.energy.prices import prices
from lpu.energy.profile import profile
from lpu.outputs.ours import is_sealed
from lpu.programs import trace
from lpu.report.chips import UnknownChipNumberError, chip_ranges, chosen_chips
from lpu.report.perfetto import StepTrace, nested_layers

pb2: Any = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
BEGIN, END, COUNTER = 1, 2, 4


def read(path: Path) -> Any:
    data = path.read_bytes()
    found = pb2.Trace()
    found.ParseFromString(gzip.decompress(data) if path.suffix == ".gz" else data)
    return found


@pytest.fixture(scope="module")
def written(pair_program: Program, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("trace") / "trace.pftrace"
    trace(pair_program, path, chips=("all",))
    assert is_sealed(path)
    return read(path)


def events(found: Any) -> list[Any]:
    return [packet for packet in found.packet if packet.HasField("track_event")]


def test_slices_of_a_track_nest_and_every_row_is_there_once_per_lane(
    written: Any, pair_program: Program
) -> None:
    columns = pair_program.expand(80)
    moved = is_transfer(columns.op)
    open_slices: dict[int, int] = defaultdict(int)
    rows: list[int] = []
    last = 0
    for packet in events(written):
        event = packet.track_event
        assert packet.timestamp >= last
        last = packet.timestamp
        if event.type == BEGIN:
            open_slices[event.track_uuid] += 1
            rows += [note.int_value for note in event.debug_annotations if note.name == "row"]
        elif event.type == END:
            open_slices[event.track_uuid] -= 1
            assert open_slices[event.track_uuid] >= 0
    assert not any(open_slices.values())
    wanted = [row for row in range(len(columns)) for _ in range(int(columns.aux[row]) if moved[row] else 1)]
    assert sorted(rows) == wanted


def test_a_flow_goes_from_a_transfer_to_a_later_row(written: Any) -> None:
    begun: dict[int, int] = {}
    ended = 0
    for packet in events(written):
        for flow in packet.track_event.flow_ids:
            assert packet.track_event.name in ("SEND", "FORWARD")
            begun[flow] = packet.timestamp
    for packet in events(written):
        for flow in packet.track_event.terminating_flow_ids:
            assert packet.timestamp > begun[flow]
            ended += 1
    assert ended == len(begun) > 0


def test_counters_end_at_nothing_and_every_call_is_a_slice(written: Any, pair_program: Program) -> None:
    tracks = {p.track_descriptor.uuid: p.track_descriptor for p in written.packet}
    counts: dict[str, float] = {}
    for packet in events(written):
        if packet.track_event.type == COUNTER:
            counts[tracks[packet.track_event.track_uuid].name] = packet.track_event.counter_value
    busy = ("lanes in use", "planes in use", "SRAM: transients that wait for a reader")
    assert {name: counts[name] for name in busy} == dict.fromkeys(busy, 0)
    names = [packet.track_event.name for packet in events(written) if packet.track_event.type == BEGIN]
    calls = [call.name for call in pair_program.calls if len(pair_program.blocks[call.block].columns[80])]
    assert all(name in names or name.rpartition(".")[2] in names for name in calls)
    tracks = [p.track_descriptor for p in written.packet if p.HasField("track_descriptor")]
    known = {track.uuid for track in tracks}
    assert len(known) == len(tracks)
    assert all(track.parent_uuid in known for track in tracks if track.parent_uuid)


def test_counters_of_memory_and_power_are_those_of_the_report_and_the_energy(
    written: Any, pair_program: Program
) -> None:
    tracks = {p.track_descriptor.uuid: p.track_descriptor for p in written.packet}
    found: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for packet in events(written):
        if packet.track_event.type == COUNTER:
            track = tracks[packet.track_event.track_uuid]
            chip = tracks[track.parent_uuid].name
            found[chip, track.name].append((packet.timestamp, packet.track_event.counter_value))
    manifest = pair_program.manifest
    for chip in range(manifest.chips):
        regions = manifest.region_table()[chip, :, 1] * WORD_BYTES
        assert found[f"chip {chip}", "SRAM: KV"] == [(0, regions[1])]
        assert found[f"chip {chip}", "SRAM: weights"] == [(0, regions[2])]
        live = [bytes_ for _, bytes_ in found[f"chip {chip}", "SRAM: transients that wait for a reader"]]
        assert 0 == min(live) < max(live) <= regions[0]
    watts = profile(pair_program, 80, prices())
    power = found[f"chip {watts.peak_chip}", "power at mid prices, modelled"]
    assert max(milliwatts for _, milliwatts in power) == pytest.approx(1000 * watts.peak_watts, abs=1)
    assert power[-1][1] == round(1000 * prices()["static_w"].mid)


def test_the_default_shows_the_first_group_from_its_first_row_to_its_last(
    piped_program: Program, tmp_path: Path
) -> None:
    trace(piped_program, tmp_path / "trace.pftrace.gz")
    assert is_sealed(tmp_path / "trace.pftrace.gz")
    found = events(read(tmp_path / "trace.pftrace.gz"))
    work = [p.timestamp for p in found if p.track_event.debug_annotations]
    span = [p.timestamp for p in found]
    assert max(work) - min(work) > 0.5 * (max(span) - min(span))
    trace(piped_program, tmp_path / "trace.pftrace.gz")  # over its own


def test_names_in_a_trace_are_inert(tmp_path: Path) -> None:
    trace(program(), tmp_path / "trace.pftrace")
    text = str(read(tmp_path / "trace.pftrace"))
    assert not STEERING & set(text)
    for packet in read(tmp_path / "trace.pftrace").packet:
        assert len(packet.track_descriptor.name) < 200
        assert not STEERING & set(packet.track_descriptor.name + packet.track_event.name)


def test_chips_are_numbers_ranges_or_all(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert chosen_chips(chip_ranges("0-2, 5,1"), 8, "r") == [0, 1, 2, 5]
    assert chosen_chips(chip_ranges("all,3"), 4, "r") == [0, 1, 2, 3]
    assert chosen_chips([2, 2], 4, "r") == [2]
    for bad in ("", "a", "1-", "-1", "3-1", "1,,2", "9999999999", "\u0661"):
        with pytest.raises(ValueError, match=r"is no list|begins after"):
            chip_ranges(bad)
    with pytest.raises(UnknownChipNumberError, match="chip 8"):
        chosen_chips(chip_ranges("0-8"), 8, "r")
    assert cli.main(["trace", str(tmp_path), "--chips", "3-1", "-o", "x.json"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_layers_are_nested_around_their_blocks() -> None:
    made = StepTrace()
    calls = [("layers.0.attention", 0, 5), ("layers.0.ffn", 5, 9), ("head", 9, 12)]
    found = [(one.name, one.begin, one.end) for one in nested_layers(made, calls)]
    assert found == [("layers.0", 0, 9), ("attention", 0, 5), ("ffn", 5, 9), ("head", 9, 12)]
