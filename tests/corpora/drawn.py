"""Drawn models on drawn racks: every program is proved, and its bits are those of the model on one device."""

from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from beside import bits, made_up
from models_named import of_model
from pairs import source as source_of

from compiler.errors import CapacityError, CompileError, OptionError
from compiler.options import LAYOUTS, PLACEMENTS, CompileOptions
from compiler.pipeline import compile_pair, compile_program
from compiler.program.program import Program
from fabric.rack import Rack, load_rack
from lpu.check.check import check, require
from lpu.check.memory_image import pair
from lpu.inputs.files import read_rack
from lpu.prove.programs import prove_programs, require_proof
from lpu.run.machine import prepare
from models.config import TransformerConfig
from models.configs.experts import ExpertsConfig
from models.configs.hybrid import HybridConfig
from models.configs.latent import LatentConfig, LatentExpertsConfig
from models.kv import KVFormat, empty_cache
from models.step import Step, family_step

RING = """
name: ring-{chips}
chip: {chip}
forward_ns: 50
levels:
  - {{name: ring, kind: ring, size: {chips}, lanes: 4, hop_ns: 100}}
sources:
  - {{field: forward_ns, confidence: assumed, source: "made up for tests"}}
  - {{field: ring.size, confidence: assumed, source: "made up for tests"}}
  - {{field: ring.lanes, confidence: assumed, source: "made up for tests"}}
  - {{field: ring.hop_ns, confidence: assumed, source: "made up for tests"}}
"""
CONTEXTS = ((80,), (1,), (33,), (81,), (79, 80), (50, 97), (160, 330), (20, 81, 333), (640,))
SIZES = {"quad": 4, "lpx-tray": 8, "ring-8": 8, "torus-4x4": 16, "ring-6": 6, "ring-9": 9}


class Draw:
    """Choices by seed."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def among(self, *choices: Any) -> Any:
        return choices[int(self.random.integers(len(choices)))]

    def below(self, end: int) -> int:
        return int(self.random.integers(end))


def drawn_model(draw: Draw) -> TransformerConfig:
    kv_heads = draw.among(1, 2, 3, 4, 5, 8)
    return TransformerConfig(
        name="drawn",
        layers=draw.among(1, 2, 3),
        hidden=draw.among(16, 24, 48, 100, 160, 208, 330, 401),
        heads=kv_heads * draw.among(1, 1, 2, 3, 4, 7),
        kv_heads=kv_heads,
        head_dim=draw.among(2, 6, 16, 32, 40, 48, 64, 80, 96, 128, 160),
        ffn=draw.among(8, 50, 161, 320, 333, 512),
        vocab=draw.among(2, 3, 79, 80, 81, 150, 259, 1001),
        tied=draw.among(True, False),
        qk_norm=draw.among(True, False),
        activation=draw.among("silu", "gelu"),
        rope_theta=1e4,
        eps=1e-5,
        max_context=1024,
        source="drawn for a test",
    )


def drawn_kind(draw: Draw) -> TransformerConfig:
    """A model of a kind beyond dense ones: experts, latents, both, windows and spans, states."""
    dense = replace(drawn_model(draw), whole_qk_norm=False)
    makers = (_experts, _latent, _latent_experts, _windows, _windows, _states, _states)
    return draw.among(*makers)(draw, dense)


def _of(kind: type[TransformerConfig], of: TransformerConfig, /, **more: Any) -> Any:
    held = {one.name: getattr(of, one.name) for one in fields(TransformerConfig)}
    return kind(**(held | more))


def _experts(draw: Draw, dense: TransformerConfig) -> ExpertsConfig:
    experts = draw.among(2, 3, 8, 81, 100)
    return _of(
        ExpertsConfig, dense, family="experts", ffn=draw.among(8, 50, 64, 160), experts=experts,
        chosen=1 + draw.below(min(experts, 4)), renormalise=draw.among(True, False),
    )  # fmt: skip


def _latents(draw: Draw, dense: TransformerConfig) -> dict[str, Any]:
    nope, rope = draw.among(16, 32, 100), draw.among(8, 16, 64)
    return {
        "family": "deepseek", "kv_heads": 1, "heads": draw.among(1, 2, 3, 5, 8), "head_dim": nope + rope,
        "nope": nope, "rope": rope, "kv_lora": draw.among(40, 96, 200), "value": draw.among(16, 32, 90),
        "q_lora": draw.among(None, 48, 160), "qk_norm": False,
    }  # fmt: skip


def _latent(draw: Draw, dense: TransformerConfig) -> LatentConfig:
    return _of(LatentConfig, dense, **_latents(draw, dense))


def _latent_experts(draw: Draw, dense: TransformerConfig) -> LatentExpertsConfig:
    groups = draw.among(1, 2, 4)
    keep = 1 + draw.below(groups)
    more = _latents(draw, dense) | {"family": "deepseek_experts", "layers": 2}
    return _of(
        LatentExpertsConfig, dense, **more, dense=draw.below(2), experts=groups * draw.among(2, 3, 21),
        chosen=1 + draw.below(2 * keep), expert_ffn=draw.among(8, 64, 96), shared=draw.below(3),
        groups=groups, keep=keep, scale=draw.among(1.0, 2.5), renormalise=draw.among(True, False),
    )  # fmt: skip


def _windows(draw: Draw, dense: TransformerConfig) -> TransformerConfig:
    kinds = tuple(draw.among("full", "window", "span", "nope") for _ in range(dense.layers))
    return replace(
        dense, kinds=kinds, window=draw.among(1, 5, 30, 64), span=draw.among(1, 16, 48),
        window_theta=draw.among(None, 100.0), attention_scale=draw.among(None, 0.2),
        attention_cap=draw.among(None, 5.0), logit_cap=draw.among(None, 3.0), sinks=draw.among(True, False),
        norms=draw.among("pre", "post", "both"), attention_block=draw.among(16, 80, 512),
        embedding_scale=draw.among(None, 12.5), residual_scale=draw.among(None, 0.5),
        logits_scale=draw.among(None, 0.125),
    )  # fmt: skip


def _states(draw: Draw, dense: TransformerConfig) -> HybridConfig:
    selective, groups = draw.below(2), draw.among(1, 2)
    heads = groups * draw.among(1, 3, 5)
    channels = heads * draw.among(16, 33, 80)
    pattern = tuple(draw.among("M", "MF", "AF", "PF", "MA") for _ in range(dense.layers))
    more = {"ssm_heads": channels, "groups": 1, "rank": draw.among(3, 12), "mixer_norm": "none"}
    return _of(
        HybridConfig, dense, family="hybrid", qk_norm=False, pattern=pattern, channels=channels,
        states=draw.among(1, 4, 16), conv_biased=draw.among(True, False), rope=draw.among(True, False),
        **(more if selective else {"ssm_heads": heads, "groups": groups}),
    )  # fmt: skip


def drawn_rack(draw: Draw) -> Rack:
    name = draw.among(*SIZES)
    if not name.startswith("ring-") or name == "ring-8":
        return load_rack(name)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rack.yaml"
        path.write_text(RING.format(chips=SIZES[name], chip=draw.among("lp30", "tiny")))
        return read_rack(str(path))


def drawn_options(draw: Draw, chips: int, kv_heads: int) -> CompileOptions:
    tp = draw.among(*(d for d in range(1, chips + 1) if chips % d == 0))
    pp = draw.among(None, None, 1, 2, 3)
    most = max(tp // kv_heads, 1)
    return CompileOptions(
        tp=tp,
        pp=pp if pp is not None and tp * pp <= chips else None,
        cp=1 + draw.below(most) if draw.below(2) else None,
        layout=draw.among(*LAYOUTS),
        placement=draw.among(*PLACEMENTS),
        seed=draw.below(5),
    )


def drawn_positions(draw: Draw, contexts: tuple[int, ...], batch: int) -> list[np.ndarray]:
    """A position per sequence and step: two in a row, the borders of every bucket, and some."""
    most = max(contexts) - 1
    spread = draw.below(max(most // batch, 1))
    steps = [np.arange(batch) * spread + i for i in range(2)]
    for border in {position for c in contexts for position in (c - 1, c)}:
        steps.append(np.where(np.arange(batch) % 2 == 0, border, draw.below(border + 1)))
    steps.append(draw.random.integers(0, most + 1, batch))
    return [np.minimum(step, most).astype(np.int32) for step in steps]


def assert_bits(step: Step, program: Program, draw: Draw, vocab: int, seed: int) -> None:
    weights = made_up(step, seed)
    machine = prepare(program, weights)
    state, cache = machine.start(), empty_cache(step.cache)
    params = {name: jnp.asarray(value) for name, value in weights.items()}
    reference = jax.jit(step.fn)
    for at in drawn_positions(draw, tuple(program.manifest.contexts), step.batch):
        tokens = draw.random.integers(0, vocab, step.batch).astype(np.int32)
        result = machine.step(state, tokens, at)
        logits, token, cache = reference(params, jnp.asarray(tokens), jnp.asarray(at), cache)
        assert bits(result.logits) == bits(logits), at
        assert np.asarray(result.token).tolist() == np.asarray(token).tolist()
        state = result.state


def hold_steps(seed: int) -> str:
    """Compiles a drawn case; "held" if its programs are legal and give the model's bits, else "refused"."""
    draw = Draw(seed)
    config, rack = drawn_model(draw), drawn_rack(draw)
    options, contexts = drawn_options(draw, rack.chips, config.kv_heads), draw.among(*CONTEXTS)
    kv: KVFormat = draw.among("fp16", "fp8")
    step = family_step(config, batch=draw.among(1, 1, 2, 3, 5, 8), context=max(contexts), kv=kv)
    try:
        program = compile_program(source_of(step, contexts), rack, options)
    except (CapacityError, OptionError):
        return "refused"
    for context in contexts:
        require(check(program, context))
    require_proof(prove_programs(of_model(program, config, kv)))
    assert_bits(step, program, draw, config.vocab, seed)
    return "held"


def hold_kinds(seed: int) -> str:
    """Compiles a drawn case of the other kinds; "held" if its program is legal and proved, else "refused".

    Every tenth is run, too.
    """
    draw = Draw(seed)
    config, rack = drawn_kind(draw), drawn_rack(draw)
    options, contexts = drawn_options(draw, rack.chips, config.kv_heads), draw.among(*CONTEXTS)
    if isinstance(config, LatentConfig):
        options = replace(options, cp=None)
    kv: KVFormat = draw.among("fp16", "fp8")
    config = replace(config, max_context=max(contexts))
    step = family_step(config, batch=draw.among(1, 1, 2, 3, 5), context=max(contexts), kv=kv)
    try:
        program = compile_program(source_of(step, contexts), rack, options)
    except CompileError:
        return "refused"
    for context in contexts:
        require(check(program, context))
    require_proof(prove_programs(of_model(program, config, kv)))
    if seed % 10 == 0:
        assert_bits(step, program, draw, config.vocab, seed)
    return "held"


def hold_chunks(seed: int) -> str:
    """The same for a drawn prompt that is taken in chunks, whose bits are those of single steps."""
    draw = Draw(seed)
    config, rack = drawn_model(draw), drawn_rack(draw)
    options, contexts = drawn_options(draw, rack.chips, config.kv_heads), draw.among(*CONTEXTS[2:])
    kv: KVFormat = draw.among("fp16", "fp8")
    most = max(contexts)
    chunk = min(draw.among(2, 3, 7, 15, 16, 17, 33, 64), most)
    step = family_step(config, batch=draw.among(1, 1, 2, 3, 5), context=most, kv=kv)
    long = family_step(config, batch=1, context=most, kv=kv, chunk=chunk)
    try:
        decode, prefill = compile_pair(source_of(step, contexts), source_of(long, contexts), rack, options)
    except (CapacityError, OptionError):
        return "refused"
    for program in (decode, prefill):
        for context in program.manifest.contexts:
            require(check(program, context))
    require(pair(decode, prefill))
    require_proof(prove_programs(of_model(decode, config, kv), of_model(prefill, config, kv)))
    weights = made_up(step, seed)
    single = prepare(decode, weights)
    chunks = prepare(prefill, weights, single)
    count = min(2 * chunk, most)
    tokens = draw.random.integers(0, config.vocab, (step.batch, count)).astype(np.int32)
    params = {name: jnp.asarray(value) for name, value in weights.items()}
    reference, cache = jax.jit(step.fn), empty_cache(step.cache)
    rows: list[np.ndarray] = []
    for position in range(count):
        at = jnp.full(step.batch, position, jnp.int32)
        logits, _, cache = reference(params, jnp.asarray(tokens[:, position]), at, cache)
        rows.append(np.asarray(logits))
    want, state = np.stack(rows, axis=1), single.start()
    for sequence in draw.random.permutation(step.batch).tolist():
        for first in (0, draw.below(count - chunk + 1), count - chunk):
            at = np.arange(first, first + chunk)
            done = chunks.step(state, tokens[sequence, at], at, sequence)
            assert bits(done.logits) == bits(want[sequence, at]), (sequence, first)
            state = done.state
    last = np.full(step.batch, count - 1)
    assert bits(single.step(state, tokens[:, -1], last).logits) == bits(want[:, -1])
    return "held"
