"""A request and its turns: how many tokens are where, and how a sum of times is known."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpu.afd.turn import Turn
from lpu.gpu.request import Request
from lpu.gpu.units import Part, cycles_ps, picoseconds, weakest
from lpu.inputs.document import FileError
from lpu.report.words import EXACT

COUNTS = st.integers(2, 9)


@given(prompt=COUNTS, new=COUNTS, later=COUNTS, turns=st.integers(1, 5))
def test_a_turn_begins_where_the_one_before_it_ends(prompt: int, new: int, later: int, turns: int) -> None:
    request = Request(prompt_tokens=prompt, new_tokens=new, later_tokens=later, turns=turns)
    said = 0
    for number in range(turns):
        assert request.before(number) == said
        said += (prompt if number == 0 else later) + new
    assert request.context == said


def test_later_turns_bring_as_many_tokens_as_the_first_unless_told() -> None:
    assert Request(prompt_tokens=7, new_tokens=1, turns=3).context == 24


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"prompt_tokens": 1}, "--prompt-tokens is 1, must be at least 2"),
        ({"new_tokens": 0}, "--new-tokens is 0, must be at least 1"),
        ({"batch": 0}, "--batch is 0, must be at least 1"),
        ({"turns": 0}, "--turns is 0, must be at least 1"),
        ({"later_tokens": 0}, "--later-tokens is 0, must be at least 1"),
        ({"cached_tokens": -1}, "--cached-tokens is -1, must be 0 to 6"),
        ({"cached_tokens": 7}, "--cached-tokens is 7, must be 0 to 6"),
        ({"queue_seconds": -0.5}, "--queue-seconds is -0.5, must be at least 0"),
        ({"queue_seconds": float("nan")}, "--queue-seconds is nan, must be at least 0 and finite"),
        ({"queue_seconds": float("inf")}, "--queue-seconds is inf, must be at least 0 and finite"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(FileError, match=text):
        Request(**{"prompt_tokens": 8, "new_tokens": 4, **wrong})


def test_cycles_are_cut_and_seconds_rounded_to_whole_picoseconds() -> None:
    assert cycles_ps(3, 1_464_843_750) == 2048
    assert cycles_ps(1, 3_000_000_000) == 333
    assert picoseconds(1.4e-12) == 1


def test_a_turn_adds_up_and_a_sum_is_known_no_better_than_its_parts() -> None:
    queue = Part(name="queue", picoseconds=0, basis="assumed")
    prefill = Part(name="prefill", picoseconds=700, basis="modelled")
    step = Part(name="step", picoseconds=50, basis=EXACT)
    turn = Turn(number=0, first=(queue, prefill, step), step=(step,), tokens=4, reused=0)
    assert (turn.ttft, turn.tpot, turn.end_to_end) == (750, 50, 750 + 3 * 50)
    body = turn.to_json()
    assert (body["ttft_kind"], body["tpot_kind"], body["end_to_end_kind"]) == (
        "modelled",
        EXACT,
        "modelled",
    )
    assert weakest((Part(name="queue", picoseconds=1, basis="assumed"), step)) == "assumed"
    assert weakest(()) == EXACT
