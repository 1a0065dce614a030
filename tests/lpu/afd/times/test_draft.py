"""Mode draft in time: a round by hand, and what acceptance and drafts change."""

from fractions import Fraction

import pytest
from hopped import BRIDGE
from shapes import SMALL

from compiler.errors import OptionError
from compiler.program.program import Program
from fabric.catalog import gpu_spec
from lpu.afd.times.draft import Drafting, turns
from lpu.gpu.request import Request
from lpu.gpu.share import GpuShare, shares
from lpu.report.words import EXACT

STEP_PS = 5_431_978  # 7957 cycles at 1,464,843,750 Hz
REQUEST = Request(prompt_tokens=10, new_tokens=4, turns=2, later_tokens=5)


@pytest.fixture(scope="module")
def one() -> GpuShare:
    return shares(SMALL, gpu_spec("h200"), 1, BRIDGE)[-1]


def test_a_round_by_hand(one: GpuShare, pair_program: Program) -> None:
    """Two drafts, each right with 1/2: 1 + 1/2 + 1/4 tokens; three ids of 4 bytes at 50 GB/s each way."""
    (first, second), (parts, _) = turns(REQUEST, one, pair_program, Drafting(drafts=2, acceptance=0.5))
    verify = one.verify(1, 3, 12)
    assert [part.picoseconds for part in parts] == [3 * STEP_PS, verify, 2 * (4_000_000 + 240)]
    assert [part.basis for part in parts] == [EXACT, "modelled", "assumed"]
    assert first.tpot == int(Fraction(3 * STEP_PS + verify + 8_000_480) / Fraction(7, 4))
    assert first.crossed == {"ids": 2 * 3 * 4 * 2}  # three more tokens take two rounds
    prefill = one.prefill(10, 0, 1)
    assert [part.picoseconds for part in first.first] == [0, prefill]
    assert [part.picoseconds for part in first.later] == [max(0, 10 * STEP_PS - prefill)]
    assert first.end_to_end == first.ttft + first.later[0].picoseconds + 3 * first.tpot
    again = one.prefill(6, 13, 1)
    assert (second.reused, second.first[1].picoseconds) == (13, again)
    assert second.later[0].picoseconds == max(0, 6 * STEP_PS - again)
    assert (REQUEST.middle(0), REQUEST.middle(1)) == (12, 21)


def test_drafts_that_are_never_right_cost_a_round_a_token(one: GpuShare, pair_program: Program) -> None:
    (turn, _), (parts, _) = turns(REQUEST, one, pair_program, Drafting(drafts=3, acceptance=0.0))
    assert turn.tpot == sum(part.picoseconds for part in parts)


def test_more_acceptance_is_never_slower(one: GpuShare, pair_program: Program) -> None:
    times = [
        turns(REQUEST, one, pair_program, Drafting(drafts=3, acceptance=share))[0][0].tpot
        for share in (0.0, 0.3, 0.7, 0.99, 1.0)
    ]
    assert times == sorted(times, reverse=True)
    assert Drafting(drafts=3, acceptance=1.0).tokens == 4


@pytest.mark.parametrize(
    ("drafts", "acceptance", "text"),
    [
        (0, 0.5, "--drafts: is 0, needs at least 1"),
        (2, 1.5, "--acceptance: is 1.5, a share is 0 to 1"),
        (2, -0.1, "--acceptance: is -0.1"),
        (2, float("nan"), "--acceptance: is nan"),
    ],
)
def test_drafting_that_makes_no_sense_is_refused(drafts: int, acceptance: float, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        Drafting(drafts=drafts, acceptance=acceptance)
