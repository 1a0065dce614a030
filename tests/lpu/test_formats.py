"""What the release before wrote to disk is read, or refused in one line that says what to do."""

from pathlib import Path

import pytest
from prefixes import BLOCK, binding

from compiler.program.manifest import SCHEMA
from compiler.program.store import ProgramError
from lpu import api
from lpu.compare.results import POINTS, results
from lpu.decode.prefixes.store import load
from lpu.inputs.document import FileError
from models.sources.checkpoint import open_orbax
from models.sources.quantise import WeightError

BEFORE = Path(__file__).parents[1] / "data" / "formats" / "before"


def one_line(error: BaseException, *words: str) -> None:
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error)


def test_converted_weights_without_a_sha256_of_each_tensor_are_refused() -> None:
    with pytest.raises(WeightError) as refused:
        open_orbax(BEFORE / "weights")
    one_line(refused.value, "'lpu-weights-1'", "'lpu-weights-2'", "`lpu convert`")


def test_a_prefix_store_without_a_seal_is_refused() -> None:
    with pytest.raises(FileError) as refused:
        load(BEFORE / "prefix", binding(), BLOCK)
    one_line(refused.value, "'lpu-prefix-1'", "'lpu-prefix-2, contract 2'", "`lpu afd --run --kv-cache DIR`")


def test_results_of_a_comparison_without_a_schema_are_refused() -> None:
    with pytest.raises(FileError) as refused, results(BEFORE / "results"):
        pass
    one_line(refused.value, POINTS, "None", "'lpu-points-3'", "`lpu compare -o DIR`")


def test_a_program_of_the_first_schema_is_refused() -> None:
    with pytest.raises(ProgramError) as refused:
        api.load_program(BEFORE / "program")
    one_line(refused.value, "lpu-program/1", SCHEMA, "`lpu compile MODEL -o DIR`")
