"""The pages of GPUs beside LPUs and of energy: what is drawn is what the verbs say."""

import base64
import gzip
import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from lpu import api
from lpu.afd.modes.afd import Afd
from lpu.afd.options import Gpus
from lpu.gpu.request import Request
from lpu.gpu.units import PS_PER_US
from lpu.page.replayed import replay_page
from lpu.traffic.options import ReplayOptions, TrafficGpus
from lpu.traffic.reports.report import ReplayReport

pytest.importorskip("plotly")


def data_of(path: Path) -> dict[str, Any]:
    """What a page packs."""
    found = re.search(r'id="data">([^<]*)<', path.read_text())
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_the_page_of_a_divided_model_draws_every_event_and_the_slack(tmp_path: Path) -> None:
    request = Request(prompt_tokens=12, new_tokens=3, batch=2)
    mode = Afd(gpu_jitter=0.1, miss_probability=0.01)
    report = api.afd("llama-tiny", request, mode=mode, rack="pair", gpus=Gpus(gpus=1))
    made = api.page(report, tmp_path / "afd.html")
    held = data_of(tmp_path / "afd.html")
    assert (made.context, made.digest) == (None, dict(report.machine)["digest"])
    assert held["report"] == json.loads(json.dumps(report.to_json()))
    drawn = held["figures"]["sides-figure"]["data"]
    bars = [
        (y, text, base, base + x)
        for one in drawn
        for y, text, base, x in zip(one["y"], one["text"], one["base"], one["x"], strict=True)
    ]
    wanted = [
        (f"{e.side}: {e.thread}", e.name, e.begin / PS_PER_US, e.end / PS_PER_US) for e in report.events
    ]
    assert sorted((*bar[:3], pytest.approx(bar[3])) for bar in bars) == sorted(wanted)
    assert {one["name"] for one in drawn} == {event.basis for event in report.events}
    layer = held["figures"]["layer-figure"]["data"]
    widths = {y: x for one in layer for y, x in zip(one["y"], one["x"], strict=True)}
    slack = next(part for part in report.layer if part.name == "wait for the slot")
    assert widths["wait for the slot"] == pytest.approx(slack.picoseconds / PS_PER_US)
    text = unescape((tmp_path / "afd.html").read_text())
    assert "boundary (modelled, jitter 0.1)" in text
    assert all(figure.name in text for figure in report.figures)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> ReplayReport:
    path = tmp_path_factory.mktemp("traffic") / "drawn.yaml"
    path.write_text(
        "requests: 700\narrivals: {kind: poisson, rate: 9000}\n"
        "input: {kind: normal, mean: 60, sd: 20, most: 100}\n"
        "output: {kind: exponential, mean: 20, most: 28}\n"
    )
    asked = ReplayOptions(ttft_ms=40, seeds=2)
    return api.replay(path, "llama-tiny", rack="quad", gpus=TrafficGpus(gpus=0), asked=asked, check=False)


def test_a_replay_says_which_targets_were_met_or_that_none_is_stated(replayed: ReplayReport) -> None:
    assert dict(replayed.facts())["goodput"].endswith(f"met {replayed.target_words}")
    assert replayed.target_words.startswith("TTFT ")
    free = replace(replayed, targets=(None, None, None))
    assert dict(free.facts())["goodput"].endswith("requests a second, every served one, no target stated")
    assert "served, no target stated" in replay_page(free).answer


def test_the_page_of_a_replay_draws_the_distributions_of_its_report(
    replayed: ReplayReport, tmp_path: Path
) -> None:
    made = api.page(replayed, tmp_path / "replay.html")
    held = data_of(tmp_path / "replay.html")
    assert (made.context, made.digest) == (None, replayed.digest)
    assert held["report"] == json.loads(json.dumps(replayed.to_json()))
    lines = {one["name"]: one for one in held["figures"]["distributions"]["data"]}
    assert {"TTFT", "TPOT", "end to end", "queue", "target of TTFT"} <= set(lines)
    ttft = lines["TTFT"]
    assert ttft["y"] == sorted(ttft["y"])
    assert len(ttft["y"]) <= 400
    assert (ttft["x"][-1], ttft["y"][-1]) == (pytest.approx(1000 * replayed.spans["TTFT"].most), 100)
    (met,) = lines["target of TTFT"]["y"]
    assert met == pytest.approx(100 * replayed.good, abs=1e-3)
    assert 0 < met < 100
    (arrivals,) = held["figures"]["arrivals"]["data"]
    assert len(arrivals["x"]) == 700  # of the first seed
    assert held["figures"]["busy"]["data"][0]["x"] == [
        pytest.approx(100 * replayed.resources[0].share, abs=1e-3)
    ]
    assert replayed.digest in (tmp_path / "replay.html").read_text()


def test_a_replay_has_a_picture_and_a_table_in_a_notebook(replayed: ReplayReport) -> None:
    pytest.importorskip("pandas")
    assert len(replayed.plot().data) == len(replayed.curves) + 1
    frame = replayed.to_dataframe()
    assert len(frame) == 4 * len(replayed.spans)
    notebook: Any = replayed
    assert notebook._repr_html_().startswith("<pre>")


def test_the_page_of_energy_draws_the_profile_of_the_rack(tmp_path: Path) -> None:
    compiled = api.compile("llama-tiny", rack="quad", tp=2, context=80, check=False)
    found = api.energy(compiled, profiled=True)
    made = api.page(found, tmp_path / "energy.html")
    held = data_of(tmp_path / "energy.html")
    assert made.digest == found.digest
    assert held["report"] == json.loads(json.dumps(found.to_json()))
    most, mean = held["figures"]["power-80"]["data"]
    watts = found.profiles[0].watts
    assert max(most["y"]) == pytest.approx(watts.max(), abs=1e-3)
    assert len(mean["x"]) <= 2000
    assert all(low <= high + 1e-3 for low, high in zip(mean["y"], most["y"], strict=True))
    step = -(-len(watts) // 2000)
    assert mean["y"][0] == pytest.approx(watts[:step].mean(), abs=1e-3)


def test_energy_without_a_profile_has_a_page_without_power(tmp_path: Path) -> None:
    compiled = api.compile("llama-tiny", rack="quad", tp=2, context=80, check=False)
    api.page(api.energy(compiled), tmp_path / "energy.html")
    assert data_of(tmp_path / "energy.html")["figures"] == {}
