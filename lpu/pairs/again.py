"""A report made again, of other values: `lpu afd` or `lpu replay` asked once more."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from compiler.errors import CompileError
from compiler.options import CompileOptions
from lpu.afd.ask import afd
from lpu.afd.options import Gpus, Wanted
from lpu.afd.registry import MODES
from lpu.check.findings import HazardError
from lpu.diff.again import CannotRepeatError
from lpu.gpu.request import Request
from lpu.inputs.document import FileError
from lpu.keywords import OF_A_MODEL
from lpu.pairs.read import timed
from lpu.pairs.times import TimedReport
from lpu.traffic.asked import DRAWN, drawn_again
from lpu.traffic.options import ReplayOptions, TrafficGpus
from lpu.traffic.replay import replay

T = TypeVar("T")
FACTORY = ":"  # in the name of a module of the user's own, whose code would be imported
KEPT = ("trace.sha256", "gpu.sha256", "model.sha256")  # what a name has to stand for still


def asked_again(asked: Mapping[str, Any], kind: str) -> TimedReport:
    """The report of such values. Raises CannotRepeatError."""
    for name in ("model", "drafter", "rack", "program"):
        if FACTORY in str(asked.get(name, "")).split(";")[0]:
            raise CannotRepeatError(f"{name}: a module of one's own is not imported again")
    try:
        made = _replay(asked) if kind == "lpu replay" else _afd(asked)
    except (FileError, CompileError, HazardError, ValueError, TypeError, KeyError) as error:
        raise CannotRepeatError(" ".join(str(error).split())) from None
    for key in KEPT:
        if key in asked and made.asked.get(key) != asked[key]:
            raise CannotRepeatError(f"{key.split('.')[0]} is another one now")
    return made


def _afd(asked: Mapping[str, Any]) -> TimedReport:
    name, mode = need(asked, "model"), str(asked["mode"])
    found = afd(
        name,
        picked(Request, asked),
        mode=picked(MODES[mode], asked),
        gpus=picked(Gpus, asked),
        rack=need(asked, "rack"),
        options=picked(CompileOptions, asked),
        wanted=Wanted(check=False),
        **_of_model(asked, ("kv", "context", "weights")),
    )
    return timed(found, "again")


def _replay(asked: Mapping[str, Any]) -> TimedReport:
    drawn = any(key.startswith(DRAWN) for key in asked)
    source = drawn_again(asked) if drawn else need(asked, "trace")
    about: dict[str, Any] = {} if "program" in asked else {"rack": need(asked, "rack"), **_of_model(asked)}
    found = replay(
        source if drawn else Path(str(source)),
        Path(need(asked, "program")) if "program" in asked else need(asked, "model"),
        gpus=picked(TrafficGpus, asked),
        options=picked(CompileOptions, asked),
        asked=picked(ReplayOptions, asked),
        mode=picked(MODES[str(asked["mode"])], asked),
        check=False,
        **about,
    )
    return timed(found, "again")


def _of_model(asked: Mapping[str, Any], names: tuple[str, ...] = OF_A_MODEL) -> dict[str, Any]:
    return {name: asked[name] for name in names if asked.get(name) is not None and name != "trust"}


def need(asked: Mapping[str, Any], name: str) -> str:
    """A name or path; CannotRepeatError where none was given."""
    if not isinstance(asked.get(name), str):
        raise CannotRepeatError(f"{name} has no name")
    return str(asked[name])


def picked(record: type[T], asked: Mapping[str, Any]) -> T:
    """A record of options with the values that are asked for under their names."""
    return record(**{name: asked[name] for name in signature(record).parameters if name in asked})
