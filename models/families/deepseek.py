"""Decoders with multi-head latent attention (MLA) in the op vocabulary: DeepSeek-V2 and V3, Kimi-K2.

The absorbed form: each head's queries go into the space of the latents by a matrix of its own, and the
weighted latents come out of it by another, in decode and prefill alike. The cache holds `kv_lora + rope`
numbers of a token, whatever the number of heads. Source: facts/contract2.md section 6 (MLA).
"""

from collections.abc import Callable

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float, Float16, Float32, Int32, UInt8

from models.configs.latent import LatentConfig
from models.contract import ops
from models.contract.parts import starts_of
from models.decoder import Decoder
from models.families.deepseek_checkpoint import READERS, tensors
from models.families.family import Family
from models.families.llama import Angles, FeedForward, Positions
from models.kv import KVFormat
from models.parts import HeadLinear, Linear, Norm, Normed

Turned = Float[Array, "sequences tokens 1 turned"] | UInt8[Array, "sequences tokens 1 turned"]
Latents = Float[Array, "sequences tokens 1 latent"] | UInt8[Array, "sequences tokens 1 latent"]


class LatentAttention(nnx.Module):
    """Latent attention, its norms and its residual."""

    def __init__(self, config: LatentConfig, *, context: int) -> None:
        hidden, heads = config.hidden, config.heads
        scaled = config.column_scales == "f32"
        self.norm = Norm(hidden, config.eps)
        if config.q_lora is not None:
            self.q_a = Linear(hidden, config.q_lora, scaled=scaled)
            self.q_norm = Norm(config.q_lora, config.latent_eps)
        width = config.q_lora or hidden
        self.q_nope = Linear(width, heads * config.nope, scaled=scaled)
        self.q_rope = Linear(width, heads * config.rope, scaled=scaled)
        self.kv_a = Linear(hidden, config.kv_lora, scaled=scaled)
        self.kv_norm = Norm(config.kv_lora, config.latent_eps)
        self.k_rope = Linear(hidden, config.rope, scaled=scaled)
        self.absorb = HeadLinear(heads, config.nope, config.kv_lora, scaled=scaled)
        self.expand = HeadLinear(heads, config.kv_lora, config.value, scaled=scaled)
        values = heads * config.value
        self.o = Linear(values, hidden, scaled=scaled, starts=starts_of(values, config.value))
        self.config = config

    def __call__(
        self,
        x: Float32[Array, "batch hidden"],
        angles: Angles,
        position: Positions,
        k_cache: Turned,
        v_cache: Latents,
    ) -> tuple[Float32[Array, "batch hidden"], Turned, Latents]:
        """One token per row; the caches come back with its turned key and its latent appended."""
        config, a = self.config, self.norm.deferred(x)
        q: Float16[Array, "batch q_lora"] | Normed = a
        if config.q_lora is not None:
            q = self.q_norm(self.q_a(a))
        nope = self.q_nope(q).reshape(-1, config.heads, config.nope)
        turned = self.q_rope(q).reshape(-1, config.heads, config.rope)
        latent = self.kv_norm(self.kv_a(a).reshape(-1, 1, config.kv_lora))
        key = self.k_rope(a).reshape(-1, 1, config.rope)
        out, k_cache, v_cache = ops.latent_attention(
            ops.round16(self.absorb(ops.round16(nope))),
            ops.rope(turned, angles, position),
            ops.rope(key, angles, position),
            latent,
            k_cache,
            v_cache,
            position,
            sigma=config.sigma,
            block=config.attention_block,
        )
        heads = ops.round16(self.expand(out)).reshape(len(x), -1)
        return ops.add(x, self.o(heads)), k_cache, v_cache


class LatentLayer(nnx.Module):
    """Latent attention, then a dense FFN; one with experts replaces it."""

    ffn: Callable[[Float32[Array, "batch hidden"]], Float32[Array, "batch hidden"]]

    def __init__(self, config: LatentConfig, *, context: int) -> None:
        self.attention = LatentAttention(config, context=context)
        self.ffn = FeedForward(config)

    def __call__(
        self,
        x: Float32[Array, "batch hidden"],
        angles: Angles,
        position: Int32[Array, " batch"],
        k_cache: Turned,
        v_cache: Latents,
    ) -> tuple[Float32[Array, "batch hidden"], Turned, Latents]:
        """One token per row; the caches come back with it appended."""
        with jax.named_scope("attention"):
            x, k_cache, v_cache = self.attention(x, angles, position, k_cache, v_cache)
        with jax.named_scope("ffn"):
            return self.ffn(x), k_cache, v_cache


class DeepSeek(Decoder):
    """A decoder of such layers."""

    def __init__(self, config: LatentConfig, *, batch: int, context: int, kv: KVFormat = "fp16") -> None:
        super().__init__(LatentLayer, config, batch=batch, context=context, kv=kv)


DEEPSEEK = Family(
    name="deepseek",
    module=DeepSeek,
    layer=LatentLayer,
    model_types=READERS,
    tensors=tensors,
    config=LatentConfig,
)
