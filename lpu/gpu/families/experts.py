"""The operators of layers with experts on GPUs: Mixtral, Qwen3-MoE, gpt-oss; GLM-4.5, MiniMax; Llama 4."""

from typing import Any

from lpu.gpu.families.llama import LlamaLaunches
from lpu.gpu.launches import Mixed
from models.config import TransformerConfig


class ExpertsLaunches(LlamaLaunches):
    """Experts in every layer."""

    def dense(self, config: TransformerConfig, kind: str) -> int:
        """None."""
        del config, kind
        return 0

    def mixture(self, config: Any, kind: str) -> Mixed | None:
        """The experts of every layer."""
        del kind
        return Mixed(config.experts, config.chosen, config.ffn)


class ScoredLaunches(LlamaLaunches):
    """Dense layers, then experts, some of which every token takes."""

    def dense(self, config: TransformerConfig, kind: str) -> int:
        """That of the first layers."""
        return config.ffn if kind == "dense" else 0

    def mixture(self, config: Any, kind: str) -> Mixed | None:
        """The experts of the others."""
        if kind == "dense":
            return None
        return Mixed(config.experts, config.chosen, config.expert_ffn, config.shared)


class Llama4Launches(LlamaLaunches):
    """Dense layers, and between them some with experts, one of which every token takes."""

    def dense(self, config: TransformerConfig, kind: str) -> int:
        """That of layers without experts."""
        return config.ffn if kind.endswith(" dense") else 0

    def mixture(self, config: Any, kind: str) -> Mixed | None:
        """The experts of the others."""
        if kind.endswith(" dense"):
            return None
        return Mixed(config.experts, config.chosen, config.expert_ffn, 1)
