"""The readers of models by the name of their family: the project's own, and those of extensions."""

from collections.abc import Mapping
from typing import Any

from lpu.prove.models import bert, deepseek, experts, gemma4, gpt_oss, hybrid, llama, llama4, scored
from lpu.prove.models.record import Reader
from models.configs import hybrid as hybrid_config

READERS: dict[str, Reader] = {}


def register(family: str, reader: Reader) -> Reader:
    """Add the reader of a family. Raises ValueError if it has one."""
    if READERS.setdefault(family, reader) is not reader:
        raise ValueError(f"proof: family {family!r} has a reader. Give the other family another name.")
    return reader


def family_of(config: Mapping[str, Any] | None) -> str:
    """The family of a model's numbers in words; a module of the user's own has none."""
    return (
        "a module of the user's own"
        if config is None
        else f"the family {config.get('family', llama.FAMILY)!r}"
    )


def reader_of(config: Mapping[str, Any] | None) -> Reader | None:
    """The reader of a model's numbers, None if there is none."""
    name = None if config is None else config.get("family", llama.FAMILY)
    return READERS.get(name) if isinstance(name, str) else None


for _family in (llama.FAMILY, *llama.ALIKE):
    register(_family, llama.read)
register(experts.FAMILY, experts.read)
register(scored.FAMILY, scored.read)
register(gpt_oss.FAMILY, gpt_oss.read)
register(gemma4.FAMILY, gemma4.read)
register(llama4.FAMILY, llama4.read)
register(deepseek.FAMILY, deepseek.read)
register(deepseek.EXPERTS_FAMILY, deepseek.read)
register(hybrid_config.FAMILY, hybrid.read)
register(bert.FAMILY, bert.read)
