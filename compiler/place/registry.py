"""Strategies by name: ours, installed ones (entry point group `lpu.placement`), `package.module:function`."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import CompileError, OptionError
from compiler.options import STRATEGIES
from compiler.place.cost import CostModel, Strategy
from compiler.place.problem import Placement, PlacementError, Shards, checked
from fabric.rack import Rack

GROUP = "lpu.placement"
BUDGET = 20_000  # evaluations of a search that nobody gave a budget


def strategy(name: str) -> Strategy:
    """The strategy of that name. Raises OptionError if there is none or it cannot be imported."""
    if name in STRATEGIES:
        return import_module(f"compiler.place.strategies.{name.replace('-', '_')}").place
    if ":" in name:
        module, _, attribute = name.partition(":")
        if str(Path.cwd()) not in sys.path:  # as for models of the user's own
            sys.path.append(str(Path.cwd()))
        load: Callable[[], Any] = lambda: getattr(import_module(module), attribute)
    else:
        named = [point for point in entry_points(group=GROUP) if point.name == name]
        if not named:
            raise unknown(name)
        load = named[0].load
    try:
        found = load()
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(
            "options",
            f"placement {name}",
            f"cannot be imported ({error})",
            "Give package.module:function, importable from here.",
        ) from None
    if not callable(found):
        raise OptionError(
            "options",
            f"placement {name}",
            f"is a {type(found).__name__}, must be a function (shards, rack, cost, seed, budget)",
            "Name a function.",
        )
    return found  # pyright: ignore[reportReturnType]


def unknown(name: str) -> OptionError:
    """The error for a name that nothing has."""
    others = [point.name for point in entry_points(group=GROUP)]
    return OptionError(
        "options",
        f"placement '{name}'",
        "is unknown",
        f"Choose one of {', '.join([*STRATEGIES, *others])}, or package.module:function.",
    )


def search(
    name: str, shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int, twice: bool = True
) -> Placement:
    """The placement that a strategy gives, checked; one that is not ours is asked twice and must not change.

    Raises OptionError, PlacementError or CapacityError.
    """
    place = strategy(name)
    found = _asked(place, name, shards, rack, cost, seed, budget)
    if name not in STRATEGIES and twice:
        again = _asked(place, name, shards, rack, CostModel(shards, rack, cost.alpha), seed, budget)
        if not np.array_equal(found, again):
            moved = int((found != again).sum())
            raise PlacementError(
                "place",
                name,
                f"gave two placements for seed {seed}: {moved} of {found.size} shards differ",
                "Draw from a generator made of the seed, and iterate no sets.",
            )
    return found


def _asked(
    place: Strategy, name: str, shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int
) -> Placement:
    try:
        found = place(shards, rack, cost, seed, budget)
    except CompileError:
        raise
    except Exception as error:
        if name in STRATEGIES:
            raise
        raise PlacementError(
            "place", name, f"failed with {type(error).__name__}: {error}", "Fix the strategy."
        ) from error
    return checked(shards, rack.chips, found, name)
