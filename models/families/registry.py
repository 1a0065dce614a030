"""The model families by name and by Hugging Face model_type. A family from outside is given to `register`."""

from collections.abc import Callable, Mapping
from typing import Any

from models.config import DEFAULT_FAMILY, TransformerConfig
from models.families.bert.family import BERT
from models.families.deepseek import DEEPSEEK
from models.families.deepseek_experts import DEEPSEEK_EXPERTS
from models.families.exaone import EXAONE
from models.families.experts import EXPERTS
from models.families.family import Family
from models.families.gemma import GEMMA
from models.families.gemma4.family import GEMMA4
from models.families.gpt_oss import GPT_OSS
from models.families.granite import GRANITE
from models.families.hybrid.family import HYBRID
from models.families.llama import LLAMA
from models.families.llama4.family import LLAMA4
from models.families.olmo import OLMO
from models.families.scored.family import SCORED
from models.families.smollm import SMOLLM
from models.sources.json_keys import Keys

FAMILIES: dict[str, Family] = {}
"""Every family by name; `register` adds to it."""


class UnknownFamilyError(ValueError):
    """A family that nobody registered."""

    exit_code = 2


def register(family: Family) -> Family:
    """Add a family. Raises ValueError if another one has its name or reads one of its model_types."""
    for held in FAMILIES.values():
        shared = [f"model_type {kind!r}" for kind in family.model_types if kind in held.model_types]
        if held.name == family.name:
            shared.insert(0, f"name {family.name!r}")
        if shared:
            raise ValueError(
                f"families: {held.name} of {held.module.__module__} and {family.name} of "
                f"{family.module.__module__} share {', '.join(shared)}. Rename one."
            )
    FAMILIES[family.name] = family
    return family


def family_of(config: TransformerConfig) -> Family:
    """The family of a model. Raises UnknownFamilyError."""
    return _named(config.family)


def config_of(fields: Mapping[str, Any]) -> TransformerConfig:
    """A model's numbers from what `TransformerConfig.to_fields` gave. Raises UnknownFamilyError."""
    return _named(fields.get("family", DEFAULT_FAMILY)).config.of_fields(fields)


def readers() -> dict[str, Callable[[Keys, str], TransformerConfig]]:
    """How the `config.json` of every known Hugging Face model_type is read."""
    return {kind: read for family in FAMILIES.values() for kind, read in family.model_types.items()}


def _named(name: str) -> Family:
    if name not in FAMILIES:
        raise UnknownFamilyError(
            f"model: family {name!r} is none of {', '.join(FAMILIES)}. Install the package that registers "
            "it, or name its module with --extend."
        )
    return FAMILIES[name]


for _family in (
    LLAMA,
    GEMMA,
    OLMO,
    SMOLLM,
    GRANITE,
    EXAONE,
    EXPERTS,
    SCORED,
    GPT_OSS,
    GEMMA4,
    LLAMA4,
    DEEPSEEK,
    DEEPSEEK_EXPERTS,
    HYBRID,
    BERT,
):
    register(_family)
