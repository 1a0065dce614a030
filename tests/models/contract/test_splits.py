"""Chips, chunks, batches and orders of everything that contract2.md defines beside matmuls and attention."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_forms.form import Case, cases
from jax import Array

from models import rope
from models.contract import dot16, numerics, rotary
from models.contract.experts import combine, route
from models.contract.formats import mul32, rn16, rn32
from models.contract.norms import layer, square
from models.contract.recurrent import delta, state_space
from models.contract.recurrent.convolution import convolve
from models.rope_scaling import LinearScaling, YarnScaling

CASES = cases()


def arrays(name: str, *names: str) -> list[Array]:
    return [jnp.asarray(CASES[name][array]) for array in names]


def same(got: Any, want: Any) -> bool:
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    )


def in_chunks(
    scan: Callable[[Array, list[Array]], tuple[Array, Array]],
    state: Array,
    tokens: list[Array],
    cuts: list[int],
) -> tuple[Array, Array]:
    """State and results of the tokens, cut where chunks begin."""
    found: list[Array] = []
    for i, j in zip([0, *cuts], [*cuts, len(tokens[0])], strict=True):
        state, y = scan(state, [part[i:j] for part in tokens])
        found.append(y)
    return state, jnp.concatenate(found)


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5], [4], [2, 3]])
def test_chunks_of_a_convolution_give_the_bits_of_single_tokens(cuts: list[int]) -> None:
    x, state, w, b = arrays("conv0", "x", "state", "w", "b")

    def scan(held: Array, tokens: list[Array]) -> tuple[Array, Array]:
        y, out = convolve(tokens[0], held, w, b)
        return out, y

    assert same(in_chunks(scan, state, [x], cuts), [CASES["conv0"][name] for name in ("out_state", "y")])


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5, 6, 7, 8], [4]])
def test_chunks_of_a_state_space_give_the_bits_of_single_tokens(cuts: list[int]) -> None:
    x, dt, a, b, c, d, h = arrays("ssm2", "x", "dt", "A", "B", "C", "D", "h")
    scan = jax.jit(lambda held, tokens: state_space.scan(held, tokens[0], tokens[1], a, *tokens[2:], d))
    assert same(in_chunks(scan, h, [x, dt, b, c], cuts), [CASES["ssm2"][name] for name in ("out_h", "y")])


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5], [2]])
def test_chunks_of_the_delta_rule_give_the_bits_of_single_tokens(cuts: list[int]) -> None:
    *tokens, s = arrays("delta1", "qn", "kn", "v", "g", "beta", "S")
    scan = jax.jit(lambda held, part: delta.scan(held, *part))
    assert same(in_chunks(scan, s, tokens, cuts), [CASES["delta1"][name] for name in ("out_S", "o")])


def test_channels_heads_and_batches_of_a_state_lie_anywhere() -> None:
    x, dt, a, b, c, d, h = arrays("ssm1", "x", "dt", "A", "B", "C", "D", "h")
    want = [CASES["ssm1"][name] for name in ("out_h", "y")]
    scan = jax.jit(state_space.scan)
    shares = [scan(h[i::2], x[:, i::2], dt[:, i::2], a[i::2], b, c, d[i::2]) for i in range(2)]
    for found, axis in zip(range(2), (0, 1), strict=True):
        joined = jnp.stack([share[found] for share in shares], axis=axis + 1)
        assert same(joined.reshape(want[found].shape), want[found])
    two = jax.vmap(scan, in_axes=(0, 0, None, None, None, None, None))(
        jnp.stack([h, 0 * h]), jnp.stack([x, 2 * x]), dt, a, b, c, d
    )
    assert same(jax.tree.map(lambda part: part[0], two), want)
    per_head = a[:, :1]  # Mamba-2: one A a head, beside B and C of a group for every channel
    groups = [jnp.broadcast_to(part[:, None], (len(part), *h.shape)) for part in (b, c)]
    full = scan(h, x, dt, jnp.broadcast_to(per_head, h.shape), b, c, d)
    assert same(scan(h, x, dt, per_head, *groups, d), full)


def test_terms_of_a_combine_add_in_any_order_and_from_anywhere() -> None:
    case = CASES["combine3"]
    w, t, bits = case["w"], case["t"], int(case["F"])
    order = np.random.default_rng(0).permutation(len(w))
    owners = np.random.default_rng(1).integers(0, 5, len(w))
    terms = np.asarray(combine.terms(jnp.asarray(w[order]), jnp.asarray(t[order]), bits))
    partial = [terms[owners == chip].sum(axis=0) for chip in range(6)]  # one of them owns none
    assert same(combine.combined(jnp.asarray(sum(partial)), bits), case["y"])
    assert same(combine.combine(jnp.asarray(w), jnp.asarray(t), bits), case["y"])


def test_lanes_of_a_layer_norm_lie_on_any_chips() -> None:
    x, g, b = arrays("layernorm1", "x", "g", "b")
    shares = [slice(0, 100), slice(100, 101), slice(101, 320)]
    e = jnp.max(jnp.stack([square.exponent(x[share]) for share in shares]))
    parts = [layer.moments(x[share], e) for share in shares]
    total = layer.Moments(sum(p.first for p in parts), sum(p.second for p in parts))  # pyright: ignore[reportArgumentType]
    stat = layer.layer_stat(total, e, len(x), float(CASES["layernorm1"]["eps"]))
    found = [layer.layer_apply(x[share], stat, g[share], b[share]) for share in shares]
    assert same(jnp.concatenate(found), CASES["layernorm1"]["f"])


def test_a_row_of_zeros_has_the_bias_as_its_layer_norm_and_no_norm_of_squares() -> None:
    zero, one = jnp.zeros((2, 4), jnp.float32), jnp.ones((4,), jnp.float32)
    assert same(layer.layer_norm(zero, one, one, 1e-5), np.ones((2, 4), np.float16))
    assert same([square.l2_norm(zero), square.rms32(zero, one, 1e-5)], [np.zeros((2, 4), np.float32)] * 2)


def test_partial_sums_of_fp16_products_add_exactly() -> None:
    a, w, e = arrays("matmul16_0", "a", "w", "e")
    one, two = dot16.sums(a[:, :99], w[:99]), dot16.sums(a[:, 99:], w[99:])
    total = dot16.Sums(*(x + y for x, y in zip(one, two, strict=True)))
    assert same(rn32(dot16.rounded_odd(total) * jnp.exp2(e.astype(jnp.float64))), CASES["matmul16_0"]["y"])


def test_a_router_sees_one_row() -> None:
    z, bias = arrays("scoreroute1", "z", "bias")
    options = {"k": 8, "groups": 8, "keep": 4, "scale": 2.5}
    whole = route.score_route(jnp.asarray(CASES["scoreroute1"]["s"]), bias, **options)
    alone = [route.score_route(route.scores(z[i : i + 1], "sigmoid"), bias, **options) for i in range(len(z))]
    assert same(jax.tree.map(lambda *x: jnp.concatenate(x), *alone), whole)


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_gated_norm_is_that_of_each_group(norm_first: bool) -> None:
    rng = np.random.default_rng(3)
    y, z, gain = (jnp.asarray(rng.standard_normal((3, 8)).astype(np.float32)) for _ in range(3))
    got = state_space.gated_norm(y, z, gain[0], eps=1e-5, groups=2, norm_first=norm_first)
    gate = numerics.silu(z)
    for group in (slice(0, 4), slice(4, 8)):
        if norm_first:
            want = rn16(mul32(square.rms32(y[:, group], gain[0, group], 1e-5), gate[:, group]))
        else:
            want = numerics.rms_norm(mul32(y, gate)[:, group], gain[0, group], 1e-5)
        assert same(got[:, group], want)


def speeds() -> dict[str, np.ndarray]:
    """Radians per token of the cases whose kind can be told."""
    yarn = YarnScaling(factor=32.0, original_max_position=4096, attention_factor=1.0, truncate=False)
    deep = YarnScaling(factor=40.0, original_max_position=4096, attention_factor=1.0)
    return {
        "rope0": rope.frequencies(64, 1e4),
        "rope1": rope.frequencies(32, 1e6, LinearScaling(factor=8.0)),
        "rope2": rope.frequencies(32, rotary.dynamic_theta(1e4, 32, 2.0, 16384, 4096)),
        "rope3": rope.frequencies(64, 150000.0, yarn),
        "rope4": rope.frequencies(64, 1e4, deep),
        "rope6": rotary.proportional_speeds(64, 1e6, 0.25),
    }


@pytest.mark.parametrize("name", speeds())
def test_speeds_of_each_kind_of_rope(name: str) -> None:
    case: Case = CASES[name]
    np.testing.assert_allclose(speeds()[name], case["freq"], rtol=1e-15)


def test_dynamic_speeds_are_plain_up_to_the_original_context() -> None:
    assert rotary.dynamic_theta(1e4, 32, 2.0, 4096, 4096) == 1e4


def test_pairs_that_lie_beside_each_other_come_half_a_head_apart() -> None:
    assert rotary.half_split(6).tolist() == [0, 2, 4, 1, 3, 5]
