import collections
import dataclasses
import resource
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array

from models.catalog import catalog
from models.config import TransformerConfig
from models.contract.plain import plain, plain_cache, plain_params
from models.families.llama import Llama
from models.kv import empty_cache
from models.step import Step, build_step, family_step, in_sequence

Make = Callable[[Step], dict[str, Array]]
TINY = catalog("llama-tiny")
TWO_LAYERS = dataclasses.replace(TINY, layers=2)


def decode(step: Step, params: dict[str, Array], tokens: list[list[int]]) -> list[np.ndarray]:
    """Logits of each step, when the tokens [step][sequence] are fed."""
    run, cache, out = jax.jit(step.fn), empty_cache(step.cache), list[np.ndarray]()
    for i, row in enumerate(tokens):
        position = jnp.full(step.batch, i, jnp.int32)
        logits, _, cache = run(params, jnp.array(row, jnp.int32), position, cache)
        out.append(np.asarray(logits))
    return out


def test_the_jaxpr_of_the_tiny_llama_is_the_vocabulary_and_reshapes() -> None:
    step = family_step(TINY, batch=2, context=64)
    jaxpr = jax.make_jaxpr(step.fn)(*step.inputs()).jaxpr
    counts = collections.Counter(equation.primitive.name for equation in jaxpr.eqns)
    per_layer = {
        "lpu_prescale": 2,
        "lpu_rms_stat": 2,
        "lpu_matmul": 7,
        "lpu_rope": 2,
        "lpu_round16": 1,
        "lpu_attention": 1,
        "lpu_glu": 1,
        "lpu_add": 2,
        "reshape": 3,
    }
    want = collections.Counter({name: 4 * n for name, n in per_layer.items()})
    want.update(["lpu_embed", "lpu_prescale", "lpu_rms_stat", "lpu_matmul", "lpu_argmax"])
    assert counts == want


def test_a_step_that_is_asked_for_again_is_the_same_and_no_other_is() -> None:
    step = family_step(TWO_LAYERS, batch=1, context=64)
    assert family_step(dataclasses.replace(TINY, layers=2), batch=1, context=64, kv="fp16") is step
    assert in_sequence(step) is in_sequence(step)
    others = ({"batch": 2}, {"context": 32}, {"kv": "fp8"}, {"chunk": 2})
    for about in others:
        assert family_step(TWO_LAYERS, **({"batch": 1, "context": 64} | about)) is not step  # pyright: ignore[reportArgumentType]
    assert family_step(TINY, batch=1, context=64) is not step
    with pytest.raises(ValueError, match="read-only"):
        step.constants["angles"][0] = 1


def test_every_op_carries_its_module_path() -> None:
    step = family_step(TWO_LAYERS, batch=1, context=64)
    scopes: list[str] = []
    for equation in jax.make_jaxpr(step.fn)(*step.inputs()).jaxpr.eqns:
        scope = str(equation.source_info.name_stack).replace("/", ".")
        if not scopes or scopes[-1] != scope:
            scopes.append(scope)
    layers = [f"layers.{i}.{part}" for i in range(2) for part in ("attention", "ffn")]
    assert scopes == ["embed", *layers, "head"]


def test_parameters_are_named_by_path() -> None:
    step = family_step(dataclasses.replace(TINY, layers=1, qk_norm=True), batch=1, context=64)
    linear = [f"attention.{name}" for name in "qkvo"] + [f"ffn.{name}" for name in ("gate", "up", "down")]
    norms = ["attention.norm", "attention.q_norm", "attention.k_norm", "ffn.norm"]
    names = [f"layers.0.{name}.{leaf}" for name in linear for leaf in ("codes", "exponent")]
    names += [f"layers.0.{name}.gain" for name in norms]
    names += ["embed.table", "angles", "norm.gain", "head.codes", "head.exponent"]
    assert sorted(step.params) == sorted(names)
    assert step.params["angles"].shape == step.constants["angles"].shape == (64, 2, 16)
    assert step.params["layers.0.ffn.down.codes"].shape == (704, 256)


@pytest.mark.parametrize("name", ["smollm-135m", "mistral-7b", "qwen3-8b", "llama-2-70b"])
def test_the_module_holds_the_parameters_that_its_config_counts(name: str) -> None:
    config = catalog(name)
    step = family_step(config, batch=1, context=64)
    weights = sum(
        leaf.size for path, leaf in step.params.items() if not path.endswith("exponent") and path != "angles"
    )
    assert weights == config.parameters() + (config.vocab * config.hidden if config.tied else 0)


@pytest.mark.slow
def test_the_largest_llama_is_traced_without_its_weights() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = family_step(catalog("llama-3.1-405b"), batch=1, context=8192)
    jaxpr = jax.make_jaxpr(step.fn)(*step.inputs())
    assert len(jaxpr.jaxpr.eqns) == 126 * 21 + 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


@pytest.mark.slow
def test_a_sequence_has_the_same_bits_alone_and_in_a_batch(random_params: Make) -> None:
    one, three = (family_step(TWO_LAYERS, batch=n, context=16) for n in (1, 3))
    params = random_params(one)
    alone = decode(one, params, [[5], [17], [250]])
    batch = decode(three, params, [[5, 9, 1], [17, 3, 2], [250, 8, 3]])
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(alone, batch, strict=True))


@pytest.mark.slow
def test_a_longer_context_bucket_changes_no_bit(random_params: Make) -> None:
    short, long = (family_step(TWO_LAYERS, batch=1, context=n) for n in (16, 48))
    params = random_params(short)
    a = decode(short, params, [[5], [17], [250]])
    b = decode(long, params | {"angles": jnp.asarray(long.constants["angles"])}, [[5], [17], [250]])
    assert all(map(np.array_equal, a, b))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(TWO_LAYERS, marks=pytest.mark.slow),
        dataclasses.replace(TWO_LAYERS, qk_norm=True, activation="gelu"),
    ],
    ids=["llama", "qk-gelu"],
)
def test_plain_f32_is_near_the_contract(random_params: Make, config: TransformerConfig) -> None:
    step = family_step(config, batch=2, context=16)
    params = random_params(step)
    run = jax.jit(plain(step.fn))
    cache = plain_cache(step.cache)
    tokens = [[5, 9], [17, 3], [250, 8]]
    for i, want in enumerate(decode(step, params, tokens)):
        position = jnp.full(2, i, jnp.int32)
        logits, _, cache = run(plain_params(params), jnp.array(tokens[i], jnp.int32), position, cache)
        assert np.linalg.norm(logits - want) < 2e-2 * np.linalg.norm(want)
        assert not np.array_equal(logits, want)


@pytest.mark.slow
def test_an_fp8_cache_is_near_an_fp16_cache(random_params: Make) -> None:
    half, byte = (family_step(TWO_LAYERS, batch=1, context=16, kv=kv) for kv in ("fp16", "fp8"))
    params = random_params(half)
    a, b = (decode(step, params, [[5], [17], [250]])[-1] for step in (half, byte))
    assert 0 < np.linalg.norm(a - b) < 0.2 * np.linalg.norm(a)


@pytest.mark.slow
def test_the_module_itself_runs_and_equals_its_step(random_params: Make) -> None:
    config = dataclasses.replace(TINY, layers=1)
    model = Llama(config, batch=1, context=16)
    step = family_step(config, batch=1, context=16)
    params = random_params(step)
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        variable.set_value(params[".".join(map(str, path))])
    one, zero = jnp.array([7], jnp.int32), jnp.array([0], jnp.int32)
    logits, token, _ = model(one, zero, empty_cache(model.cache_shape()))
    assert np.array_equal(logits, decode(step, params, [[7]])[0])
    assert token[0] == np.argmax(logits[0])


def test_wrong_parameters_are_named() -> None:
    step = family_step(TWO_LAYERS, batch=1, context=16)
    params = dict(step.params)
    params["haed.codes"] = params.pop("head.codes")
    with pytest.raises(ValueError, match=r"1 of \d+ parameters are missing \(head.codes\), 1 are unknown"):
        jax.eval_shape(step.fn, params, *step.inputs()[1:])


def test_a_context_beyond_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match="context 512 is above its longest, 256"):
        family_step(TINY, batch=1, context=512)


def test_any_module_of_the_same_call_makes_a_step() -> None:
    def factory(*, batch: int, context: int, kv: str) -> nnx.Module:
        return Llama(TWO_LAYERS, batch=batch, context=context, kv="fp8")

    step = build_step(factory, batch=3, context=32, kv="fp8")
    logits, token, cache = jax.eval_shape(step.fn, *step.inputs())
    assert (logits.shape, token.shape) == ((3, 259), (3,))
    assert cache == step.cache
