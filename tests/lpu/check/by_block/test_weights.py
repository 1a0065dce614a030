from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from compiler.program.isa import KV, SHARED, SPACE_SHIFT, TRANSIENT, Op
from compiler.program.program import Call, Program
from lpu.check.by_block import weights as by_block
from lpu.check.check import Report, check, check_columns

CONTEXT = 80


def as_one(program: Program) -> Report:
    """The check of all preloaded values in one table."""
    stated = program.manifest.cycles[CONTEXT]
    return check_columns(program.manifest, program.loads(), program.expand(CONTEXT), stated)


def test_a_legal_program_is_not_looked_at_chip_by_chip(
    piped_program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_block, "by_chip", lambda program: pytest.fail("block by block was enough"))
    assert check(piped_program, CONTEXT).ok


@pytest.mark.parametrize("which", [1, -1])
@pytest.mark.parametrize(
    "change",
    [
        lambda call: replace(call, weight_base=tuple(base + 80 for base in call.weight_base)),
        lambda call: replace(call, weight_base=tuple(0 for _ in call.weight_base)),
        lambda call: replace(call, weight_base=tuple(1 << 30 for _ in call.weight_base)),
        lambda call: replace(call, shared_base=tuple(base + 1 for base in call.shared_base)),
        lambda call: replace(call, tag=call.tag - (1 << 20)),
    ],
    ids=["further", "on others", "outside", "shared", "tags below 0"],
)
def test_a_call_that_places_its_values_wrongly_is_found_as_in_one_table(
    piped_program: Program, which: int, change: Callable[[Call], Call]
) -> None:
    calls = [call for call in piped_program.calls if len(piped_program.blocks[call.block].loads)]
    wrong = replace(
        piped_program,
        calls=tuple(change(call) if call is calls[which] else call for call in piped_program.calls),
    )
    assert check(wrong, CONTEXT).counts == as_one(wrong).counts


@pytest.mark.parametrize("space", [TRANSIENT, KV, SHARED])
def test_a_row_that_names_its_weights_in_another_space_is_found_as_in_one_table(
    piped_program: Program, space: int
) -> None:
    big = max(piped_program.blocks, key=lambda block: len(block.loads))
    rows = big.columns[CONTEXT]
    row, src2 = np.flatnonzero(rows.op == Op.MM)[3], rows.src2.copy()
    src2[row] = (space << SPACE_SHIFT) + (src2[row] & ((1 << SPACE_SHIFT) - 1))
    columns = {**big.columns, CONTEXT: replace(rows, src2=src2)}
    blocks = [replace(block, columns=columns) if block is big else block for block in piped_program.blocks]
    wrong = replace(piped_program, blocks=tuple(blocks))
    found = check(wrong, CONTEXT)
    assert not found.ok
    assert found == as_one(wrong)
