"""A model's own numbers in a file: layers, hidden, heads and the rest, instead of a name."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from lpu.inputs.document import Document, FileError, parse
from models.config import DEFAULT_FAMILY, TransformerConfig

ELSEWHERE = ("ffn_down", "ffn_up")  # keys of every model file, beside a name too
OPTIONAL = ("name", "source", "kv_heads", "head_dim", "tied", "rope_theta", "eps", "max_context")
LONGEST = 131_072
"""Longest context of a model whose file states none, in tokens: that of most models since Llama 3.1."""


def is_geometry(data: Mapping[str, Any]) -> bool:
    """Whether a file states a model's own numbers."""
    return "model" not in data and any(key in data for key in keys(TransformerConfig))


def keys(record: type[TransformerConfig]) -> list[str]:
    """The keys of a geometry."""
    return [field.name for field in fields(record) if field.name not in ELSEWHERE]


def geometry(document: Document, besides: list[str]) -> tuple[TransformerConfig, Document]:
    """The numbers of a model, and what the file says besides them: the keys of any model file.

    besides: those keys. Raises FileError.
    """
    record = _record(document)
    own = keys(record)
    for key in document.data:
        if key not in own and key not in besides:
            advice = _advice(key, [*own, *besides], document.data.get("family", DEFAULT_FAMILY))
            raise FileError(document.complaint((key,), f"is no key here. {advice}"))
    stated = {key: value for key, value in document.data.items() if key in own}
    rest = {key: value for key, value in document.data.items() if key not in own}
    config = parse(record, document._replace(data=_defaults(document, stated) | stated))
    return config, document._replace(data=rest)


def _advice(key: str, known: list[str], family: str) -> str:
    """What to write instead of a key: one like it, or the families that have it."""
    from models.families.registry import FAMILIES  # brings JAX

    near = get_close_matches(key, known, n=1, cutoff=0.5)
    having = [name for name, one in FAMILIES.items() if key in keys(one.config)]
    if having:
        return f"family {family} has none; these have: {', '.join(having)}. Say `family:` in the file."
    return f"{f'Did you mean {near[0]}? ' if near else ''}Keys: {', '.join(known)}."


def _record(document: Document) -> type[TransformerConfig]:
    """The record of the file's family."""
    family = document.data.get("family", DEFAULT_FAMILY)
    if family == DEFAULT_FAMILY:
        return TransformerConfig
    from models.families.registry import FAMILIES  # brings JAX

    if family not in FAMILIES:
        raise FileError(document.complaint(("family",), f"{family!r} is none of {', '.join(FAMILIES)}"))
    return FAMILIES[family].config


def _defaults(document: Document, stated: Mapping[str, Any]) -> dict[str, Any]:
    """What a file need not say."""
    hidden, heads = stated.get("hidden"), stated.get("heads")
    found: dict[str, Any] = {
        "name": document.path.stem,
        "source": f"stated by {document.path.name}",
        "tied": False,
        "rope_theta": 10_000.0,
        "eps": 1e-5,
        "max_context": LONGEST,
    }
    if heads is not None:
        found["kv_heads"] = heads
    if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
        if hidden % heads and "head_dim" not in stated:
            message = f"is required: hidden {hidden} is no multiple of heads {heads}"
            raise FileError(document.complaint(("head_dim",), message))
        found["head_dim"] = hidden // heads
    return found
