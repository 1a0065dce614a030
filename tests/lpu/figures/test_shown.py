"""What notebooks show: a picture, a table and text that cannot act."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostile_names import STEERING, program

from compiler.options import CompileOptions
from lpu import api
from lpu.check.stated import machine
from lpu.cli import app as cli
from lpu.compare.compare import Comparison, RackComparison
from lpu.compare.point import Point
from lpu.figures.results import style
from lpu.figures.shown import Shown
from lpu.report.program import program_facts
from lpu.screen import fact_lines, inert

pytest.importorskip("plotly")
pytest.importorskip("pandas")


def point(strategy: str, latency: int, period: int) -> Point:
    return Point(
        strategy=strategy,
        seed=0,
        tp=2,
        latency_cycles=latency,
        microseconds=latency / 1000,
        period_cycles=period,
        link_peak_cycles=1,
        max_bytes=1,
        hop_bytes=1,
        bound_cycles=1,
        clock_hz=10**9,
        busy_cycles=[period],
        stage=[0],
        weights="seed:0",
        program_sha256="",
        logits_sha256="",
        reference_sha256="",
        measured={"compile_seconds": 1.0},
    )


TP2 = CompileOptions(tp=2)


def shown() -> dict[str, Shown]:
    made = api.compile("llama-tiny", rack="quad", tp=2, context=80, check=False)
    other = api.compile("llama-tiny", rack="quad", tp=4, context=80, check=False)
    points = (point("contiguous", 9, 5), point("annealing", 9, 5), point("random", 12, 3))
    return {
        "compiled": made,
        "report": api.report(made),
        "diff": api.diff(made, other, again=False),
        "sweep": api.sweep(
            "llama-tiny",
            {"hop_ns": (250,)},
            rack="quad",
            context=80,
            check=False,
            options=CompileOptions(tp=2),
        ),
        "compare": Comparison(model="m", racks=(RackComparison(rack="r", points=points, chip="lp30"),)),
    }


RESULTS = shown()


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_has_a_picture_a_table_and_text(name: str) -> None:
    one = RESULTS[name]
    assert len(one.plot().data) > 0
    frame = one.to_dataframe()
    assert len(frame) == len(one.records()) > 0
    html: Any = one
    assert html._repr_html_().startswith("<pre>")


def test_tables_add_up_to_what_the_text_says() -> None:
    frame = RESULTS["diff"].to_dataframe()
    found: Any = RESULTS["diff"]
    assert set(frame.groupby("by").more_cycles.sum()) == {found.cycles}
    calls = RESULTS["compiled"].to_dataframe()
    made: Any = RESULTS["compiled"]
    assert calls.cycles.sum() == made.program.manifest.cycles[80]


def test_every_strategy_has_its_own_look_and_coincident_points_are_rings() -> None:
    assert len({style(i) for i in range(40)}) == 40
    data = RESULTS["compare"].drawing().data
    sizes = [trace["marker"]["size"][0] for trace in data[:2]]
    assert sizes[0] < sizes[1]


def test_names_of_a_program_do_nothing_in_a_notebook() -> None:
    made = RESULTS["compiled"]
    assert isinstance(made, api.Compiled)
    bad = replace(made, program=program())
    html: Any = bad
    text = html._repr_html_() + str(bad.plot().to_json())
    assert not STEERING & set(text)
    assert "<img" not in text
    assert "<a " not in text


def test_names_of_a_program_leave_the_text_of_a_report_short() -> None:
    long = program()
    for text in (str(api.report(long)), fact_lines(program_facts(long)), machine(long.manifest)):
        assert not STEERING & set(inert(text))
        assert max(map(len, text.splitlines())) < 420  # a name alone has 370 characters


def test_a_difference_is_written_as_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, tp in (("a", 2), ("b", 4)):
        made = api.compile("llama-tiny", rack="quad", tp=tp, context=80, check=False)
        api.save_program(made.program, tmp_path / name)
    words = ["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--no-again"]
    assert cli.main([*words, "--html", str(tmp_path / "d.html")]) == 0
    text = (tmp_path / "d.html").read_text()
    assert "another tp" in text
    assert 'id="causes-table"' in text
