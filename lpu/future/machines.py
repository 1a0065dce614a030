"""The speculative machines by name, from machines.yaml."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from lpu.inputs.document import FileError, parse, read_document

FILE = Path(__file__).parent / "machines.yaml"
OPTICS_PJ_PER_BIT = (5.0, 10.0, 20.0)
"""Both ends of an optical link, low, mid, high. Assumed: light beside the die, linear and retimed modules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FutureMachine:
    """One machine. rack: of the catalog. bridge: of the catalog, to GPUs; then mode afd is timed.

    optical: levels of the rack whose links are light. refuses: what the machine model does not hold.
    """

    name: str
    rack: str
    changes: str
    source: str
    refuses: list[str]
    bridge: str | None = None
    optical: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    machines: list[FutureMachine]


@cache
def machines() -> dict[str, FutureMachine]:
    """All of them, by name, in the order of the file."""
    return {one.name: one for one in parse(_File, read_document(FILE)).machines}


def machine(name: str) -> FutureMachine:
    """One of them. Raises FileError with the closest name."""
    if name not in machines():
        near = get_close_matches(name, machines(), n=1, cutoff=0.0)[0]
        known = ", ".join(machines())
        raise FileError(f"sweep: there is no machine {name!r}. Did you mean {near}? There are {known}.")
    return machines()[name]
