"""The registered ops that facts/contract2.md adds, against its vectors (made with Python integers)."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import ShapedArray

from models.contract import ops
from models.contract.functions.curves import sigmoid
from models.contract.recurrent import delta

Golden = dict[str, np.ndarray]


def test_a_bias_is_one_f32_sum() -> None:
    x, b = np.array([[1.0, -1.0, 1e30]], np.float32), np.array([2**-25, 1.0, 1e30], np.float32)
    got = np.asarray(ops.bias(jnp.asarray(x), jnp.asarray(b)))
    np.testing.assert_array_equal(got, np.array([[1.0, 0.0, 2e30]], np.float32))
    assert not np.signbit(got[0, 1])


@pytest.mark.parametrize("n", range(3))
def test_a_product_with_any_scale_per_column(golden2: Golden, n: int) -> None:
    a, w, s, y = (golden2[f"colscale{n}_{part}"] for part in "awsy")
    got = np.asarray(ops.matmul_scaled(jnp.asarray(a), jnp.asarray(w), jnp.asarray(s)))
    np.testing.assert_array_equal(got.view(np.uint32), y.view(np.uint32))


def test_powers_of_two_give_the_bits_of_matmul() -> None:
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.standard_normal((3, 40)).astype(np.float16))
    codes = jnp.asarray(rng.integers(0, 0x7F, (40, 8), dtype=np.uint8))
    exponent = np.arange(-9, -1, dtype=np.int32)
    scaled = ops.matmul_scaled(a, codes, jnp.asarray(np.ldexp(np.float32(1), exponent)))
    np.testing.assert_array_equal(scaled, ops.matmul(a, codes, jnp.asarray(exponent)))


@pytest.mark.parametrize("n", range(3))
def test_constant_factors(golden2: Golden, n: int) -> None:
    x, y = (jnp.asarray(golden2[f"mad{n}_{part}"]) for part in "xy")
    m = float(golden2[f"mad{n}_m"])
    found = {
        "residual": ops.multiply_add(x, y, factor=m),
        "embed": ops.multiply(x.astype(jnp.float16).astype(jnp.float32), factor=m),
        "logit": ops.multiply(x, factor=1 / m),
    }
    for name, got in found.items():
        wanted = golden2[f"mad{n}_{name}"].view(np.uint32)
        np.testing.assert_array_equal(np.asarray(got).view(np.uint32), wanted, err_msg=name)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 0.22])
def test_a_factor_that_is_no_f32_value_is_refused_in_a_sum(factor: float) -> None:
    x = jnp.zeros((1, 2), jnp.float32)
    with pytest.raises(ValueError, match=r"multiply_add: the factor"):
        ops.multiply_add(x, x, factor=factor)


@pytest.mark.slow
def test_heads_of_the_delta_rule_share_queries_and_keys_and_are_each_the_rule_of_one_head() -> None:
    rng, (tokens, heads, groups, keys, lanes) = np.random.default_rng(2), (3, 4, 2, 6, 5)
    v = jnp.asarray(rng.standard_normal((tokens, heads * lanes)).astype(np.float32))
    both = jnp.asarray(rng.standard_normal((tokens, 2 * groups, keys)).astype(np.float32))
    raw = jnp.asarray(rng.standard_normal((tokens, 2 * heads)).astype(np.float32))
    a = jnp.asarray(-rng.uniform(0.1, 2, heads).astype(np.float32))
    state = jnp.asarray(rng.standard_normal((1, keys, heads * lanes)).astype(np.float32))
    at = jnp.arange(1, 1 + tokens, dtype=jnp.int32)
    qk = ops.l2_norm(both).reshape(tokens, -1)
    y, new = ops.delta(v, raw, qk, jnp.repeat(a, lanes), state, at, groups=groups)
    for head in range(heads):
        own, group = slice(head * lanes, (head + 1) * lanes), head // (heads // groups)
        q, k = (qk[:, (group + which) * keys :][:, :keys] for which in (0, groups))
        g = delta.decay(raw[:, head : head + 1], a[head : head + 1], jnp.zeros(1, jnp.float32))
        s, o = delta.scan(state[0][:, own], q, k, v[:, own], g, sigmoid(raw[:, heads + head]))
        np.testing.assert_array_equal(np.asarray(y)[:, own].view(np.uint32), np.asarray(o).view(np.uint32))
        np.testing.assert_array_equal(np.asarray(new)[0][:, own], np.asarray(s))


def test_shapes_that_no_delta_rule_has_are_refused() -> None:
    good = [(4, 6), (4, 4), (4, 8), (6,), (2, 4, 6)]
    for which, shape, words in (
        (1, (4, 3), "3 numbers of heads"),
        (2, (4, 6), "qk has 6 lanes, 1 heads of 4 states take 8"),
        (3, (5,), "decay has 5 numbers, v 6 channels"),
        (4, (3, 4, 6), "4 rows are no equal share for 3 sequences"),
    ):
        shapes = [ShapedArray(shape if i == which else one, np.float32) for i, one in enumerate(good)]
        with pytest.raises(ValueError, match=words):
            ops.OPS["delta"].shape(*shapes, ShapedArray((4,), np.int32), groups=1)
