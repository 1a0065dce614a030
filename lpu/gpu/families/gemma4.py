"""The operators of Gemma 4's layers on GPUs: two geometries of heads, experts beside a dense FFN."""

from typing import Any, cast

from lpu.gpu.families.llama import LlamaLaunches
from lpu.gpu.launches import Mixed
from models.config import TransformerConfig
from models.configs.gemma4 import Gemma4Config


class Gemma4Launches(LlamaLaunches):
    """Keys and values of global layers are of one matrix in some models; it is counted twice here."""

    def own(self, config: TransformerConfig, kind: str) -> TransformerConfig:
        """The heads of a kind of layer."""
        return cast(Gemma4Config, config).geometry(kind)

    def mixture(self, config: Any, kind: str) -> Mixed | None:
        """The experts beside the dense FFN of every layer, where the model has them."""
        del kind
        return Mixed(config.experts, config.chosen, config.expert_ffn) if config.experts else None
