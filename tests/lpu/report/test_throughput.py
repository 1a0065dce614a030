"""What a throughput program promises: rates, users, and the comparison of intervals."""

from dataclasses import replace

import pytest

from compiler.errors import CapacityError, OptionError
from compiler.options import CompileOptions
from lpu import api
from lpu.cli.app import main
from lpu.report.throughput import Throughput, non_dominated, of
from lpu.sweep.front import front

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


def test_a_program_that_another_beats_for_all_and_for_each_is_left_out() -> None:
    worse = replace(ONE, name="b", cycles=1100, interval=110)
    faster = replace(ONE, name="c", cycles=900, interval=180, turn=5, users=3)
    again = replace(ONE, name="d")
    assert [one.name for one in non_dominated([ONE, worse, faster, again])] == ["c", "a"]


@pytest.mark.slow
def test_pareto_searches_groups_and_users_and_keeps_what_nothing_beats() -> None:
    found = api.pareto("llama-tiny", rack="quad", context=[64], tp=1, users=8, objective="pareto")
    each = [one.tokens_per_second_of_sequence for one in found]
    every = [one.tokens_per_second for one in found]
    assert each == sorted(each, reverse=True)
    assert every == sorted(every)
    for pp in (4, 3, 2):
        for slack in (None, 1.0, 2.0, 5.0):
            made = api.compile(
                "llama-tiny", rack="quad", context=[64], tp=1, pp=pp, users=8, check=False,
                objective="throughput", interval_slack=slack,
            )  # fmt: skip
            one = of(made.program, 64)
            assert any(
                all_ >= 0.99 * one.tokens_per_second and own >= 0.99 * one.tokens_per_second_of_sequence
                for all_, own in zip(every, each, strict=True)
            ), one


def turn(users: int, cycles: int, name: str) -> Throughput:
    return replace(ONE, name=name, users=users, turn=users, cycles=cycles, interval=-(-cycles // users))


def test_the_front_tries_fewer_groups_until_they_do_not_fit_and_fewer_users_where_they_meet() -> None:
    asked: list[tuple[int | None, int | None, int | None]] = []

    def measure(options: CompileOptions) -> Throughput:
        asked.append((options.tp, options.pp, options.users))
        if options.objective == "latency":
            return turn(1, 700, "alone")
        if options.tp != 2 or (options.pp or 8) < 5:
            raise CapacityError("stages", "a test", "does not fit", "None.")
        return turn(options.users or 2 * (options.pp or 8), 900 + 10 * (options.pp or 8), f"{options.pp}")

    found = front(measure, CompileOptions(), 16)
    assert [one.name for one in found] == ["alone", "5", "6", "7", "None"]
    assert (2, 4, None) in asked
    assert (2, 3, None) not in asked
    assert (2, None, 8) in asked
    assert {tp for tp, _, _ in asked} == {None, 1, 2, 4, 8, 16}


def test_a_front_of_nothing_says_why() -> None:
    def refused(options: CompileOptions) -> Throughput:
        raise CapacityError("stages", f"tp {options.tp}", "does not fit", "Use another rack.")

    with pytest.raises(CapacityError, match="does not fit"):
        front(refused, CompileOptions(), 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "rack", "context", "most"),
    [
        ("llama-3.1-70b", "lpx", 8192, 1.05),
        ("tinyllama-1.1b", "lpx-tray", 256, 1.05),
    ],
)
def test_the_shortest_interval_is_near_its_bound(model: str, rack: str, context: int, most: float) -> None:
    """Where a stage has many rows; on tiny models the longest row sets the interval."""
    options = CompileOptions(tp=8, objective="throughput", interval_slack=1.0)
    made = api.compile(model, rack=rack, context=[context], options=options, check=False)
    assert made.program.manifest.waves is not None
    (entry,) = made.program.manifest.waves.contexts.values()
    assert entry.bound <= entry.interval <= most * entry.bound


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
