"""Activations beside silu and gelu: squared relu and the two clipped forms of SwiGLU, in f32 or rounded.

Source: facts/contract2.md section 7. Interleaved gate and up columns are put apart by the loader.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float16, Float32

from models.contract.formats import F32, add32, mul32, rn16
from models.contract.numerics import sigmoid_times, silu

OAI_CLIP, OAI_SLOPE = 7.0, 1.702
CLIP = 10.0


def relu2(g: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """RELU2: the square of max(g, 0); from 256 on `rn16` clips it (`clips16` counts)."""
    r = jnp.maximum(g, F32(0))
    return mul32(r, r)


def oai_gated(gate: Float32[Array, "*shape"], up: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """The value of SWIGLU_OAI in f32: g sigmoid(1.702 g) (up + 1), g at most 7, up within 7."""
    g, u = jnp.minimum(gate, F32(OAI_CLIP)), jnp.clip(up, -F32(OAI_CLIP), F32(OAI_CLIP))
    w = mul32(jnp.full_like(g, OAI_SLOPE), g)
    return mul32(sigmoid_times(g, w), add32(u, jnp.ones_like(u)))


def oai_plain(gate: Float32[Array, "*shape"], up: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """The same without the contract's roundings."""
    g, u = jnp.minimum(gate, F32(OAI_CLIP)), jnp.clip(up, -F32(OAI_CLIP), F32(OAI_CLIP))
    return g * jax.nn.sigmoid(F32(OAI_SLOPE) * g) * (u + 1)


def swiglu_oai(gate: Float32[Array, "*shape"], up: Float32[Array, "*shape"]) -> Float16[Array, "*shape"]:
    """SWIGLU_OAI of gpt-oss, rounded to fp16."""
    return rn16(oai_gated(gate, up))


def swiglu_clipped(
    gate: Float32[Array, "*shape"], up: Float32[Array, "*shape"], clip: float = CLIP
) -> Float16[Array, "*shape"]:
    """SwiGLU with the gate at most `clip` and up within it, as in DeepSeek-V4."""
    return rn16(mul32(silu(jnp.minimum(gate, F32(clip))), jnp.clip(up, -F32(clip), F32(clip))))
