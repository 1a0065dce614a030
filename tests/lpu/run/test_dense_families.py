"""Rings of KV, kinds of layers and what else the dense families add: bits, proofs, and checks that fail."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beside import bits, made_up

from compiler.errors import OptionError
from compiler.moves.handover import compile_ingest
from compiler.options import CompileOptions
from compiler.pipeline import compile_pair, compile_program
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.manifest import ModelIdentity
from compiler.program.program import Program
from compiler.source import Source
from fabric.catalog import bridge_spec
from fabric.rack import load_rack
from lpu.check.check import check, require
from lpu.check.memory_image import pair
from lpu.prove.prove import prove
from lpu.run.machine import Machine, prepare
from models.config import TransformerConfig
from models.kv import KVFormat, empty_cache
from models.step import Step, family_step

BASE = TransformerConfig(
    name="base",
    layers=2,
    hidden=160,
    heads=4,
    kv_heads=2,
    head_dim=32,
    ffn=192,
    vocab=200,
    tied=False,
    rope_theta=1e4,
    eps=1e-5,
    max_context=96,
    source="made up",
    attention_block=16,
)
MIXED: dict[str, Any] = {"window": 20, "kinds": ("window", "full")}
FORMS: dict[str, TransformerConfig] = {
    "windows on all layers": replace(BASE, window=20),
    "windows of a few tokens": replace(BASE, window=3, attention_block=32),
    "Gemma 2": replace(
        *(BASE,),
        **MIXED,
        norms="both",
        attention_cap=5.0,
        logit_cap=3.0,
        attention_scale=0.2,
        embedding_scale=12.5,
        activation="gelu",
    ),
    "Gemma 3": replace(BASE, **MIXED, norms="both", qk_norm=True, window_theta=100.0),
    "OLMo 2": replace(BASE, norms="post", qk_norm=True, whole_qk_norm=True),
    "layers without RoPE, sinks": replace(BASE, kinds=("nope", "full"), sinks=True),
    "runs of tokens, head norms": replace(BASE, span=32, kinds=("span", "nope"), qk_norm=True, sinks=True),
    "Granite": replace(
        BASE, residual_scale=0.21875, logits_scale=0.125, attention_scale=0.015, embedding_scale=12.0
    ),
}


def source(config: TransformerConfig, step: Step, contexts: tuple[int, ...], kv: KVFormat) -> Source:
    params, tokens, position, cache = step.inputs()
    about = ModelIdentity(name=config.name, config=config.to_fields(), kv=kv)
    return Source(
        step=step.fn,
        params=params,
        tokens=tokens,
        position=position,
        cache=cache,
        contexts=contexts,
        chunk=step.chunk,
        model=about,
    )


def programs_of(
    config: TransformerConfig,
    contexts: tuple[int, ...],
    *,
    batch: int = 1,
    chunk: int = 0,
    kv: KVFormat = "fp16",
    **options: Any,
) -> tuple[Step, list[Program]]:
    """The decode step, and the programs: checked and proved."""
    config, rack = replace(config, max_context=max(contexts)), load_rack("quad")
    step = family_step(config, batch=batch, context=max(contexts), kv=kv)
    own = source(config, step, contexts, kv)
    if not chunk:
        made = [compile_program(own, rack, CompileOptions(**options))]
    else:
        long = family_step(config, batch=1, context=max(contexts), kv=kv, chunk=chunk)
        made = [*compile_pair(own, source(config, long, contexts, kv), rack, CompileOptions(**options))]
        require(pair(*made))
    for program in made:
        for context in program.manifest.contexts:
            require(check(program, context))
        verdict = prove(program)
        assert verdict.ok, str(verdict)
    return step, made


def decoded(step: Step, weights: dict[str, np.ndarray], tokens: np.ndarray) -> list[np.ndarray]:
    """The reference's logits, position by position."""
    params = {name: jnp.asarray(value) for name, value in weights.items()}
    run, cache, out = jax.jit(step.fn), empty_cache(step.cache), list[np.ndarray]()
    for position in range(tokens.shape[1]):
        at = jnp.full(len(tokens), position, jnp.int32)
        logits, _, cache = run(params, jnp.asarray(tokens[:, position]), at, cache)
        out.append(np.asarray(logits))
    return out


def same_bits(
    step: Step, programs: list[Program], count: int, weights: dict[str, np.ndarray] | None = None
) -> None:
    """A machine's logits are the reference's: step by step, and chunk by chunk with single steps after."""
    weights = made_up(step) if weights is None else weights
    vocab = step.params["embed.table"].shape[0]
    tokens = np.random.default_rng(1).integers(0, vocab, (step.batch, count)).astype(np.int32)
    wanted, machine = decoded(step, weights, tokens), prepare(programs[0], weights)
    state = machine.start()
    for position in range(count):
        done = machine.step(state, tokens[:, position], np.full(step.batch, position))
        state = done.state
        assert np.array_equal(bits(done.logits), bits(wanted[position])), f"position {position}"
    if len(programs) > 1:
        _chunks(machine, prepare(programs[1], weights, machine), tokens, wanted)


def _chunks(single: Machine, chunks: Machine, tokens: np.ndarray, wanted: list[np.ndarray]) -> None:
    state, size, count = single.start(), chunks.rows, tokens.shape[1]
    for sequence in range(len(tokens)):
        for first in range(0, count - size + 1, size):
            done = chunks.step(
                state, tokens[sequence, first : first + size], first + np.arange(size), sequence
            )
            state = done.state
            ours = np.stack([wanted[first + i][sequence] for i in range(size)])
            assert np.array_equal(bits(done.logits), bits(ours)), f"sequence {sequence}, chunk at {first}"
    for position in range(count - count % size, count):
        done = single.step(state, tokens[:, position], np.full(len(tokens), position))
        state = done.state
        assert np.array_equal(bits(done.logits), bits(wanted[position])), f"position {position} after chunks"


def kernels_of(program: Program) -> list[AttentionKernel]:
    return [kernel for kernel in program.manifest.kernels if isinstance(kernel, AttentionKernel)]


@pytest.mark.slow
def test_a_ring_of_kv_gives_the_bits_of_the_whole_cache_and_takes_fewer_words_and_cycles() -> None:
    step, made = programs_of(FORMS["windows on all layers"], (96,), tp=1)
    same_bits(step, made, 90)
    (kernel,) = kernels_of(made[0])
    assert (kernel.capacity, kernel.chunks, kernel.window) == (48, 3, 20)  # 20 tokens lie in at most 3 blocks
    _, whole = programs_of(BASE, (96,), tp=1)
    words = [program.manifest.regions[0].kv.words for program in (made[0], whole[0])]
    assert words[1] == 2 * words[0]
    assert made[0].manifest.cycles[96] < whole[0].manifest.cycles[96]


@pytest.mark.slow
def test_layers_that_begin_with_a_product_are_blocks_of_their_own_and_go_to_several_groups() -> None:
    step, (program,) = programs_of(FORMS["OLMo 2"], (80,), tp=2, pp=2)
    assert [block.name for block in program.blocks][2:] == ["layers.0", "layers.1", "head"]
    same_bits(step, [program], 6)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_bits_of_the_reference_by_column_and_in_two_buckets(form: str) -> None:
    step, made = programs_of(FORMS[form], (30, 96), batch=5, tp=2)
    same_bits(step, made, 70)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_bits_of_the_reference_by_row_and_in_chunks(form: str) -> None:
    step, made = programs_of(FORMS[form], (96,), batch=2, chunk=7, tp=2, layout="row")
    same_bits(step, made, 60)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_bits_of_the_reference_in_two_dimensions_with_e4m3_kv(form: str) -> None:
    step, made = programs_of(FORMS[form], (80,), kv="fp8", tp=4, layout="2d")
    same_bits(step, made, 50)


@pytest.mark.slow
def test_a_context_that_is_dealt_leaves_rings_to_the_owner() -> None:
    step, made = programs_of(FORMS["Gemma 3"], (96,), tp=4, cp=2)
    same_bits(step, made, 70)
    assert sorted((kernel.window, kernel.stripes) for kernel in kernels_of(made[0])) == [(0, 2), (20, 1)]


def _with_kernels(program: Program, change: Callable[[AttentionKernel], AttentionKernel]) -> Program:
    kernels = tuple(change(k) if isinstance(k, AttentionKernel) else k for k in program.manifest.kernels)
    return replace(program, manifest=replace(program.manifest, kernels=kernels))


WRONG: dict[str, tuple[Callable[[AttentionKernel], AttentionKernel], str, str]] = {
    "a ring one block too small for what is seen": (
        lambda k: replace(k, window=34),
        "to see 34 it takes 64",
        "a ring of 48 tokens, to see 34 it takes 64",
    ),
    "a ring of tokens that are all seen": (
        lambda k: replace(k, window=0),
        "its kernel reads 48 tokens of a context of 96",
        "3 blocks of 16 tokens do not hold 96",
    ),
    "another window": (lambda k: replace(k, window=19), "", "is not in the"),
    "a cap": (lambda k: replace(k, cap=5.0), "cycles, must take", "is not in the"),
    "another scale": (lambda k: replace(k, scale=0.5), "", "is not in the"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_changed_kernel_is_found(case: str) -> None:
    change, checked, refused = WRONG[case]
    _, (program,) = programs_of(FORMS["windows on all layers"], (96,), tp=1)
    wrong = _with_kernels(program, change)
    report, verdict = check(wrong, 96), prove(wrong)
    assert checked in str(report)
    assert not verdict.ok
    assert refused in str(verdict)


def test_kv_in_rings_is_not_handed_over() -> None:
    _, (program,) = programs_of(FORMS["windows on all layers"], (96,), tp=1)
    with pytest.raises(OptionError, match="keeps the last 48 tokens of layers that see 20"):
        compile_ingest(program, 4, bridge_spec("fpga-400g"))
