"""Extensions: modules from outside that register ops, model families or other records on import.

Only what the user named is imported: packages that were installed with an entry point of the group
`lpu.extensions`, and the modules of `LPU_EXTEND` (separated by commas), which `lpu --extend` sets so that
child processes import them too.
"""

import functools
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

GROUP = "lpu.extensions"
VARIABLE = "LPU_EXTEND"


class ExtensionError(ValueError):
    """An extension that cannot be imported: the message names it and says how to go on without it."""

    exit_code = 2


def extend(module: str) -> None:
    """Name one more module, for this process and its children; `load_extensions` imports it."""
    os.environ[VARIABLE] = ",".join(dict.fromkeys((*_named(), module)))


def load_extensions() -> None:
    """Import each extension once per process: installed ones in order of name, then named ones."""
    for point in _installed():
        _load(point)
    for module in _named():
        _import(module)


@functools.cache
def _installed() -> tuple[EntryPoint, ...]:
    """The entry points of the group in order of name."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)))


def _named() -> list[str]:
    return [name for part in os.environ.get(VARIABLE, "").split(",") if (name := part.strip())]


@functools.cache
def _load(point: EntryPoint) -> None:
    package = point.dist.name if point.dist else "an installed package"
    _guarded(point.load, f"{point.name} of {package} ({point.value})", f"Mend or uninstall {package}.")


@functools.cache
def _import(module: str) -> None:
    if str(Path.cwd()) not in sys.path:  # as for models and strategies of the user's own
        sys.path.append(str(Path.cwd()))
    _guarded(lambda: import_module(module), module, f"Mend it, or leave it out of --extend and {VARIABLE}.")


def _guarded(load: Callable[[], Any], name: str, remedy: str) -> None:
    try:
        load()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ExtensionError(
            f"extension {name}: importing it raised {type(error).__name__}: {reason}. {remedy}"
        ) from error
