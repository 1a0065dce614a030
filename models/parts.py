"""The parts that decoders of every family are made of: matrices, norms, the embedding, the head."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Float16, Float32, Int32

from models.contract import ops


class Normed(NamedTuple):
    """A vector that the products which read it normalise: scaled to fp16, and the statistic of each row.

    statistic: None of a vector that is normalised already.
    """

    scaled: Float16[Array, "batch width"]
    statistic: Float32[Array, "batch 1"] | None


class Linear(nnx.Module):
    """E4m3 weights [k, n] with a scale per column: a power of two, or any f32 if `scaled`.

    bias: an f32 vector is added to the product. starts: of contract parts (`ops.matmul`).
    """

    def __init__(
        self, k: int, n: int, *, scaled: bool = False, bias: bool = False, starts: tuple[int, ...] = ()
    ) -> None:
        self.codes = nnx.Param(jnp.zeros((k, n), jnp.uint8))
        if scaled:
            self.scale = nnx.Param(jnp.zeros(n, jnp.float32))
        else:
            self.exponent = nnx.Param(jnp.zeros(n, jnp.int32))
        if bias:
            self.bias = nnx.Param(jnp.zeros(n, jnp.float32))
        self.scaled, self.has_bias, self.starts = scaled, bias, starts

    def __call__(self, a: Float16[Array, "batch k"] | Normed) -> Float32[Array, "batch n"]:
        """The product, with its bias."""
        a, statistic = a if isinstance(a, Normed) else (a, None)
        if self.scaled:
            y = ops.matmul_scaled(a, self.codes[...], self.scale[...], statistic, starts=self.starts)
        else:
            y = ops.matmul(a, self.codes[...], self.exponent[...], statistic, starts=self.starts)
        return ops.bias(y, self.bias[...]) if self.has_bias else y


class HeadLinear(nnx.Module):
    """E4m3 weights [k, n] of each head, one below the other, with a scale per head and column."""

    def __init__(self, heads: int, k: int, n: int, *, scaled: bool = False) -> None:
        self.codes = nnx.Param(jnp.zeros((heads * k, n), jnp.uint8))
        if scaled:
            self.scale = nnx.Param(jnp.zeros(heads * n, jnp.float32))
        else:
            self.exponent = nnx.Param(jnp.zeros(heads * n, jnp.int32))
        self.scaled = scaled

    def __call__(self, a: Float16[Array, "batch heads k"]) -> Float32[Array, "batch heads n"]:
        """Each head times its own matrix."""
        scale = self.scale[...] if self.scaled else self.exponent[...]
        return ops.head_matmul(a, self.codes[...], scale)


class Norm(nnx.Module):
    """RMS norm over the last axis."""

    def __init__(self, width: int, eps: float) -> None:
        self.gain = nnx.Param(jnp.ones(width, jnp.float32))
        self.eps = eps

    def __call__(self, x: Float32[Array, "*batch width"]) -> Float16[Array, "*batch width"]:
        """The normalised vector in fp16."""
        return ops.rms_norm(x, self.gain[...], eps=self.eps)

    def in_f32(self, x: Float[Array, "batch *heads width"]) -> Float32[Array, "batch *heads width"]:
        """The normalised vector in f32, for a residual sum, or for what reads f32."""
        return ops.rms_norm32(x, self.gain[...], eps=self.eps)

    def deferred(self, x: Float32[Array, "batch width"]) -> Normed:
        """The vector for products that normalise it after their sums."""
        gain = self.gain[...]
        return Normed(ops.prescale(x, gain), ops.rms_stat(x, gain, eps=self.eps))

    def sent(self, x: Float32[Array, "batch width"], crosses: str | None) -> Normed:
        """The vector for products here (None), or in the format in which it goes to another machine."""
        if crosses is None:
            return self.deferred(x)
        a = self(x)
        return Normed(ops.round8(a) if crosses == "fp8" else a, None)


class LayerNorm(nnx.Module):
    """Layer norm over the last axis, in f32."""

    def __init__(self, width: int, eps: float) -> None:
        self.gain = nnx.Param(jnp.ones(width, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))
        self.eps = eps

    def __call__(self, x: Float32[Array, "batch width"]) -> Float32[Array, "batch width"]:
        """The normalised vector."""
        return ops.layer_norm32(x, self.gain[...], self.bias[...], eps=self.eps)


class Embedding(nnx.Module):
    """The table of token vectors."""

    def __init__(self, vocab: int, hidden: int) -> None:
        self.table = nnx.Param(jnp.zeros((vocab, hidden), jnp.float16))

    def __call__(self, tokens: Int32[Array, " batch"]) -> Float32[Array, "batch hidden"]:
        """One row per token."""
        return ops.embed(self.table[...], tokens)
