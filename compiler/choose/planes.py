"""Numbers in use: of what somebody stated for a chip, a program may leave some idle.

The planes of a chip share the bandwidth at which it installs tiles (docs/timing.md): more of them take up
more tiles at once, and each tile for longer. A small model has too few tiles to gain by that. More chains,
accumulators or ports change the order in which rows find a unit free, and a list schedule is no better for
every choice that it has. A program that leaves some idle is one of a chip without them, as its manifest says;
so more never make a step longer.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from compiler.errors import CompileError
from compiler.scheduled import Scheduled
from fabric.catalog import chip_names, chip_spec
from fabric.chip import ChipSpec
from fabric.rack import Rack

EVERY = 16  # this many planes and fewer are all tried; of more the powers of two
MOST_ROWS = 20_000  # of all templates: larger programs have work for every unit, and take long
OTHERS = ("vxm_chains", "accumulators", "activation_ports")


def shortest(rack: Rack, schedule: Callable[[Rack], Scheduled]) -> Scheduled:
    """What `schedule` makes for the rack, or for its chips with fewer units in use where that is shorter.

    Every smaller number of planes is tried; of the others smaller and smaller ones until one is longer.
    """
    best = schedule(rack)
    if _rows(best) > MOST_ROWS:
        return best
    for number in ("planes", *OTHERS):
        if not is_stated(rack.chip, number):
            continue
        for chip in _with_fewer(rack.chip, best.plan.chip, number):
            try:
                found = schedule(replace(rack, chip=chip))
            except CompileError:
                continue
            if length(found) < length(best):
                best = found
            elif number in OTHERS and length(found) > length(best):
                break
    return best


def is_stated(chip: ChipSpec, number: str) -> bool:
    """Whether a number of a chip is stated by a file or a sweep, and not by the catalog."""
    if chip.name not in chip_names():
        return True
    mine, known = ([s for s in one.sources if s.field == number] for one in (chip, chip_spec(chip.name)))
    return mine != known


def _with_fewer(stated: ChipSpec, chip: ChipSpec, number: str) -> Iterator[ChipSpec]:
    """The chip with fewer of what is stated, the most first."""
    most = getattr(stated, number)
    powers = [1 << i for i in range(most.bit_length())]
    every = range(1, min(most, EVERY + 1)) if number == "planes" else (max(most - 1, 1),)
    for count in sorted({*every, *powers} - {most}, reverse=True):
        reason = f"{most} are stated, {count} in use: so a step is shorter"
        yield chip.with_numbers(reason, **{number: count})


def _rows(scheduled: Scheduled) -> int:
    return sum(len(rows) for made in scheduled.templates for rows in made.columns.values())


def length(scheduled: Scheduled) -> int:
    """Cycles of a step of the largest context, or from one wave to the next."""
    waves, context = scheduled.waves, max(scheduled.plan.contexts)
    return scheduled.cycles if waves is None else waves.interval[context]
