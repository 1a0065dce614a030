"""`lpu afd` and `lpu ratios` as functions: reports, traces, folders, the same bytes every time."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from compiler.errors import OptionError
from compiler.options import CompileOptions
from lpu import api
from lpu.afd.machines import of_pod
from lpu.afd.modes.afd import Afd
from lpu.afd.modes.draft import Draft
from lpu.afd.modes.pd import Pd
from lpu.afd.options import Gpus, RatioPoints, Wanted
from lpu.afd.report import AfdReport
from lpu.afd.times.handover import events as events_of
from lpu.afd.times.handover import stream
from lpu.afd.trace import Event, trace
from lpu.folder import load_handover, load_program
from lpu.gpu.request import Request
from lpu.gpu.units import BASES
from lpu.inputs.document import FileError
from lpu.report.words import EXACT

SMALL: dict[str, Any] = {"rack": "pair", "gpus": Gpus(gpus=1)}
REQUEST = Request(prompt_tokens=12, new_tokens=3, batch=2, turns=2, later_tokens=4)
MODES = {
    mode.name: mode
    for mode in (
        Pd(kv_policy="copy-back"),
        Afd(gpu_jitter=0.1, miss_probability=0.01),
        Draft(drafter="llama-tiny", drafts=2, acceptance=0.5),
    )
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AfdReport]:
    """One of each mode; that of pd leaves its programs in a folder."""
    made: dict[str, AfdReport] = {}
    for name, mode in MODES.items():
        wanted = Wanted(output=tmp_path_factory.getbasetemp() / name)
        made[name] = api.afd("llama-tiny", REQUEST, mode=mode, wanted=wanted, **SMALL)
    return made


@pytest.fixture(params=list(MODES))
def report(request: pytest.FixtureRequest, reports: dict[str, AfdReport]) -> AfdReport:
    return reports[request.param]


@pytest.mark.slow
def test_a_report_is_plain_json_and_says_how_every_time_is_known(report: AfdReport) -> None:
    body = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert body["label"].startswith("projection")
    for turn in body["turns"]:
        for total in ("ttft", "tpot", "end_to_end"):
            assert turn[f"{total}_seconds"] > 0
            assert turn[f"{total}_kind"] in BASES
    parts = [part for turn in body["turns"] for part in (*turn["ttft"], *turn["tpot"])]
    for part in [*parts, *body["layer"], *body["figures"]]:
        assert part["kind"] in BASES
    assert "spectrum-x.latency_ns" in body["assumptions"]["assumed"]
    assert (body["boundary"] is not None) == (report.mode == "afd")


def test_the_parts_of_a_turn_add_up(report: AfdReport) -> None:
    for turn in report.to_json()["turns"]:
        for total in ("ttft", "tpot"):
            assert turn[f"{total}_seconds"] == pytest.approx(sum(p["seconds"] for p in turn[total]))
        assert turn["end_to_end_seconds"] == pytest.approx(
            turn["ttft_seconds"]
            + sum(part["seconds"] for part in turn["later"])
            + (REQUEST.new_tokens - 1) * turn["tpot_seconds"]
        )
    assert report.per_user == pytest.approx(1 / report.to_json()["turns"][-1]["tpot_seconds"])
    assert report.per_rack == pytest.approx(report.per_user * REQUEST.batch)  # two chips are one rack
    spent = sum(turn["end_to_end_seconds"] for turn in report.to_json()["turns"])
    new = REQUEST.batch * REQUEST.turns * REQUEST.new_tokens
    assert report.sustained == pytest.approx(new / spent)


def overlaps(events: list[Event]) -> list[tuple[Event, Event]]:
    """Events of one thread that run at the same time."""
    threads: dict[tuple[str, str], list[Event]] = {}
    for event in sorted(events, key=lambda event: (event.begin, event.end)):
        threads.setdefault((event.side, event.thread), []).append(event)
    return [(a, b) for own in threads.values() for a, b in pairwise(own) if b.begin < a.end]


def test_no_thread_does_two_things_at_once(report: AfdReport) -> None:
    assert report.events
    assert overlaps(list(report.events)) == []


def test_events_lie_within_what_they_are_of(reports: dict[str, AfdReport]) -> None:
    ends = {mode: max(event.end for event in report.events) for mode, report in reports.items()}
    for report in reports.values():
        assert min(event.begin for event in report.events) == 0 or report.mode == "pd"
        assert all(0 <= event.begin <= event.end for event in report.events)
    prefill, exposed, token = reports["pd"].turns[-1].first[-3:]
    assert ends["pd"] == prefill.picoseconds + exposed.picoseconds + token.picoseconds
    assert ends["draft"] == sum(part.picoseconds for part in reports["draft"].layer)
    last = [event for event in reports["afd"].events if event.end == ends["afd"]]
    assert [event.name for event in last] == ["head micro-batch 1"]
    assert ends["afd"] >= reports["afd"].turns[-1].step[0].picoseconds  # an empty pipeline has to fill


def test_layers_that_queue_for_the_nics_do_not_overlap_in_the_trace() -> None:
    """Bytes that take longer than a layer; two groups of chips whose slots do overlap."""
    found = stream([10, 20, 30, 40], 25, 100, [40] * 4, [(0,), (0,), (1,), (1,)])
    events = list(events_of(found, 7))
    assert overlaps(events) == []
    assert [event.thread for event in events if event.side == "LPUs"] == [
        *["ingest, group 0"] * 2,
        *["ingest, group 1"] * 2,
        "decode",
    ]
    assert overlaps([event._replace(thread="one") for event in events])  # the comparison can fail


def test_a_trace_names_every_process_and_thread(report: AfdReport) -> None:
    body = json.loads(json.dumps(trace(report.events, {"mode": report.mode})))
    names = {
        (event["pid"], event.get("tid")): event["args"]["name"]
        for event in body["traceEvents"]
        if event["ph"] == "M"
    }
    spans = [event for event in body["traceEvents"] if event["ph"] == "X"]
    assert len(spans) == len(report.events)
    for event, span in zip(report.events, spans, strict=True):
        assert names[span["pid"], None] == event.side
        assert names[span["pid"], span["tid"]] == event.thread
        assert span["args"]["kind"] in BASES
        assert span["ts"] == event.begin / 1e6


def test_the_programs_of_every_mode_are_saved(
    reports: dict[str, AfdReport], tmp_path_factory: pytest.TempPathFactory
) -> None:
    for mode, report in reports.items():
        folder = tmp_path_factory.getbasetemp() / mode
        assert dict(report.machine)["digest"] == load_program(folder).manifest.digest
        kinds = [one and one.manifest.kind for one in load_handover(folder)]
        assert kinds == (["ingest", "egress"] if mode == "pd" else [None, None])


def test_idle_replicas_are_a_warning() -> None:
    found = api.afd("llama-tiny", Request(prompt_tokens=4, new_tokens=2), rack="pair", gpus=Gpus(gpus=7))
    assert found.warnings == ("6 of 7 replicas of GPUs are idle: 1 sequences at a time",)
    assert ("gpus", "7 x h200: 7 x tp 1") in found.machine


def test_nothing_is_written_where_a_run_fails(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="its turns come to 22 tokens, --context ends at 16"):
        api.afd("llama-tiny", REQUEST, wanted=Wanted(output=tmp_path / "p"), context=(16,), **SMALL)
    with pytest.raises(OptionError, match="--target-ms: is -1, must be above 0"):
        RatioPoints(target_ms=-1.0)
    assert list(tmp_path.iterdir()) == []


def test_measured_operators_are_named_as_such_wherever_they_count(tmp_path: Path) -> None:
    header = (
        "id,op,framework,fw_version,kernel,compute_dtype,kv_dtype,batch,q_len,kv_len,heads,kv_heads,head_dim,"
        "gemm_m,gemm_n,gemm_k,extra,latency_us\n"
    )
    row = "a,gemm,own,1,mine,w8a16,,,,,,,,4,256,256,,123.0\n"  # the output product of llama-tiny, 4 rows
    (tmp_path / "table.csv").write_text(header + row)
    known: dict[str, Any] = {
        "rack": "pair",
        "mode": Afd(micro_batches=1),
        "options": CompileOptions(tp=2),
    }
    request = Request(prompt_tokens=8, new_tokens=2, batch=4)
    plain = api.afd("llama-tiny", request, gpus=Gpus(gpus=1), **known)
    found = api.afd("llama-tiny", request, gpus=Gpus(gpus=1, gpu_table=tmp_path / "table.csv"), **known)
    assert {part.basis for part in plain.layer} == {"modelled", "assumed", EXACT}
    measured = [part for part in found.layer if part.basis == "measured"]
    assert [(part.name, part.picoseconds) for part in measured] == [("o", 123_000_000)]
    assert found.turns[0].step[0].basis == "partly measured"
    assert found.turns[0].tpot > plain.turns[0].tpot
    with pytest.raises(FileError, match="nowhere"):
        api.afd("llama-tiny", request, gpus=Gpus(gpu_table=tmp_path / "nowhere.csv"), **known)


def test_a_pod_stands_for_gpus_rack_and_bridge() -> None:
    found, rack = of_pod(Gpus(pod="nvl72-lpx-x4", gpu_tp=8), "lpx")
    assert (found.gpu, found.gpus, found.bridge, rack) == ("r100", 72, "spectrum-x", "lpx-x4")
    assert (found.gpu_tp, found.pod) == (8, None)
    assert of_pod(Gpus(gpus=3), "quad") == (Gpus(gpus=3), "quad")


@pytest.mark.parametrize(
    ("gpus", "rack", "said"),
    [
        (Gpus(pod="nvl72-lpx", gpus=16), "lpx", "--gpus 16: is beside --pod nvl72-lpx, which says 72"),
        (Gpus(pod="nvl72-lpx", gpu="b200"), "lpx", "--gpu b200: is beside --pod nvl72-lpx, which says r100"),
        (Gpus(pod="nvl72-lpx-x2"), "quad", "--rack quad: is beside --pod nvl72-lpx-x2, which says lpx-x2"),
    ],
)
def test_what_is_said_beside_a_pod_must_agree(gpus: Gpus, rack: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        api.afd("llama-tiny", REQUEST, gpus=gpus, rack=rack)
