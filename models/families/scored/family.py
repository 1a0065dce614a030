"""Decoders with a Llama's attention and experts that sigmoid scores choose: GLM-4.5, MiniMax-M2.

The first layers may be dense; a shared expert counts as one more that every row takes with weight 1. What
differs between the Hugging Face model_types stands in `readers.py`.
"""

from models.configs.scored import FAMILY, ScoredConfig
from models.decoder import Decoder
from models.families.experts import Mixture
from models.families.family import Family
from models.families.llama import Attention, FeedForward, Layer
from models.families.scored.readers import READERS, tensors
from models.kv import KVFormat


class ScoredLayer(Layer):
    """Attention, then experts, or a dense FFN in a layer of the kind `dense`."""

    def __init__(self, config: ScoredConfig, *, context: int, kind: str = "full") -> None:
        self.attention = Attention(config, context=context, kind=kind)
        if kind == "dense":
            self.ffn = FeedForward(config)
        else:
            self.ffn = Mixture(config, config.experts, config.expert_ffn, config.routing)


class ScoredDecoder(Decoder):
    """A decoder of such layers."""

    def __init__(self, config: ScoredConfig, *, batch: int, context: int, kv: KVFormat = "fp16") -> None:
        super().__init__(ScoredLayer, config, batch=batch, context=context, kv=kv)


SCORED = Family(
    name=FAMILY,
    module=ScoredDecoder,
    layer=ScoredLayer,
    model_types=READERS,
    tensors=tensors,
    config=ScoredConfig,
)
