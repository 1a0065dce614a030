"""Calls that overlap in time on a chip are proved where what both touch comes in their order."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from compiler.options import CompileOptions
from compiler.program.isa import Op
from compiler.program.program import Program
from lpu import api
from lpu.prove.follow.block_rows import block_rows
from lpu.prove.follow.overlap import Touched, out_of_order, placed, touched
from lpu.prove.prove import prove

NEVER = 1 << 60


@pytest.fixture(scope="module")
def piped() -> Program:
    """Waves of pairs of chips; a layer begins on a chip while what came before still leaves it."""
    options = CompileOptions(tp=2, objective="throughput")
    return api.compile("smollm-135m", rack="quad", context=[256], options=options, prove=False).program


def ends(program: Program, index: int) -> dict[int, int]:
    call = program.calls[index]
    columns = program.blocks[call.block].columns[256]
    at = np.array(call.chips)[columns.chip]
    return {int(chip): int(columns.t1[at == chip].max()) + call.base[256] for chip in np.unique(at)}


def test_a_program_whose_calls_overlap_is_proved(piped: Program) -> None:
    calls = [i for i, call in enumerate(piped.calls) if len(piped.blocks[call.block].columns[256])]
    assert any(
        piped.calls[then].base[256] < ends(piped, now)[chip]
        for now, then in pairwise(calls)
        for chip in piped.calls[then].chips
        if chip in ends(piped, now)
    )
    verdict = prove(piped)
    assert verdict.ok, verdict.reason


def test_a_call_that_begins_before_its_operands_are_there_is_refused(piped: Program) -> None:
    for index in (2, 3, 20, len(piped.calls) - 1):
        call = piped.calls[index]
        if call.base[256] < 100 or not len(piped.blocks[call.block].columns[256]):
            continue
        early = replace(call, base={256: call.base[256] - 100})
        calls = (*piped.calls[:index], early, *piped.calls[index + 1 :])
        verdict = prove(replace(piped, calls=calls))
        assert not verdict.ok
        assert f"call {call.name} takes line" in verdict.reason, verdict.reason
        assert "is done with it" in verdict.reason


@pytest.mark.parametrize(
    ("first", "second", "bad"),
    [
        ((NEVER, -1, 3, 9), (9, 12, NEVER, -1), False),  # written, then read
        ((NEVER, -1, 3, 9), (8, 12, NEVER, -1), True),
        ((0, 9, NEVER, -1), (NEVER, -1, 10, 12), False),  # read, then written
        ((0, 9, NEVER, -1), (NEVER, -1, 9, 12), True),
        ((NEVER, -1, 3, 9), (NEVER, -1, 10, 12), False),  # written twice
        ((NEVER, -1, 3, 9), (NEVER, -1, 9, 12), True),
        ((0, 50, NEVER, -1), (0, 5, NEVER, -1), False),  # read by both
    ],
)
def test_what_two_calls_touch_comes_in_their_order(
    first: tuple[int, ...], second: tuple[int, ...], bad: bool
) -> None:
    one, other = (
        Touched(np.array([4, 7 + i]), np.array([times, times])) for i, times in enumerate((first, second))
    )
    assert out_of_order(one, other).tolist() == ([4] if bad else [])


def test_lines_and_accumulators_of_a_block_are_touched_where_its_call_is(piped: Program) -> None:
    block = piped.blocks[next(call.block for call in piped.calls if call.name == "layers.0.ffn")]
    columns, planes = block.columns[256], piped.manifest.chip.planes
    found = touched(block_rows(block, 256, piped.manifest), columns, planes)
    assert len(np.unique(found.key)) == len(found.key)
    accumulators = found.key[(found.key >> 31) & 1 == 1]
    sums = columns.op == Op.MM
    named = zip(columns.chip[sums], columns.unit[sums], columns.dst[sums], strict=True)
    assert len(accumulators) == len(set(named))
    there = placed(found, (3, 1), 1000)
    assert sorted(set((there.key >> 32).tolist())) == [1, 3]
    assert there.times[there.times[:, 0] < NEVER, 0].min() == columns.t0.min() + 1000
