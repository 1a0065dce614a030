"""Modulo scheduling on rings: nothing is placed twice, dependencies hold, what has no room is said."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import llama

from compiler.errors import CapacityError, OptionError
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.throughput.interval import FINE, MOST_OF_BOUND, shortest_interval
from compiler.throughput.modulo import Problem, Ring, Tiles, place_rows
from fabric.rack import load_rack


def problem(holds: list[int], instances: int = 1) -> Problem:
    """Rows one after another on one resource."""
    rows = range(len(holds))
    return Problem(
        hold=holds,
        latency=[hold + 3 for hold in holds],
        resource=[0] * len(holds),
        width=[1] * len(holds),
        before=[[row - 1] if row else [] for row in rows],
        after=[[row + 1] if row + 1 < len(holds) else [] for row in rows],
        instances=[instances],
        movable=[True],
        tiles=(),
        places=0,
        accumulators=1,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.integers(1, 3),
    st.integers(0, 30),
    st.booleans(),
    st.booleans(),
)
def test_rows_never_share_an_instance_modulo_the_interval(
    holds: list[int], instances: int, spare: int, advance: bool, tight: bool
) -> None:
    interval = -(-sum(holds) // instances) + spare
    given_ = [(Ring(interval).empty,) * instances]
    found = place_rows(problem(holds, instances), interval, given_, [], advance=advance, tight=tight)
    if found is None:
        return
    taken: set[tuple[int, int]] = set()
    for start, instance, hold in zip(found.start.tolist(), found.instance.tolist(), holds, strict=True):
        cells = {(instance, (start + i) % interval) for i in range(hold)}
        assert len(cells) == hold
        assert not cells & taken
        taken |= cells
    for before, after, hold in zip(found.start[:-1], found.start[1:], holds, strict=False):
        assert after >= before + hold + 3


def test_equal_rows_fill_an_interval_without_a_gap() -> None:
    rows = replace(problem([4] * 8), latency=[4] * 8)
    found = place_rows(rows, 32, [(Ring(32).empty,)], [], advance=False)
    assert found is not None
    assert sorted(found.start % 32) == list(range(0, 32, 4))


def test_a_row_longer_than_the_interval_has_no_room() -> None:
    assert place_rows(problem([5]), 4, [(Ring(4).empty,)], [], advance=False) is None


def test_an_accumulator_is_free_again_only_after_its_write_back() -> None:
    """Two tiles of two products on one plane with one accumulator."""
    two = Problem(
        hold=[2, 2, 1, 2, 2, 1],
        latency=[2, 2, 6, 2, 2, 6],
        resource=[0, 0, 1, 0, 0, 1],
        width=[1] * 6,
        before=[[], [], [0, 1], [], [], [3, 4]],
        after=[[2], [2], [], [5], [5], []],
        instances=[1, 1],
        movable=[True, False],
        tiles=(Tiles(products=(0, 1), drain=2, place=0), Tiles(products=(3, 4), drain=5, place=0)),
        places=1,
        accumulators=1,
    )
    for interval in range(8, 20):
        empty = Ring(interval).empty
        found = place_rows(two, interval, [(empty,), (empty,)], [(0,)], advance=False)
        if found is None:
            assert interval < 10
            continue
        spans = [
            {cycle % interval for cycle in range(found.start[first], found.start[last] + 1)}
            for first, last in ((0, 2), (3, 5))
        ]
        assert not spans[0] & spans[1]


@given(start=st.integers(1, 100_000), spare=st.integers(0, 200_000), holes=st.sets(st.integers(0, 300_000)))
def test_no_shorter_interval_that_was_tried_has_room(start: int, spare: int, holes: set[int]) -> None:
    """Room from `spare` cycles more on, but for some holes."""
    tried: dict[int, bool] = {}

    def at(interval: int) -> str | None:
        tried[interval] = interval >= start + spare and interval not in holes
        return str(interval) if tried[interval] else None

    found = shortest_interval(at, start)
    assert len(tried) < 64
    if found is None:
        assert not any(tried.values())
        assert max(tried) <= MOST_OF_BOUND * start
        return
    interval, placed = found
    assert placed == str(interval)
    assert interval == min(one for one, room in tried.items() if room)
    shorter = [one for one in tried if one < interval]
    assert interval == start or interval - max(shorter) <= max(1, start // FINE)


def test_rows_leave_nothing_between_them_that_none_can_use_if_it_is_tight() -> None:
    """The second row may begin at 13: beside it and the first no 10 cycles of 30 are left for the third."""
    rows = replace(problem([10] * 3), latency=[13] * 3, before=[[], [0], []], after=[[1], [], []])
    given_ = [(Ring(30).empty,)]
    assert place_rows(rows, 30, given_, [], advance=False) is None
    found = place_rows(rows, 30, given_, [], advance=False, tight=True)
    assert found is not None
    assert found.start.tolist() == [0, 20, 10]


def test_a_narrow_row_waits_a_little_for_a_place_where_no_wide_one_fits_if_it_is_tight() -> None:
    """Two lanes of 40 cycles: the narrow rows may begin at 0 and 10, one is set back to the other's side."""
    rows = replace(
        problem([10] * 3, 2),
        latency=[10] * 3,
        width=[1, 1, 2],
        before=[[], [], []],
        after=[[], [], []],
        movable=[False],
    )
    lane = Ring(40)
    first = lane.empty & ~lane.taken(10, 10) & ~lane.taken(30, 10)
    given_ = [(first, lane.empty & ~lane.taken(30, 10))]
    found = place_rows(rows, 40, given_, [], advance=False, tight=True)
    assert found is not None
    assert found.start.tolist() == [10, 0, 20]
    assert found.instance.tolist() == [1, 1, 0]


def test_a_seen_ring_turns_there_and_back() -> None:
    ring = Ring(13)
    free = ring.empty & ~ring.taken(11, 4)
    assert ring.turned(ring.turned(free, 29), -29) == free


def test_the_interval_is_near_its_bound_where_matmuls_set_it() -> None:
    source = llama(layers=1, context=80, heads=8, kv_heads=1, wide=1280)
    program = compile_program(source, load_rack("pair"), CompileOptions(tp=1, objective="throughput"))
    assert program.manifest.waves is not None
    entry = program.manifest.waves.contexts[80]
    assert entry.interval <= 1.05 * entry.bound


def test_slack_lengthens_the_interval_and_shortens_the_step() -> None:
    made = [
        compile_program(
            llama(), load_rack("ring-8"), CompileOptions(tp=2, objective="throughput", interval_slack=slack)
        )
        for slack in (1.0, 8.0)
    ]
    waves = [program.manifest.waves for program in made]
    intervals = [one.contexts[160].interval for one in waves if one is not None]
    assert intervals[1] >= 4 * intervals[0]
    assert made[1].manifest.cycles[160] <= made[0].manifest.cycles[160]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tp": 2, "pp": 3}, OptionError, "Give --pp 2 or less"),
        ({"tp": 5}, OptionError, "Give 4 or less"),
        ({"tp": 2, "users": 1_000_000}, CapacityError, "fewer --users"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    options: dict[str, int], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        compile_program(llama(), load_rack("quad"), CompileOptions(objective="throughput", **options))  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"users": 2}, "--objective throughput"),
        ({"interval_slack": 2.0}, "--objective throughput"),
        ({"objective": "throughput", "interval_slack": 0.5}, "from 1 to"),
        ({"objective": "fast"}, "unknown"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        CompileOptions(**options)  # pyright: ignore[reportArgumentType]


def test_equal_inputs_give_equal_programs() -> None:
    options = CompileOptions(tp=2, objective="throughput")
    digests = [compile_program(llama(), load_rack("quad"), options).manifest.digest for _ in range(2)]
    assert digests[0] == digests[1]
