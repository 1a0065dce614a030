import math
from typing import Literal

import pytest
from steps import llama

import compiler.latency
import compiler.throughput.balance
from compiler.errors import CapacityError
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.place.stages import hold_weights
from compiler.program.isa import WORD_BYTES
from compiler.source import traced
from fabric.catalog import chip_spec
from fabric.rack import Rack, load_rack

MODEL = traced(llama())
CODES = sum(math.prod(one.shape) for one in MODEL.graph.values if one.name.endswith(".codes"))


def four(sram_words: int) -> Rack:
    """Four chips of this many words."""
    return load_rack("quad", chip_spec("lp30").with_numbers(sram_bytes=sram_words * WORD_BYTES))


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_weights_that_all_chips_cannot_hold_are_refused_before_a_tp_is_tried(
    objective: Literal["latency", "throughput"], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        pytest.fail("a tp was tried")

    monkeypatch.setattr(compiler.latency, "assign_sharing", none)
    monkeypatch.setattr(compiler.throughput.balance, "balance", none)
    rack = four(CODES // 8 // WORD_BYTES)
    with pytest.raises(CapacityError, match=r"1.5 MB of weights need 9 chips of 0.2 MB .* the rack has 4"):
        compile_program(MODEL, rack, CompileOptions(objective=objective))


def test_no_program_takes_less_than_the_weights_that_are_refused() -> None:
    least = -(-CODES // (4 * WORD_BYTES))
    hold_weights(MODEL.graph, four(least))
    with pytest.raises(CapacityError, match="need 5 chips"):
        hold_weights(MODEL.graph, four(least - 1))
    program = compile_program(MODEL, load_rack("quad"), CompileOptions(tp=4, pp=1))
    assert all(regions.weights.words >= least for regions in program.manifest.regions)
