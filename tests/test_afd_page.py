"""docs/afd.md against the program: its example is what a command prints, its step on paper the schedule."""

import re
import shlex
from pathlib import Path

import pytest

from lpu.cli import app as cli
from lpu.cli.verb import flags
from lpu.pingpong.pingpong import exposed_transfer, run, steady_period
from lpu.pingpong.stages import Plan, Stages

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/afd.md").read_text()
PS_PER_US = 10**6


def on_paper(micro_batches: int) -> Plan:
    layer = Stages(10 * PS_PER_US, 4 * PS_PER_US, 5 * PS_PER_US, 3 * PS_PER_US)
    return Plan(layers=(layer, layer), micro_batches=micro_batches)


def test_the_example_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"```console\n\$ lpu (afd .*) --run\n((?:.|\n)*?)```", PAGE)
    assert found is not None
    times, bits = found[2].split("bits  ")  # of --run, which takes long: its bits have tests of their own
    assert cli.main(shlex.split(found[1])) == 0
    assert capsys.readouterr().out == times
    assert bits.strip().startswith("equal to the reference (")


def test_the_step_on_paper_is_the_schedule() -> None:
    line = run(on_paper(2))
    spans: dict[tuple[int, int], list[str]] = {}
    columns = (line.layer, line.micro_batch, line.start, line.end)
    for layer, micro_batch, start, end in zip(*(c.tolist() for c in columns), strict=True):
        spans.setdefault((layer, micro_batch), []).append(f"{start // PS_PER_US} to {end // PS_PER_US}")
    rows = [f"| {layer} | {'AB'[m]} | {' | '.join(times)} |" for (layer, m), times in spans.items()]
    assert "\n".join(rows) in PAGE
    assert len(rows) == 4
    assert f"The step ends at {line.makespan // PS_PER_US}." in PAGE
    assert f"so {exposed_transfer(on_paper(2)) // PS_PER_US} us are exposed" in PAGE
    for micro_batches in (2, 3):
        assert f"**{steady_period(on_paper(micro_batches)) / PS_PER_US} us**" in PAGE


def test_files_and_options_that_the_page_names_are_there() -> None:
    known = {"--json", *(word for verb in cli.VERBS for word in flags(verb))}
    for path in re.findall(r"`((?:lpu|fabric|compiler|docs|benchmarks)/[\w./]+)`", PAGE):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(([\w./-]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists(), path
    for option in re.findall(r"--[a-z][a-z-]+", PAGE):
        assert option in known, option
