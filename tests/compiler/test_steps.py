import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from steps import llama

from compiler.errors import CompileError
from compiler.graph.graph import Graph
from compiler.hops import compile_hops
from compiler.options import CompileOptions
from compiler.pipeline import compile_pair, compile_program
from compiler.source import traced
from compiler.steps import SCREEN, Steps
from fabric.catalog import bridge_spec
from fabric.rack import load_rack

TRAY = load_rack("lpx-tray")
LATENCY = ["capture", "blocks", "number", "place", "schedule", "memory", "assemble"]
WAVES = [
    "capture",
    "blocks",
    "number",
    "place",
    "lower",
    "interval",
    "schedule",
    "stages",
    "memory",
    "assemble",
]
FILLED = [*WAVES[:3], "search", *WAVES[3:5], *WAVES[6:]]  # the interval is found while scheduling
THROUGHPUT: dict[str, Any] = {"objective": "throughput", "users": 2}


def named(folder: Path) -> list[str]:
    """The steps that wrote into a folder, in order; every text fits a screen."""
    files = sorted(folder.iterdir())
    assert [path.name[:3] for path in files] == [f"{i:02}-" for i in range(1, len(files) + 1)]
    lines = [path.read_text().splitlines() for path in files]
    assert all(1 <= len(text) <= SCREEN and max(map(len, text)) < 160 for text in lines)
    return [path.stem[3:] for path in files]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (CompileOptions(tp=2), LATENCY),
        (CompileOptions(), [*LATENCY[:3], "search", *LATENCY[3:]]),
        (CompileOptions(tp=4, placement="minmax-dp"), LATENCY),
        (CompileOptions(tp=2, interval_slack=1.0, **THROUGHPUT), WAVES),
        (CompileOptions(**THROUGHPUT), FILLED),
    ],
)
def test_every_step_writes_its_result_as_text_in_order_and_the_program_is_the_same(
    tmp_path: Path, options: CompileOptions, steps: list[str]
) -> None:
    folder = tmp_path / "made" / "here"
    program = compile_program(llama(), TRAY, options, dump_dir=folder)
    assert named(folder) == steps
    assert program.manifest == compile_program(llama(), TRAY, options).manifest
    assert program.manifest.digest in (folder / f"{len(steps):02}-assemble.txt").read_text()


def test_what_a_search_tried_is_in_its_text(tmp_path: Path) -> None:
    program = compile_program(llama(), TRAY, CompileOptions(), dump_dir=tmp_path)
    text = (tmp_path / "04-search.txt").read_text()
    assert f"best is {program.manifest.options.tp}" in text
    assert all(f"  {one.tp}: {one.cycles}\n" in text for one in program.manifest.search)


def test_a_pair_and_hops_go_by_steps_too(tmp_path: Path) -> None:
    source = llama()
    compile_pair(source, source, TRAY, CompileOptions(tp=2), dump_dir=tmp_path / "pair")
    assert named(tmp_path / "pair") == [
        *("capture", "blocks", "capture-prefill", "blocks-prefill", "number", "place", "schedule"),
        *("schedule-prefill", "memory", "assemble", "assemble-prefill"),
    ]
    bridge = bridge_spec("spectrum-x")
    compile_hops(source, TRAY, CompileOptions(tp=2), bridge, dump_dir=tmp_path / "hops")
    assert named(tmp_path / "hops") == ["capture", "split", *LATENCY[1:]]


def test_how_long_a_step_took_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lpu.compile")
    traced(llama(), Steps())
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["capture", "blocks"]
    assert all(record.getMessage().endswith(" s") for record in caplog.records)


def test_a_result_that_cannot_be_is_a_bug_of_the_compiler() -> None:
    graph = traced(llama()).graph
    swapped = replace(graph, nodes=graph.nodes[::-1])

    def capture() -> Graph:
        return swapped

    with pytest.raises(CompileError, match="is a bug of the compiler"):
        Steps()("capture", capture)
