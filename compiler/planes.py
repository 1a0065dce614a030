"""Planes in use: of the planes that somebody stated for a chip, a program may leave some idle.

The planes of a chip share the bandwidth at which it installs tiles (docs/timing.md): more of them take up
more tiles at once, and each tile for longer. A small model has too few tiles to gain by that. A program that
leaves planes idle is one of a chip without them, as its manifest says; so more never make a step longer.
"""

from collections.abc import Callable
from dataclasses import replace

from compiler.errors import CompileError
from compiler.scheduled import Scheduled
from fabric.catalog import chip_names, chip_spec
from fabric.chip import ChipSpec
from fabric.rack import Rack

EVERY = 16  # so many planes and fewer are all tried; of more the powers of two
MOST_ROWS = 20_000  # of all templates: larger programs have tiles for every plane, and take long


def shortest(rack: Rack, schedule: Callable[[Rack], Scheduled]) -> Scheduled:
    """What `schedule` makes for the rack, or for its chips with fewer planes in use where that is shorter."""
    best = schedule(rack)
    if not are_stated(rack.chip) or _rows(best) > MOST_ROWS:
        return best
    for planes in _fewer(rack.chip.planes):
        reason = f"{rack.chip.planes} are stated, {planes} in use: so a step is shorter"
        try:
            found = schedule(replace(rack, chip=rack.chip.with_numbers(reason, planes=planes)))
        except CompileError:
            continue
        if _length(found) < _length(best):
            best = found
    return best


def are_stated(chip: ChipSpec) -> bool:
    """Whether the planes of a chip are stated by a file or a sweep, and not by the catalog."""
    if chip.name not in chip_names():
        return True
    mine, known = ([s for s in one.sources if s.field == "planes"] for one in (chip, chip_spec(chip.name)))
    return mine != known


def _fewer(planes: int) -> list[int]:
    powers = [1 << i for i in range(planes.bit_length())]
    return sorted({*range(1, min(planes, EVERY + 1)), *powers} - {planes}, reverse=True)


def _rows(scheduled: Scheduled) -> int:
    return sum(len(rows) for made in scheduled.templates for rows in made.columns.values())


def _length(scheduled: Scheduled) -> int:
    """Cycles of a step of the largest context, or from one wave to the next."""
    waves, context = scheduled.waves, max(scheduled.plan.contexts)
    return scheduled.cycles if waves is None else waves.interval[context]
