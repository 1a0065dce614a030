"""What GPUs launch for the layers of each model family, by the family's name; `register` adds one.

A family whose layers differ from a Llama's is a class of its own that overrides what differs.
"""

from compiler.errors import OptionError
from lpu.gpu.families.experts import ExpertsLaunches, Llama4Launches, ScoredLaunches
from lpu.gpu.families.gemma4 import Gemma4Launches
from lpu.gpu.families.hybrid import HybridLaunches
from lpu.gpu.families.latent import LatentExpertsLaunches, LatentLaunches
from lpu.gpu.families.llama import LlamaLaunches
from models.config import TransformerConfig

FAMILIES: dict[str, LlamaLaunches] = {
    "llama": LlamaLaunches(),
    "experts": ExpertsLaunches(),
    "gpt_oss": ExpertsLaunches(),
    "scored": ScoredLaunches(),
    "llama4": Llama4Launches(),
    "gemma4": Gemma4Launches(),
    "hybrid": HybridLaunches(),
    "deepseek": LatentLaunches(),
    "deepseek_experts": LatentExpertsLaunches(),
}


def register(family: str, layers: LlamaLaunches) -> None:
    """Say what GPUs launch for a family; ValueError if that is said already."""
    if FAMILIES.setdefault(family, layers) is not layers:
        raise ValueError(
            f"gpu: the layers of family {family!r} are stated already. Give the family another name."
        )


def layers_of(config: TransformerConfig) -> LlamaLaunches:
    """What GPUs launch for a model. Raises OptionError for a family without such a record."""
    if config.family not in FAMILIES:
        raise OptionError(
            "gpu",
            config.name,
            f"nothing says what GPUs launch for models of family {config.family!r}",
            f"Use a model of one of these: {', '.join(FAMILIES)}; or register its layers "
            "(lpu.gpu.families.registry).",
        )
    return FAMILIES[config.family]
