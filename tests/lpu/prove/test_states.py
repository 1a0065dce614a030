"""Programs of recurrent layers are proved; one whose states change hands between steps is not."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.moves.handover import compile_egress, compile_ingest
from compiler.program.instructions.experts import RankKernel, ShareKernel, WeightedGluKernel
from compiler.program.isa import Op
from compiler.program.program import Program
from fabric.catalog import bridge_spec
from lpu import api
from lpu.check.check import check
from lpu.prove.move import prove_move
from lpu.prove.programs import prove_programs
from lpu.prove.prove import prove

BRIDGE = bridge_spec("spectrum-x")
FOLDERS = Path(__file__).parents[2] / "models/data/variants"


def compiled(name: str, **how: object) -> Program:
    options = {"rack": "pair", "tp": 2, "context": [24], "check": False, "prove": False} | how
    return api.compile(FOLDERS / name, **options).program  # type: ignore[arg-type]


@cache
def on_two_chips(name: str) -> Program:
    return compiled(name)


@pytest.mark.parametrize(
    "name",
    [
        *("mamba", "mamba2", "falcon-h1", "bamba", "granite4-dense", "jamba", "nemotron-h", "nemotron-3"),
        "falcon-h1-normed",
        "nemotron-3-latent",
        "qwen3-next",
    ],
)
def test_a_program_of_a_hybrid_folder_is_proved(name: str) -> None:
    verdict = prove(on_two_chips(name))
    assert verdict.ok, verdict.reason


@pytest.mark.parametrize("name", ["falcon-h1", "jamba", "nemotron-3", "qwen3-next", "mamba2"])
def test_a_program_that_moves_the_states_of_a_hybrid_is_proved(name: str) -> None:
    decode = on_two_chips(name)
    ingest, egress = compile_ingest(decode, 8, BRIDGE), compile_egress(decode, 8, BRIDGE)
    found = prove_programs(decode, None, ingest, egress)
    assert found.ok, found.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"src3": 1}, "is moved as line 1 of its states, holds line 0"),
        ({"n": 2}, "is moved as kept, cached and lines (3, 1, 2), holds (3, 1, 1)"),
        ({"dst": 1 << 40 | 3}, "holds no state of this layer that is still to be moved"),
        ({}, "regions of states 0 to 2 are not moved"),
    ],
)
def test_a_state_moved_as_another_is_refused(changes: dict[str, int], words: str) -> None:
    decode = on_two_chips("mamba2")
    ingest = compile_ingest(decode, 8, BRIDGE)
    (context,) = ingest.manifest.contexts
    rows = ingest.blocks[0].columns[context]
    for name, value in changes.items():
        rows = replace(rows, **{name: np.where(np.arange(len(rows)) == 0, value, getattr(rows, name))})
    rows = rows if changes else rows.take(np.arange(1, len(rows)))
    wrong = replace(ingest, blocks=(replace(ingest.blocks[0], columns={context: rows}), *ingest.blocks[1:]))
    assert words in prove_move(wrong, prove(decode).regions, "ingest").reason


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (RankKernel, {"gated": False}, "takes the logit of a gate for an expert, or an expert's for a gate"),
        (ShareKernel, {"gated": False, "shared": 0}, "takes the logit of a gate for an expert"),
        (RankKernel, {"chosen": 7}, "7 of 6 experts"),
        (ShareKernel, {"shared": 2}, "its kernel has a gate, 2 shared experts, or scores"),
    ],
)
def test_a_gate_taken_for_an_expert_is_refused(kind: type, changes: dict[str, Any], words: str) -> None:
    program = on_two_chips("qwen3-next")
    kernels = [replace(k, **changes) if isinstance(k, kind) else k for k in program.manifest.kernels]
    other = replace(program, manifest=replace(program.manifest, kernels=tuple(kernels)))
    report = check(other, 24)
    assert not report.ok
    assert words in str(report)
    assert not prove(other).ok


def test_a_gate_that_experts_have_not_is_refused() -> None:
    program = on_two_chips("nemotron-3")
    kernels = [
        replace(k, activation="silu") if isinstance(k, WeightedGluKernel) else k
        for k in program.manifest.kernels
    ]
    other = replace(program, manifest=replace(program.manifest, kernels=tuple(kernels)))
    assert "beside other lanes of up" in prove(other).reason


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
