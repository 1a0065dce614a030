"""What a throughput program promises: rates, users, and the comparison of intervals."""

from dataclasses import replace

import pytest

from compiler.errors import OptionError
from compiler.options import CompileOptions
from lpu import api
from lpu.cli.app import main
from lpu.report.throughput import Throughput, non_dominated

ONE = Throughput(
    name="a",
    context=64,
    batch=2,
    chip="lp30",
    cycles=1000,
    interval=100,
    bound=95,
    bound_of="planes",
    users=5,
    turn=10,
    clock_hz=1_000_000,
)
WAVES = ["compile", "llama-tiny", "--rack", "quad", "--context", "64"]


def test_rates_follow_from_interval_turn_and_users() -> None:
    """Five users of two sequences step once in ten intervals of 100 cycles, at a million cycles a second."""
    assert ONE.tokens_per_second == pytest.approx(2 * 5 * 1e6 / 1000)
    assert ONE.tokens_per_second_of_interval == pytest.approx(2 * 1e6 / 100)
    assert ONE.tokens_per_second_of_sequence == pytest.approx(1e6 / 1000)


def test_a_program_that_another_beats_in_everything_is_left_out() -> None:
    worse = replace(ONE, name="b", cycles=1100, interval=110)
    faster = replace(ONE, name="c", cycles=900, interval=200, turn=5)
    assert [one.name for one in non_dominated([ONE, worse, faster])] == ["c", "a"]


def test_pareto_holds_the_latency_program_against_intervals() -> None:
    found = api.pareto(
        "llama-tiny", rack="quad", context=[64], options=CompileOptions(tp=2), slacks=(1.0, 2.0)
    )
    assert found[0].name == "latency"
    assert len(found) > 1
    cycles = [one.cycles for one in found]
    assert cycles == sorted(cycles)
    rates = [one.tokens_per_second_of_interval for one in found]
    assert rates == sorted(rates), "a longer step must buy a shorter interval"


@pytest.mark.slow
def test_an_interval_is_within_five_percent_of_its_bound() -> None:
    """Where a stage has many rows; on tiny models the longest row sets the interval."""
    options = CompileOptions(tp=8, objective="throughput")
    made = api.compile("tinyllama-1.1b", rack="lpx-tray", context=[256], options=options)
    assert made.program.manifest.waves is not None
    (entry,) = made.program.manifest.waves.contexts.values()
    assert entry.bound <= entry.interval <= 1.05 * entry.bound


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--objective", "pareto", "-o", "folder"], ["pareto: writes no program", "--interval-slack"]),
        (["--objective", "throughput", "--prefill", "16"], ["--prefill 16", "--objective latency"]),
        (["--objective", "throughput", "--placement", "annealing"], ["placement annealing"]),
        (["--users", "2"], ["--users", "Add --objective throughput"]),
        (["--objective", "throughput", "--users", "1000000"], ["Give fewer --users"]),
        (["--objective", "speed"], ["'speed' is none of latency, throughput, pareto"]),
    ],
)
def test_what_does_not_go_together_is_one_line(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WAVES, *arguments]) in (2, 3)
    (line,) = capsys.readouterr().err.strip().splitlines()
    for word in words:
        assert word in line


def test_pareto_is_no_program_of_its_own() -> None:
    with pytest.raises(OptionError, match="compares programs"):
        api.compile("llama-tiny", rack="quad", options=CompileOptions(objective="pareto"))
