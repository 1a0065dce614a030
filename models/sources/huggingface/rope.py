"""RoPE as a Hugging Face config.json states it, in one of two tables and beside them.

Keys that contradict one another, and keys that the named kind does not take, are refused by name: which of
them the authors meant cannot be told. Source: transformers 5.24, modeling_rope_utils.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from models.rope_scaling import LinearScaling, Llama3Scaling, LongRopeScaling, Scaling, YarnScaling
from models.sources.error import WeightError
from models.sources.json_keys import Keys

DEFAULT_THETA = 10_000.0
_ORIGINAL = "original_max_position_embeddings"
_EVERY = ("rope_theta", "rope_type", "type", "partial_rotary_factor")
_TAKES: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", _ORIGINAL),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", _ORIGINAL),
    "yarn": (
        *("factor", _ORIGINAL, "attention_factor", "beta_fast", "beta_slow"),
        *("mscale", "mscale_all_dim", "truncate"),
    ),
    "longrope": ("factor", _ORIGINAL, "attention_factor", "short_factor", "long_factor"),
}
KINDS = tuple(_TAKES)
NO_ALIASES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """RoPE of a model; turned_lanes: of each head, None: all."""

    theta: float
    scaling: Scaling | None
    turned_lanes: int | None


def rope_of(
    keys: Keys,
    longest: int,
    head_dim: int,
    *,
    kinds: Sequence[str] = KINDS,
    aliases: Mapping[str, str] = NO_ALIASES,
    partial: bool = False,
) -> Rope:
    """RoPE from `rope_scaling` (until transformers 4), `rope_parameters` (since 5) and the keys beside them.

    longest: the longest context of the model. kinds: those of the model_type, aliases: their other names;
    partial: whether it can turn part of each head.
    """
    rope = _table(keys)
    for key, value in rope.values.items():
        if isinstance(value, dict):
            raise rope.error(key, value, "one set of parameters per kind of layer is not supported")
    named, kind = _kind(rope, kinds, aliases)
    theta = _agreeing(keys, rope, "rope_theta", DEFAULT_THETA)
    turned = _turned(keys, rope, head_dim, partial=partial)
    odd = [
        key for key, value in rope.values.items() if key not in (*_EVERY, *_TAKES[kind]) and value is not None
    ]
    if odd:
        takes = f"the kind {kind!r} takes {', '.join(_TAKES[kind]) or 'none'} of such keys"
        why = takes if named else "no rope_type beside it says what it is for"
        raise rope.error(odd[0], rope.values[odd[0]], why)
    try:
        scaling = _scaling(keys, rope, kind, longest, turned or head_dim)
    except WeightError:
        raise
    except ValueError as error:
        raise WeightError(f"{keys.path}: {error}") from error
    return Rope(theta=theta, scaling=scaling, turned_lanes=turned)


def by_kind(keys: Keys, *, local: str | None, local_theta: float) -> float:
    """The base of layers with a window; the table is made that of the other layers.

    Since transformers 5 a table holds one for each kind of layer; before, `local` names the key of that base.
    Raises WeightError where layers with a window have a scaled RoPE.
    """
    beside = keys.number(local, local_theta) if local is not None else local_theta
    tables = keys.table("rope_parameters")
    if not any(isinstance(value, dict) for value in tables.values.values()):
        return beside
    known = ("full_attention", "sliding_attention")
    if odd := [kind for kind in tables.values if kind not in known]:
        raise tables.error(odd[0], tables.values[odd[0]], f"only {', '.join(known)} are supported")
    near = tables.table("sliding_attention")
    kind = near.text("rope_type", near.text("type", "default"))
    if kind != "default":
        raise near.error("rope_type", kind, "only default is supported for layers with a window")
    theta = near.number("rope_theta", beside)
    if odd := [key for key, value in near.values.items() if key not in _EVERY and value is not None]:
        raise near.error(odd[0], near.values[odd[0]], "a default RoPE takes no such key")
    if near.get("partial_rotary_factor") is not None:
        raise near.error("partial_rotary_factor", near.get("partial_rotary_factor"), "it is not supported")
    keys.values["rope_parameters"] = tables.table("full_attention").values
    return theta


def _table(keys: Keys) -> Keys:
    """The one table; two that differ are refused."""
    old, new = keys.table("rope_scaling"), keys.table("rope_parameters")
    if old.values and new.values:
        for key in dict.fromkeys((*old.values, *new.values)):
            both = [_plain(one.values, key) for one in (old, new)]
            if both[0] != both[1]:
                raise new.error(
                    key, both[1], f"rope_scaling.{key} is {both[0]!r}; leave one of the two tables"
                )
    return old if old.values else new


def _plain(values: Mapping[str, Any], key: str) -> Any:
    other = {"type": "rope_type", "rope_type": "type"}.get(key)
    value = values.get(key)
    return values.get(other) if value is None and other is not None else value


def _kind(rope: Keys, kinds: Sequence[str], aliases: Mapping[str, str]) -> tuple[str, str]:
    """(the key that names the kind or "", the kind)."""
    found = {key: rope.text(key) for key in ("rope_type", "type") if rope.get(key) is not None}
    if len(set(found.values())) > 1:
        raise rope.error("type", found["type"], f"rope_type is {found['rope_type']!r}; leave one of the two")
    named, kind = next(iter(found.items()), ("", "default"))
    kind = aliases.get(kind, kind)
    if kind not in kinds:
        raise rope.error(named, kind, f"only {', '.join(kinds)} are supported")
    return named, kind


def _agreeing(keys: Keys, rope: Keys, key: str, default: float) -> float:
    """A number of the table or beside it; two that differ are refused."""
    inside, beside = (one.number(key) if one.get(key) is not None else None for one in (rope, keys))
    if inside is not None and beside is not None and inside != beside:
        raise rope.error(key, inside, f"{key} beside the table is {beside!r}; leave one of the two")
    return (
        default if inside is None and beside is None else float(inside if inside is not None else beside or 0)
    )


def _turned(keys: Keys, rope: Keys, head_dim: int, *, partial: bool) -> int | None:
    key = "partial_rotary_factor"
    share = _agreeing(keys, rope, key, 1.0)
    where = rope if rope.get(key) is not None else keys
    if share == 1:
        return None
    if not partial:
        raise where.error(key, share, "this model_type turns whole heads, only 1 is supported")
    lanes = int(head_dim * share)
    if not 0 < lanes <= head_dim or lanes % 2:
        raise where.error(key, share, f"turns {lanes} of {head_dim} lanes, it must be an even number of them")
    return lanes


def _scaling(keys: Keys, rope: Keys, kind: str, longest: int, lanes: int) -> Scaling | None:
    if kind == "default":
        return None
    if kind in ("linear", "dynamic"):
        factor = LinearScaling(factor=rope.number("factor"))
        return factor if kind == "linear" else None  # dynamic begins beyond the longest context
    original = int(_agreeing(keys, rope, _ORIGINAL, float(longest)))
    if kind == "llama3":
        return Llama3Scaling(
            factor=rope.number("factor"),
            low_freq_factor=rope.number("low_freq_factor"),
            high_freq_factor=rope.number("high_freq_factor"),
            original_max_position=original,
        )
    amplitude = None if rope.get("attention_factor") is None else rope.number("attention_factor")
    if kind == "yarn":
        factor = rope.number("factor")
        return YarnScaling(
            factor=factor,
            original_max_position=original,
            attention_factor=_yarn_amplitude(rope, factor) if amplitude is None else amplitude,
            beta_fast=rope.number("beta_fast", 32.0) or 32.0,
            beta_slow=rope.number("beta_slow", 1.0) or 1.0,
            truncate=rope.flag("truncate", True),
        )
    stretch = longest / original if rope.get("factor") is None else rope.number("factor")
    if amplitude is None:
        amplitude = 1.0 if stretch <= 1 else math.sqrt(1 + math.log(stretch) / math.log(original))
    return LongRopeScaling(
        short_factor=rope.numbers("short_factor", lanes // 2),
        long_factor=rope.numbers("long_factor", lanes // 2),
        original_max_position=original,
        attention_factor=amplitude,
    )


def _yarn_amplitude(rope: Keys, factor: float) -> float:
    def of(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    one, every = rope.number("mscale", 0.0), rope.number("mscale_all_dim", 0.0)
    return of(one) / of(every) if one and every else of(1.0)
