"""Inputs of the reference cases that a user changes: on the command line, or in a file by case."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from math import isfinite
from pathlib import Path

from lpu.inputs.document import FileError, read_document
from lpu.validate.reference.case import ReferenceCase

Changes = Mapping[str, Mapping[str, float]]
"""By case (`*`: every case that has the input), by input."""

EVERY = "*"


def parse_changes(texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """`C-002-01.batch=4` or, for all cases that have it, `batch=4`. Raises FileError."""
    out: dict[str, dict[str, float]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        case, _, name = key.strip().rpartition(".")
        if not equals or not name:
            raise FileError(f"validate: --set {text}: is no change. Write --set CASE.INPUT=NUMBER.")
        out.setdefault(case or EVERY, {})[name] = _number(f"--set {text}", value)
    return out


def read_changes(path: Path) -> dict[str, dict[str, float]]:
    """A YAML file with a mapping of inputs for each case, `"*"` for all. Raises FileError."""
    document = read_document(path)
    out: dict[str, dict[str, float]] = {}
    for case, inputs in document.data.items():
        if not isinstance(inputs, dict):
            raise FileError(document.complaint((case,), "needs inputs with numbers"))
        out[case] = {
            str(name): _number(document.complaint((case, name), "value"), value)
            for name, value in inputs.items()
        }
    return out


def changed(cases: Iterable[ReferenceCase], changes: Changes) -> tuple[ReferenceCase, ...]:
    """The cases with other inputs. Raises FileError for a case or an input that is not there."""
    every = tuple(cases)
    by_id = {case.id: case for case in every}
    for key, inputs in changes.items():
        if key != EVERY and key not in by_id:
            raise FileError(f"validate: there is no case {key!r}.{_near(key, by_id)}")
        known = {name for case in every if key in (EVERY, case.id) for name in case.inputs}
        for name in inputs:
            if name not in known:
                where = "no case has" if key == EVERY else f"{key} has no"
                raise FileError(f"validate: {where} input {name!r}.{_near(name, known)}")
    return tuple(_with(case, changes) for case in every)


def _with(case: ReferenceCase, changes: Changes) -> ReferenceCase:
    wanted = {**changes.get(EVERY, {}), **changes.get(case.id, {})}
    mine = {name: value for name, value in wanted.items() if name in case.inputs}
    return replace(case, inputs={**case.inputs, **mine}) if mine else case


def _number(where: str, value: object) -> float:
    try:
        number = float(str(value).replace("_", ""))
    except ValueError:
        number = float("nan")
    if isinstance(value, bool) or not isfinite(number):
        raise FileError(f"{where}: {value!r} is no finite number")
    return number


def _near(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.3)
    return f" Did you mean {near[0]}?" if near else f" There are {', '.join(names[:12])}."
