"""Programs of recurrent layers are proved; one whose states change hands between steps is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compiler.program.isa import Op
from compiler.program.program import Program
from lpu import api
from lpu.prove.prove import prove

FOLDERS = Path(__file__).parents[2] / "models/data/variants"


def compiled(name: str, **how: object) -> Program:
    options = {"rack": "pair", "tp": 2, "context": [24], "check": False, "prove": False} | how
    return api.compile(FOLDERS / name, **options).program  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    ["mamba", "mamba2", "falcon-h1", "bamba", "granite4-dense", "jamba", "nemotron-h"],
)
def test_a_program_of_a_hybrid_folder_is_proved(name: str) -> None:
    verdict = prove(compiled(name))
    assert verdict.ok, verdict.reason


def changed(program: Program, context: int, column: str, op: Op) -> Program:
    """The program where, in one bucket, two rows of an opcode use each other's operand."""
    for index, block in enumerate(program.blocks):
        rows = block.columns[context]
        mine = np.flatnonzero((rows.op == op) & (rows.chip == 0))
        if len(mine) < 2:
            continue
        values = getattr(rows, column).copy()
        values[mine[:2]] = values[mine[:2]][::-1]
        columns = block.columns | {context: replace(rows, **{column: values})}
        blocks = list(program.blocks)
        blocks[index] = replace(block, columns=columns)
        return replace(program, blocks=tuple(blocks))
    raise AssertionError(op)


def test_states_that_two_lines_exchange_in_one_bucket_are_refused() -> None:
    program = compiled("mamba2", context=[8, 24], rack="quad", tp=1)
    reason = prove(changed(program, 24, "src3", Op.SSM)).reason
    assert "holds state" in reason
    assert "in context 24 state" in reason


def test_time_steps_and_words_of_another_line_are_refused() -> None:
    program = compiled("mamba2", rack="quad", tp=1)
    assert "its channels are line" in prove(changed(program, 24, "n", Op.SSM)).reason
    assert "lies at other lanes" in prove(changed(program, 24, "src3", Op.STEP)).reason
