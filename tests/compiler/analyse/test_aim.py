"""Floors over the ways to exchange: counted by hand, the same however a layer is cut into blocks."""

import pytest

from compiler.analyse.aim import aims, next_tenth
from compiler.options import CompileOptions
from lpu import api


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_exchanges_and_fills_are_those_of_the_model_whatever_is_a_block(objective: str) -> None:
    """Four layers of two pairs of matmuls, QK and PV between; the embedding and the head exchange once."""
    made = api.compile(
        "llama-tiny", rack="quad", context=[64], options=CompileOptions(tp=4, objective=objective)
    )
    program = made.program
    assert (len(program.calls) > 7) == (objective == "throughput")
    every, column, owner = aims(program, 64)
    hop = program.manifest.link_table()[:, 3].min()
    assert (every.exchanges, column.exchanges, owner.exchanges) == (10, 18, 18)
    assert (every.hops, column.hops) == (10 * hop, 18 * hop)
    assert every.fills == (4 * 6 + 1) * program.manifest.chip.mxm_fill_cycles
    assert every.handovers == 0
    assert every.cycles == every.hops + every.installs + every.fills < program.manifest.cycles[64]


def test_one_chip_exchanges_nothing() -> None:
    made = api.compile("llama-tiny", rack="pair", context=[64], options=CompileOptions(tp=1, pp=1))
    assert {one.exchanges for one in aims(made.program, 64)} == {0}


def test_a_tenth_is_of_what_is_more_than_a_tenth() -> None:
    assert next_tenth({"hops": 500, "fills": 100, "drains": 99}, 1000) == [("hops", 0.2), ("fills", 1.0)]
