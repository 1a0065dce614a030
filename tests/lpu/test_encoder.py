"""Encoders as programs: a step takes whole sequences, each token of which sees all, in the same bits."""

from dataclasses import replace

import numpy as np
import pytest

from compiler.errors import CompileError
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.instructions.vector import EmbedKernel, GluKernel
from compiler.program.isa import Kernel, Op
from compiler.program.program import Program
from lpu import api
from lpu.check.check import check
from lpu.decode.decoders import reference_decode
from lpu.decode.generate import generate
from lpu.inputs.document import FileError
from lpu.prove.prove import prove
from lpu.run.error import MachineError
from lpu.run.step_inputs import check_order

CONTEXT = 32
ANSWERS = [[1, 2, 3], [258, *range(30)], [200, 100, 7]]


@pytest.fixture(scope="module")
def compiled() -> api.Compiled:
    return api.compile("bert-tiny", rack="quad", context=CONTEXT, tp=2, batch=2)


def changed(program: Program, old: type[Kernel], **numbers: object) -> Program:
    """The program with other numbers in its kernels of one kind."""
    kernels = tuple(
        replace(one, **numbers) if type(one) is old else one  # pyright: ignore[reportArgumentType]
        for one in program.manifest.kernels
    )
    return replace(program, manifest=replace(program.manifest, kernels=kernels))


def test_an_encoder_compiles_to_one_step_that_is_legal_and_proved(compiled: api.Compiled) -> None:
    manifest = compiled.program.manifest
    assert (manifest.rows, manifest.chunk, manifest.sequences, manifest.vocab) == (2 * CONTEXT, CONTEXT, 2, 2)
    assert not isinstance(compiled.proof, str)
    assert compiled.proof.ok
    ops = set(compiled.program.expand(CONTEXT).op.tolist())
    assert {Op.MOMENTS, Op.LNORM, Op.BIAS, Op.GLU} <= ops
    assert not {Op.RSTAT, Op.NORM, Op.ROPE} & ops


@pytest.mark.slow
def test_a_run_has_the_bits_of_the_reference_and_a_label_for_each_token(compiled: api.Compiled) -> None:
    done = api.run(compiled, ANSWERS)
    assert [len(one) for one in done.generation.tokens] == [len(one) for one in ANSWERS]
    assert done.generation.steps == 2  # two sequences in each
    model = api.open_model("bert-tiny", context=CONTEXT)
    reference = generate(reference_decode(model), ANSWERS, 1, CONTEXT)
    assert reference.digest == done.generation.digest
    other = generate(reference_decode(model), [[1, 2, 4]], 1, CONTEXT)
    assert (other.logits[0][0] != reference.logits[0][0]).any()  # the first token sees the last one


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        (AttentionKernel, {"whole": False}),
        (EmbedKernel, {"positions": False}),
        (GluKernel, {"activation": "gelu_erf"}),
    ],
)
def test_the_proof_refuses_another_attention_another_lookup_another_activation(
    compiled: api.Compiled, kind: type[Kernel], numbers: dict[str, object]
) -> None:
    assert not prove(changed(compiled.program, kind, **numbers)).ok


def test_gains_of_other_lines_and_a_norm_of_fewer_cycles_are_found(compiled: api.Compiled) -> None:
    program = compiled.program
    at = next(i for i, block in enumerate(program.blocks) if (block.columns[CONTEXT].op == Op.LNORM).any())
    columns = program.blocks[at].columns[CONTEXT]
    rows = np.flatnonzero(columns.op == Op.LNORM)
    for column, shift in (("src3", 1), ("t1", -1)):
        values = getattr(columns, column).copy()
        values[rows[0]] += shift
        block = replace(
            program.blocks[at],
            columns={**program.blocks[at].columns, CONTEXT: replace(columns, **{column: values})},
        )
        blocks = (*program.blocks[:at], block, *program.blocks[at + 1 :])
        assert not check(replace(program, blocks=blocks), CONTEXT).ok


@pytest.mark.parametrize(
    ("tokens", "positions"),
    [([1, 2, 3], [0, 1, 1]), ([1, 2, 2], [1, 2, 2]), ([1, 2, 2], [0, 2, 2]), ([1, 1, 2], [0, 0, 1])],
)
def test_a_whole_sequence_begins_at_0_and_ends_with_its_last_token_again(
    tokens: list[int], positions: list[int]
) -> None:
    with pytest.raises(MachineError, match="whole sequence"):
        check_order(np.array([tokens]), np.array([positions]), whole=True)


def test_chunks_buckets_and_kv_in_fp8_are_refused_for_an_encoder() -> None:
    for given in ({"context": (16, 32)}, {"context": 32, "kv": "fp8"}, {"context": 128}):
        with pytest.raises(CompileError, match="bert-tiny"):
            api.open_model("bert-tiny", **given)  # pyright: ignore[reportArgumentType]
    model = api.open_model("bert-tiny", context=CONTEXT)
    with pytest.raises(CompileError, match="--prefill"):
        api.compile(model, rack="quad", prefill=8)
    with pytest.raises(CompileError, match="--objective throughput"):
        api.compile(model, rack="quad", objective="throughput")


def test_a_longer_prompt_than_the_step_is_refused_with_both_numbers() -> None:
    with pytest.raises(FileError, match=r"33 tokens.*32"):
        api.check_room([[1] * 33], 1, 1, CONTEXT, whole=True)
