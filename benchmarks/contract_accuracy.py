"""How far the ops whose bits the present contract changed are from f64, beside the contract before it.

Operands are drawn from a seed: fp16 activations, e4m3 weights; f64 takes the same ones. Each line has the
relative error of a whole result: its 2-norm over that of f64. What changed: docs/facts/contract2.md 2, 3, 6.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float64
from measure import machine

from models.contract import block_attention, deferred, numerics, parts
from models.contract.formats import decode_e4m3, odd64, rn8

ROWS, COLUMNS, EPS = 4, 64, 1e-5
GROUP, LANES = 8, 128
Line = tuple[str, float, float]


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    print(f"{machine()}\n\n{'relative error against f64':<66}{'before':>10}{'now':>10}")
    for what, before, now in (*products(), *norms(), *attentions()):
        print(f"{what:<66}{before:>10.1e}{now:>10.1e}", flush=True)


def products() -> Iterator[Line]:
    """One sum over all of K, rounded once; sums of parts, each rounded, in a tree."""
    for k in (4096, 8192, 28_672):
        draw = np.random.default_rng(0)
        a, codes = _activations(draw, k), _codes(draw, k)
        exact = np.asarray(a.astype(float) @ decode_e4m3(codes))
        exponent = jnp.zeros(COLUMNS, jnp.int32)
        before = numerics.matmul(a, codes, exponent)
        now = parts.matmul_parts(a, codes, exponent, parts.down_starts(k))
        yield f"product of {k} rows, {parts.PARTS} parts", error(before, exact), error(now, exact)


def norms() -> Iterator[Line]:
    """The normalised vector in fp16, then the product; the statistic after the product."""
    for k in (4096, 8192):
        for factor in (1, 100, 1000):
            draw = np.random.default_rng(1)
            x = draw.standard_normal((ROWS, k))
            x[:, 3] *= factor
            x = jnp.asarray(x, jnp.float32)
            gain = jnp.asarray(1 + 0.1 * draw.standard_normal(k), jnp.float32)
            codes, exponent = _codes(draw, k), jnp.zeros(COLUMNS, jnp.int32)
            wide = np.asarray(x, float)
            wide = wide / np.sqrt(np.mean(wide**2, axis=1, keepdims=True) + EPS) * np.asarray(gain, float)
            exact = wide @ np.asarray(decode_e4m3(codes))
            before = numerics.matmul(numerics.rms_norm(x, gain, EPS), codes, exponent)
            sums = numerics.matmul(deferred.prescale(x, gain), codes, exponent)
            now = deferred.scale_rows(sums, deferred.shifted_stat(x, gain, EPS)[:, None])
            channel = f", one channel {factor} times the others" if factor > 1 else ""
            yield f"norm and product of {k} rows{channel}", error(before, exact), error(now, exact)


def attentions() -> Iterator[Line]:
    """Weights below the largest score of the context; of each block, in a tree. In f32, and then in fp16."""
    for tokens, p in ((8192, 20), (32_768, 18)):
        for spread in (1, 3):
            draw = np.random.default_rng(2)
            q = jnp.asarray(spread * draw.standard_normal((GROUP, LANES)), jnp.float16)
            k, v = (jnp.asarray(draw.standard_normal((tokens, LANES)), jnp.float16) for _ in range(2))
            score = np.asarray(q, float) @ np.asarray(k, float).T / np.sqrt(LANES)
            weight = np.exp(score - score.max(axis=1, keepdims=True))
            exact = weight @ np.asarray(v, float) / weight.sum(axis=1, keepdims=True)
            scores = numerics.attention_scores(q, k)
            weights, total = numerics.softmax_weights(scores, scores.max(axis=-1), p)
            part = numerics.attention_values(weights, v)
            before = odd64(part.high, part.low) / total[:, None]
            node = block_attention.attend(
                block_attention.scores(q, k, numerics.inverse_root(LANES)), jnp.ones(scores.shape, bool), v
            )
            what = f"attention, {tokens} tokens, scores of deviation {spread}"
            now = block_attention.quotient(node)
            yield f"{what}, p = {p}", error(before, exact), error(now, exact)
            rounded = numerics.attention_out(part, total), block_attention.out(node)
            yield f"{what}, fp16", error(rounded[0], exact), error(rounded[1], exact)


def error(found: Array, exact: Float64[np.ndarray, "*shape"]) -> float:
    """The 2-norm of the difference over that of the exact result."""
    return float(np.linalg.norm(np.asarray(found, float) - exact) / np.linalg.norm(exact))


def _activations(draw: np.random.Generator, k: int) -> Array:
    return jnp.asarray(draw.standard_normal((ROWS, k)), jnp.float16)


def _codes(draw: np.random.Generator, k: int) -> Array:
    return rn8(jnp.asarray(draw.standard_normal((k, COLUMNS)), jnp.float32))


if __name__ == "__main__":
    main()
