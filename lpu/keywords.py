"""The keywords that `api` functions take beside their records: of the model and of the compiler."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from types import UnionType
from typing import Any, TypedDict, Union, cast, get_args, get_origin, get_type_hints

from compiler.errors import OptionError
from compiler.options import CompileOptions


class ModelKeywords(TypedDict, total=False):
    """What overrides the model's file: see `open_model`."""

    batch: int | None
    context: int | Sequence[int] | None
    kv: str | None
    weights: str | None
    ffn_down: str | None
    ffn_up: str | None
    trust: bool
    divided: bool


class Keywords(ModelKeywords, total=False):
    """The same, and the fields of `CompileOptions`, each instead of that of `options`."""

    tp: int | None
    pp: int | None
    cp: int | None
    layout: str
    placement: str
    seed: int
    objective: str
    interval_slack: float | None
    users: int | None
    experts: str
    waves: bool
    spill: int | None
    request: str | None
    step_limit: float | None
    cold: float | None


OF_A_MODEL = tuple(ModelKeywords.__annotations__)
KINDS = get_type_hints(Keywords)
WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "True or False",
    Sequence[int]: "a list of them",
}
OF_OPTIONS = tuple(field.name for field in fields(CompileOptions))


def model_keywords(verb: str, given: Mapping[str, Any]) -> ModelKeywords:
    """The keywords, all of a model. Raises OptionError for another, or for a value of another kind."""
    _known(verb, given, OF_A_MODEL)
    return cast(ModelKeywords, dict(given))


def chosen(
    verb: str, options: CompileOptions | None, given: Mapping[str, Any]
) -> tuple[CompileOptions, ModelKeywords]:
    """The options with those that are given by keyword, and the keywords of the model.

    Raises OptionError for a keyword that there is not, by name, with the closest one, or for a wrong value.
    """
    _known(verb, given, (*OF_A_MODEL, *OF_OPTIONS))
    ours = {name: value for name, value in given.items() if name in OF_OPTIONS}
    rest = {name: value for name, value in given.items() if name not in OF_OPTIONS}
    return replace(options or CompileOptions(), **ours), cast(ModelKeywords, rest)


def _known(verb: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    for name, value in given.items():
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.5)
            remedy = f"Did you mean {near[0]}?" if near else f"It takes {', '.join(names)}."
            raise OptionError(f"api.{verb}", name, "is no keyword of it", remedy)
        hint = KINDS[name]
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if not any(_is_of(value, kind) for kind in kinds):
            wanted = " or ".join(WORDS[kind] for kind in kinds if kind in WORDS)
            raise OptionError(f"api.{verb}", name, f"is {repr(value)[:60]}, must be {wanted}")


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind that a keyword may have; True is no number."""
    if kind in (int, float):
        return type(value) is int or type(value) is kind
    if kind == Sequence[int]:
        return isinstance(value, (list, tuple)) and bool(value) and all(type(one) is int for one in value)
    return isinstance(value, kind)
