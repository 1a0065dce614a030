"""Decoders with latent attention and experts: DeepSeek-V3, Kimi-K2.

The first layers are those of `deepseek.py`, dense; the others have the experts of `experts.py`, chosen by
sigmoid scores, and a shared one, which counts as one more expert that every row takes with weight 1.
"""

from models.configs.latent import LatentExpertsConfig
from models.decoder import Decoder
from models.families.deepseek import LatentAttention, LatentLayer
from models.families.deepseek_checkpoint import EXPERTS_FAMILY, tensors_with_experts
from models.families.experts import Mixture
from models.families.family import Family
from models.families.llama import FeedForward
from models.kv import KVFormat


class LatentMixtureLayer(LatentLayer):
    """Latent attention, then experts, or a dense FFN in a layer of the kind `dense`."""

    def __init__(self, config: LatentExpertsConfig, *, context: int, kind: str = "full") -> None:
        self.attention = LatentAttention(config, context=context)
        if kind == "dense":
            self.ffn = FeedForward(config)
        else:
            self.ffn = Mixture(config, config.experts, config.expert_ffn, config.routing)


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
