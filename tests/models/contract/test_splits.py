"""Chips, chunks, batches and orders of everything that contract2.md defines beside matmuls and attention."""

from collections.abc import Callable
from functools import partial
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
from models.contract.formats import mul32, pow2, rn16, rn32
from models.contract.norms import layer, square
from models.contract.recurrent import delta, state_space
from models.contract.recurrent.convolution import convolve
from models.contract.scales.half import to_half
from models.rope_scaling import LinearScaling, YarnScaling

CASES = cases()


def arrays(name: str, *names: str) -> list[Array]:
    return [jnp.asarray(CASES[name][array]) for array in names]


def same(got: Any, want: Any) -> bool:
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    )


Scan = Callable[[Array, list[Array]], tuple[Array, Array]]


def in_chunks(scan: Scan, state: Array, tokens: list[Array], cuts: list[int]) -> tuple[Array, Array]:
    """State and results of the tokens, cut where chunks begin."""
    found: list[Array] = []
    for i, j in zip([0, *cuts], [*cuts, len(tokens[0])], strict=True):
        state, y = scan(state, [part[i:j] for part in tokens])
        found.append(y)
    return state, jnp.concatenate(found)


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5], [4]])
def test_chunks_of_a_convolution_give_the_bits_of_single_tokens(cuts: list[int]) -> None:
    x, state, w, b = arrays("conv0", "x", "state", "w", "b")

    @jax.jit
    def scan(held: Array, tokens: list[Array]) -> tuple[Array, Array]:
        y, out = convolve(tokens[0], held, w, b)
        return out, y

    assert same(in_chunks(scan, state, [x], cuts), [CASES["conv0"][name] for name in ("out_state", "y")])


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5, 6, 7, 8], [4]])
def test_chunks_of_a_state_space_give_the_bits_of_single_tokens(cuts: list[int]) -> None:
    x, dt, a, b, c, d, h = arrays("ssm2", "x", "dt", "A", "B", "C", "D", "h")
    scan = jax.jit(lambda held, t: state_space.scan(held, t[0], t[1], a, t[2], t[3], d))
    assert same(in_chunks(scan, h, [x, dt, b, c], cuts), [CASES["ssm2"][name] for name in ("out_h", "y")])


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5], [2]])
def test_chunks_of_the_delta_rule_give_the_bits_of_single_tokens(cuts: list[int]) -> None:
    *tokens, s = arrays("delta1", "qn", "kn", "v", "g", "beta", "S")
    scan = jax.jit(lambda held, part: delta.scan(held, *part))
    assert same(in_chunks(scan, s, tokens, cuts), [CASES["delta1"][name] for name in ("out_S", "o")])


@pytest.mark.slow
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


def test_b_and_c_of_every_channel_are_so_where_channels_are_as_many_as_states() -> None:
    """A square state: an axis of n taken for that of channels would fit, and give other results."""
    x, dt, a, b, c, d, h = arrays("ssm0", "x", "dt", "A", "B", "C", "D", "h")
    of = np.arange(h.shape[1]) % len(h)  # its channels over again, until they are as many as states
    found = jax.jit(state_space.scan)(h[of], x[:, of], dt[:, of], a[of], b, c, d[of])
    assert same(found, [CASES["ssm0"]["out_h"][of], CASES["ssm0"]["y"][:, of]])


def test_terms_of_a_combine_add_in_any_order_and_from_anywhere() -> None:
    case = CASES["combine3"]
    w, t, bits = case["w"], case["t"], int(case["F"])
    order = np.random.default_rng(0).permutation(len(w))
    owners = np.random.default_rng(1).integers(0, 5, len(w))
    terms = np.asarray(jax.jit(partial(combine.terms, bits=bits))(w[order], t[order]))
    held = [terms[owners[order] == chip].sum(axis=0) for chip in range(6)]  # one of them owns none
    assert same(combine.combined(jnp.asarray(sum(held)), bits), case["y"])
    assert same(jax.jit(partial(combine.combine, bits=bits))(w, t), case["y"])


def test_lanes_of_a_layer_norm_lie_on_any_chips() -> None:
    shares = [slice(0, 100), slice(100, 101), slice(101, 320)]
    eps = float(CASES["layernorm1"]["eps"])

    @jax.jit
    def over_chips(x: Array, g: Array, b: Array) -> Array:
        e = jnp.max(jnp.stack([square.exponent(x[share]) for share in shares]))
        one, two, three = (layer.moments(x[share], e) for share in shares)
        total = layer.Moments(one.first + two.first + three.first, one.second + two.second + three.second)
        stat = layer.layer_stat(total, e, len(x), eps)
        return jnp.concatenate([layer.layer_apply(x[share], stat, g[share], b[share]) for share in shares])

    assert same(over_chips(*arrays("layernorm1", "x", "g", "b")), CASES["layernorm1"]["f"])


def test_a_row_of_zeros_has_the_bias_as_its_layer_norm_and_no_norm_of_squares() -> None:
    zero, one = jnp.zeros((2, 4), jnp.float32), jnp.ones((4,), jnp.float32)

    @jax.jit
    def norms(x: Array, g: Array) -> tuple[Array, Array, Array]:
        return layer.layer_norm(x, g, g, 1e-5), square.l2_norm(x), square.rms32(x, g, 1e-5)

    assert same(norms(zero, one), (np.ones((2, 4), np.float16), *[np.zeros((2, 4), np.float32)] * 2))


def test_partial_sums_of_fp16_products_add_exactly() -> None:
    @jax.jit
    def over_two(a: Array, w: Array, e: Array) -> Array:
        one, two = dot16.sums(a[:, :99], w[:99]), dot16.sums(a[:, 99:], w[99:])
        total = dot16.Sums(one.high + two.high, one.middle + two.middle, one.low + two.low)
        return rn32(dot16.rounded_odd(total) * pow2(e))

    assert same(over_two(*arrays("matmul16_0", "a", "w", "e")), CASES["matmul16_0"]["y"])


def test_weights_of_a_router_are_exact_in_fp16_or_counted() -> None:
    bf16 = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32).view(np.uint32) & 0xFFFF0000
    weights = np.ldexp(bf16.view(np.float32), np.array([-90, 0, 90, 0])).astype(np.float32)
    weights[:, 3] = 0
    convert = jax.jit(to_half)
    half, e, changed = convert(weights)
    assert int(changed) == 0
    np.testing.assert_array_equal(np.ldexp(np.asarray(half).astype(np.float64), np.asarray(e)), weights)
    weights[:2, 1] = 1.0, 2.0**-45  # the second is 2^-32 over the exponent of its column
    assert int(convert(weights).changed) == 1


def test_a_router_sees_one_row() -> None:
    case = CASES["scoreroute1"]

    @jax.jit
    def routed(z: Array, bias: Array) -> route.Routed:
        return route.score_route(route.scores(z, "sigmoid"), bias, 8, groups=8, keep=4, scale=2.5)

    for row in range(len(case["z"])):
        found = routed(case["z"][row : row + 1], case["bias"])
        assert same(found, [case[name][row : row + 1] for name in ("id", "w")])


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_gated_norm_is_that_of_each_group(norm_first: bool) -> None:
    y, z, gain = (np.random.default_rng(n).standard_normal((3, 8)).astype(np.float32) for n in range(3))

    @jax.jit
    def by_group(y: Array, z: Array, g: Array) -> Array:
        if norm_first:
            return rn16(mul32(square.rms32(y, g, 1e-5), numerics.silu(z)))
        return numerics.rms_norm(mul32(y, numerics.silu(z)), g, 1e-5)

    gated = partial(state_space.gated_norm, eps=1e-5, groups=2, norm_first=norm_first)
    want = [by_group(y[:, i : i + 4], z[:, i : i + 4], gain[0, i : i + 4]) for i in (0, 4)]
    assert same(jax.jit(gated)(y, z, gain[0]), np.concatenate(want, axis=1))


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
