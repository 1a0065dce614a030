import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from compiler.program.program import Program
from lpu.report.chips import UnknownChipNumberError
from lpu.report.trace import trace, write_trace

PS = 10**6  # picoseconds per microsecond


@pytest.fixture(scope="module")
def text(pair_program: Program, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    write_trace(path, pair_program, 80)
    return path.read_text()


def test_a_trace_is_json_with_a_name_for_every_process_and_thread(text: str) -> None:
    events = json.loads(text)["traceEvents"]
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in events if e["ph"] == "X"} == named
    assert {e["pid"] for e in events if e["name"] == "process_name"} == {0, 1}


def test_every_event_lies_within_the_program(text: str, pair_program: Program) -> None:
    cycles = pair_program.manifest.cycles[80]
    for event in json.loads(text)["traceEvents"]:
        if event["ph"] == "X":
            args = event["args"]
            assert (
                0 <= args["t0_cycle"] < args["t0_cycle"] + args["hold_cycles"] <= args["t1_cycle"] <= cycles
            )
            assert event["ts"] == pytest.approx(
                args["t0_cycle"] * 1e6 / pair_program.manifest.clock_hz, abs=2e-6
            )


def test_no_two_events_overlap_on_one_thread(text: str) -> None:
    threads: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event in json.loads(text)["traceEvents"]:
        if event["ph"] == "X":
            begin = round(event["ts"] * PS)
            threads[event["pid"], event["tid"]].append((begin, begin + round(event["dur"] * PS)))
    for spans in threads.values():
        ordered = sorted(spans)
        assert all(a[1] <= b[0] for a, b in pairwise(ordered))


def test_a_trace_holds_every_row_of_its_chips_and_only_those(pair_program: Program) -> None:
    columns = pair_program.expand(80)
    events = trace(pair_program, 80, [1])["traceEvents"]
    rows = {event["args"]["row"] for event in events if event["ph"] == "X"}
    assert rows == {i for i, chip in enumerate(columns.chip.tolist()) if chip == 1}


def test_equal_programs_give_equal_bytes(text: str, pair_program: Program, tmp_path: Path) -> None:
    write_trace(tmp_path / "again.json", pair_program, 80)
    assert (tmp_path / "again.json").read_text() == text


def test_a_chip_outside_the_rack_is_refused(pair_program: Program) -> None:
    with pytest.raises(UnknownChipNumberError, match="chip 2: pair has 2 chips"):
        trace(pair_program, 80, [2])
