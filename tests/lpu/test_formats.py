"""What the release before wrote to disk is read, or refused in one line that says what to do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from prefixes import BLOCK, binding, filled

from compiler.program.manifest import SCHEMA
from compiler.program.store import ProgramError
from lpu import api
from lpu.compare.runner import POINTS, run_tasks
from lpu.decode.prefix_store import load
from lpu.folder import quiet
from lpu.inputs.document import FileError
from models.sources.checkpoint import open_orbax
from models.sources.quantise import WeightError

BEFORE = Path(__file__).parents[1] / "data" / "formats" / "before"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folders of the release before, to change."""
    return Path(shutil.copytree(BEFORE, tmp_path / "before"))


def restated(path: Path, schema: str) -> None:
    """The file as if another version had written it."""
    body = json.loads(path.read_text())
    path.write_text(json.dumps(body | {"schema": schema}))


def one_line(error: BaseException, *words: str) -> None:
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error)


def test_converted_weights_are_read() -> None:
    weights = open_orbax(BEFORE / "weights")
    assert weights["norm.gain"][:2].tolist() == [1.04833984375, 0.9569587707519531]


def test_converted_weights_of_another_schema_are_refused(folder: Path) -> None:
    restated(folder / "weights" / "weights.json", "lpu-weights-0")
    with pytest.raises(WeightError) as refused:
        open_orbax(folder / "weights")
    one_line(refused.value, "'lpu-weights-0'", "'lpu-weights-1'", "`lpu convert`")


def test_a_prefix_store_is_read() -> None:
    cache = load(BEFORE / "prefix", binding(), BLOCK)
    want = filled(binding(), prompts=2)
    assert [block.before for block in cache.blocks()] == [block.before for block in want.blocks()]
    for one, other in zip(cache.blocks(), want.blocks(), strict=True):
        assert np.array_equal(one.k.view(np.uint8), other.k.view(np.uint8))


def test_a_prefix_store_of_another_schema_is_refused(folder: Path) -> None:
    restated(folder / "prefix" / "prefix.json", "lpu-prefix-0")
    with pytest.raises(FileError) as refused:
        load(folder / "prefix", binding(), BLOCK)
    one_line(refused.value, "'lpu-prefix-0'", "'lpu-prefix-1'", "`lpu afd --run --kv-cache DIR`")


def test_results_of_a_comparison_without_a_schema_are_refused() -> None:
    with pytest.raises(FileError) as refused:
        run_tasks([], BEFORE / "results", 1, None, quiet)
    one_line(refused.value, POINTS, "None", "'lpu-points-2'", "`lpu compare -o DIR`")


def test_a_program_of_the_first_schema_is_refused() -> None:
    with pytest.raises(ProgramError) as refused:
        api.load_program(BEFORE / "program")
    one_line(refused.value, "lpu-program/1", SCHEMA, "`lpu compile MODEL -o DIR`")
