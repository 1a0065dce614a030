"""Decoders with latent attention and experts: DeepSeek-V3, Kimi-K2.

The first layers are those of `deepseek.py`, dense; the others have the experts of `experts.py`, chosen by
sigmoid scores, and a shared one, which counts as one more expert that every row takes with weight 1.
"""

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float32, Int32

from models.decoder import Decoder
from models.families.deepseek import LatentAttention, Latents, Turned
from models.families.deepseek_checkpoint import EXPERTS_FAMILY, tensors_with_experts
from models.families.experts import Mixture
from models.families.family import Family
from models.families.llama import Angles, FeedForward
from models.kv import KVFormat
from models.latent_config import LatentExpertsConfig


class LatentMixtureLayer(nnx.Module):
    """Latent attention, then experts, or a dense FFN in a layer of the kind `dense`."""

    def __init__(self, config: LatentExpertsConfig, *, context: int, kind: str = "full") -> None:
        self.attention = LatentAttention(config, context=context)
        if kind == "dense":
            self.ffn = FeedForward(config)
        else:
            self.ffn = Mixture(config, config.experts, config.expert_ffn, config.routing)

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


class DeepSeekExperts(Decoder):
    """A decoder of such layers."""

    def __init__(
        self, config: LatentExpertsConfig, *, batch: int, context: int, kv: KVFormat = "fp16"
    ) -> None:
        super().__init__(LatentMixtureLayer, config, batch=batch, context=context, kv=kv)


DEEPSEEK_EXPERTS = Family(
    name=EXPERTS_FAMILY,
    module=DeepSeekExperts,
    layer=LatentMixtureLayer,
    model_types={},
    tensors=tensors_with_experts,
    config=LatentExpertsConfig,
)
