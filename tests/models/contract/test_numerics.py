import hashlib
import math
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from models.contract import formats, numerics

Golden = dict[str, np.ndarray]
modes = pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
Wrap = Callable[[Any], Any]


def jitted_and_one_eager(name: str, values: Sequence[int]) -> pytest.MarkDecorator:
    """Every value under jit, the first one op by op as well."""
    cases = [(lambda f: f, values[0]), *((jax.jit, value) for value in values)]
    ids = [f"eager-{values[0]}", *(f"jit-{value}" for value in values)]
    return pytest.mark.parametrize(("wrap", name), cases, ids=ids)


def same_bits(got: Any, want: Any) -> bool:
    got, want = np.asarray(got), np.asarray(want)
    return got.dtype == want.dtype and got.shape == want.shape and got.tobytes() == want.tobytes()


def take(golden: Golden, prefix: str, names: str) -> list[Array]:
    return [jnp.asarray(golden[f"{prefix}_{name}"]) for name in names]


def random_matmul(batch: int, k: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = (rng.standard_normal((batch, k)) * np.exp2(rng.integers(-12, 8, (batch, k)))).astype(np.float16)
    codes = rng.integers(0, 0x7F, (k, n), dtype=np.uint8) | rng.choice(np.array([0, 0x80], np.uint8), (k, n))
    return a, codes, rng.integers(-9, 4, n).astype(np.int32)


def exact_matmul(a: np.ndarray, codes: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """The contract's product by Python integers."""
    units = np.rint(np.asarray(formats.decode_e4m3(jnp.asarray(codes))) * 512).astype(object)
    sums = (np.rint(a.astype(np.float64) * 2.0**24).astype(object)) @ units.astype(object)
    out = np.empty(sums.shape, np.float32)
    for at, value in np.ndenumerate(sums):
        out[at] = round_f32(Fraction(int(value)) * Fraction(2) ** (int(exponent[at[1]]) - 33))
    return out


def round_f32(v: Fraction) -> np.float32:
    if v == 0:
        return np.float32(0)
    e = math.floor(math.log2(abs(v))) - 23
    return np.float32(math.ldexp(round(v / Fraction(2) ** e), e))


@jitted_and_one_eager("n", range(5))
def test_matmul_gives_the_golden_bits(golden: Golden, wrap: Wrap, n: int) -> None:
    a, codes, exponent = take(golden, f"matmul{n}", "awe")
    assert same_bits(wrap(numerics.matmul)(a, codes, exponent), golden[f"matmul{n}_y"])


def test_a_plain_f32_product_misses_the_golden_bits(golden: Golden) -> None:
    a, codes, exponent = take(golden, "matmul2", "awe")
    plain = a.astype(jnp.float32) @ (formats.decode_e4m3(codes) * formats.pow2(exponent)).astype(jnp.float32)
    assert not same_bits(plain, golden["matmul2_y"])


@modes
def test_rn8_gives_the_golden_bits(golden: Golden, wrap: Wrap) -> None:
    assert same_bits(wrap(numerics.rn8)(jnp.asarray(golden["rn8_x"])), golden["rn8_y"])


@jitted_and_one_eager("p", [16, 20, 28])
def test_expq_gives_the_golden_integers(golden: Golden, wrap: Wrap, p: int) -> None:
    got = wrap(lambda t: numerics.expq(t, p))(jnp.asarray(golden["expq_t"]))
    assert same_bits(got, golden[f"expq_y{p}"])


def test_the_expq_table_is_the_one_of_the_contract() -> None:
    digest = hashlib.sha1(numerics.EXPQ_TABLE.astype("<i4").tobytes()).hexdigest()
    assert digest == "94bb39813de9ca7498981286baa7bc2529489727"


@jitted_and_one_eager("n", range(3))
def test_rms_norm_gives_the_golden_bits(golden: Golden, wrap: Wrap, n: int) -> None:
    x, gain = take(golden, f"rmsnorm{n}", "xg")
    assert same_bits(wrap(lambda x, g: numerics.rms_norm(x, g, 1e-5))(x, gain), golden[f"rmsnorm{n}_y"])


@modes
def test_swiglu_gives_the_golden_bits(golden: Golden, wrap: Wrap) -> None:
    gate, up = take(golden, "swiglu", "gu")
    assert same_bits(wrap(numerics.silu)(gate), golden["silu_y"])
    assert same_bits(wrap(lambda g, u: numerics.glu(g, u, "silu"))(gate, up), golden["swiglu_y"])


def attend(q: Array, k: Array, v: Array, blocks: int = 1) -> Array:
    parts = [numerics.attention_scores(q, part) for part in jnp.split(k, blocks)]
    largest = jnp.max(jnp.concatenate(parts, axis=-1), axis=-1)
    weights, sums = zip(*(numerics.softmax_weights(s, largest, 20) for s in parts), strict=True)
    values = [
        numerics.attention_values(w, part) for w, part in zip(weights, jnp.split(v, blocks), strict=True)
    ]
    total = numerics.Wide(
        sum((p.high for p in values), jnp.float64(0)), sum((p.low for p in values), jnp.float64(0))
    )
    return numerics.attention_out(total, jnp.sum(jnp.stack(sums), axis=0))


@pytest.mark.parametrize("n", range(2))
@pytest.mark.parametrize("blocks", [1, 4])
def test_attention_gives_the_golden_bits_in_any_number_of_parts(golden: Golden, n: int, blocks: int) -> None:
    q, k, v = take(golden, f"attention{n}", "qkv")
    assert same_bits(jax.jit(attend, static_argnums=3)(q, k, v, blocks), golden[f"attention{n}_o"])


scores_of = jax.jit(numerics.attention_scores)
weights_of = jax.jit(lambda s: numerics.softmax_weights(s, jnp.max(s, axis=-1), 20))
out_of = jax.jit(lambda w, v, total: numerics.attention_out(numerics.attention_values(w, v), total))


def test_a_mask_leaves_no_weight() -> None:
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.standard_normal(s).astype(np.float16)) for s in ((2, 16), (10, 16)))
    weights, sums = weights_of(scores_of(q, k, jnp.arange(10) < 7))
    assert not np.asarray(weights[:, 7:]).any()
    assert same_bits(sums, weights_of(scores_of(q, k[:7]))[1])


@pytest.mark.slow
def test_e4m3_keys_and_values_are_those_numbers_in_fp16() -> None:
    rng = np.random.default_rng(1)
    q = jnp.asarray(rng.standard_normal((2, 16)).astype(np.float16))
    codes = jnp.asarray(rng.integers(0, 0x7F, (12, 16), dtype=np.uint8))
    half = formats.decode_e4m3(codes).astype(jnp.float16)
    scores = scores_of(q, codes)
    assert same_bits(scores, scores_of(q, half))
    weights, sums = weights_of(scores)
    assert same_bits(out_of(weights, codes, sums), out_of(weights, half, sums))


@pytest.mark.parametrize(("k", "n"), [(64, 9), (1500, 700), (700, 1500), (1031, 1031)])
def test_blocks_of_any_size_give_the_exact_product(k: int, n: int) -> None:
    a, codes, exponent = random_matmul(2, k, n)
    got = np.asarray(jax.jit(numerics.matmul)(*map(jnp.asarray, (a, codes, exponent))))
    columns = np.r_[0:3, n - 3 : n]
    assert same_bits(got[:, columns], exact_matmul(a, codes[:, columns], exponent[columns]))


def test_more_input_rows_than_one_f64_sum_holds_are_still_exact() -> None:
    a, codes, exponent = random_matmul(1, 53_248, 3)
    a[:, :40_000], codes[:40_000] = 65_504, 0x7E  # the largest products: beyond 2^53 units
    got = jax.jit(numerics.matmul)(*map(jnp.asarray, (a, codes, exponent)))
    assert same_bits(got, exact_matmul(a, codes, exponent))


@pytest.mark.slow
def test_neither_batch_nor_order_nor_split_of_k_changes_a_bit() -> None:
    a, codes, exponent = (jnp.asarray(x) for x in random_matmul(8, 640, 48))
    matmul, round_wide = jax.jit(numerics.matmul), jax.jit(numerics.round_wide)
    whole = matmul(a, codes, exponent)
    assert same_bits(matmul(a[:1], codes, exponent), whole[:1])
    order = jnp.asarray(np.random.default_rng(1).permutation(640))
    assert same_bits(matmul(a[:, order], codes[order], exponent), whole)
    assert same_bits(matmul(a, codes[:, 8:16], exponent[8:16]), whole[:, 8:16])
    for parts in (2, 5, 64):
        split = jnp.swapaxes(a.reshape(8, parts, -1), 0, 1), codes.reshape(parts, -1, codes.shape[1])
        wides = jax.jit(jax.vmap(numerics.wide))(*split)
        for part in (wides, numerics.carry(wides)):
            total = numerics.Wide(part.high.sum(0), part.low.sum(0))
            assert same_bits(round_wide(total, exponent), whole)


def test_padding_with_zeros_leaves_the_norm_alone() -> None:
    rng = np.random.default_rng(0)
    x, gain = (rng.standard_normal(s).astype(np.float32) for s in ((3, 90), (90,)))
    norm = jax.jit(lambda x: numerics.rms_norm(x, jnp.asarray(gain), 1e-5))
    r = jax.jit(lambda x: numerics.rms_stat(x, 90, 1e-5))(jnp.asarray(np.pad(x, ((0, 0), (0, 70)))))
    got = jax.jit(numerics.rms_apply)(jnp.asarray(x), r[:, None], jnp.asarray(gain))
    assert same_bits(got, norm(jnp.asarray(x)))
    assert not np.asarray(norm(jnp.zeros((3, 90), jnp.float32))).any()


def test_every_e4m3_code_decodes_to_its_value() -> None:
    codes = np.array([c for c in range(256) if c & 0x7F != 0x7F], np.uint8)
    want = codes.view(jnp.float8_e4m3fn.dtype).astype(np.float64)
    assert np.array_equal(formats.decode_e4m3(jnp.asarray(codes)), want)


@modes
def test_no_negative_zero_and_no_subnormal_leaves_a_rounding(wrap: Wrap) -> None:
    small = jnp.array([-0.0, 0.0, 1e-39, -1e-39, 1e-300, -1e-300])
    assert same_bits(wrap(numerics.rn32)(small), np.zeros(6, np.float32))
    assert same_bits(wrap(numerics.rn16)(jnp.array([-0.0, -1e-9], jnp.float32)), np.zeros(2, np.float16))
    assert same_bits(wrap(numerics.rn8)(jnp.array([-0.0, -1e-5], jnp.float32)), np.zeros(2, np.uint8))
    one = jnp.array([1.5], jnp.float32)
    assert same_bits(wrap(numerics.add32)(one, -one), np.zeros(1, np.float32))
    assert same_bits(wrap(formats.plus0)(jnp.array([-0.0])), np.zeros(1))


def test_rn16_clips_and_keeps_subnormals() -> None:
    got = numerics.rn16(jnp.array([1e6, -1e6, 2.0**-24, 3 * 2.0**-25], jnp.float32))
    assert np.array_equal(got, np.array([65504, -65504, 2.0**-24, 2.0**-23], np.float16))


@pytest.mark.slow
def test_gelu_follows_its_definition() -> None:
    x = np.concatenate([np.linspace(-12, 12, 4001), [-1e30, 1e30, 0]]).astype(np.float32)
    wide = np.clip(x.astype(np.float64), -1e3, 1e3)
    want = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    got = np.asarray(jax.jit(numerics.gelu)(jnp.asarray(x)))
    assert np.allclose(got, want, rtol=2e-6, atol=3e-8)
    assert same_bits(numerics.gelu(jnp.asarray(x)), got)


def test_rope_turns_halves_with_one_rounding() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3, 8)).astype(np.float32)
    angles = rng.integers(-32768, 32769, (4, 1, 2, 4)).astype(np.int32)
    a, b = x[..., :4].astype(np.float64), x[..., 4:].astype(np.float64)
    c, s = (angles[..., i, :] / 2**15 for i in range(2))
    want = np.concatenate([a * c - b * s, b * c + a * s], axis=-1).astype(np.float32)
    assert same_bits(jax.jit(numerics.rope)(jnp.asarray(x), jnp.asarray(angles)), want)


def test_argmax_takes_the_lowest_of_equals() -> None:
    x = jnp.array([[1.0, 3.0, 3.0], [0.0, 0.0, -1.0]], jnp.float32)
    assert same_bits(numerics.argmax(x), np.array([1, 0], np.int32))


def test_the_guard_passes_here_and_stops_a_compiler_that_simplifies() -> None:
    numerics.guard()
    with pytest.raises(numerics.NumericsError, match="fast-math"):
        numerics.guard(lambda a, b: (a + b, jnp.zeros_like(a)))
    with jax.enable_x64(False), pytest.raises(numerics.NumericsError, match="jax_enable_x64 is off"):
        numerics.guard()


@pytest.mark.skipif(
    "optimization_level=0" in os.environ.get("XLA_FLAGS", ""), reason="XLA contracts nothing then"
)
def test_the_guard_stops_a_compiler_that_contracts_a_product_and_a_sum() -> None:
    def bare(a: Array, b: Array) -> Array:
        """Cast without a flush: XLA on CPU makes an FMA of this and the sum after it."""
        return (a.astype(jnp.float64) * b.astype(jnp.float64)).astype(jnp.float32)

    with pytest.raises(numerics.NumericsError, match=r"\(FMA\)"):
        numerics.guard(product=bare)
