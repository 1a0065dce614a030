"""When the model no longer fits: fewer users, a shorter context, another tp, by a stated preference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from compiler.errors import CapacityError
from compiler.options import CompileOptions
from compiler.program.manifest import Manifest
from compiler.program.program import Program

MOST_TRIED = 4  # tp that are no powers of two
GRAIN = 64  # tokens to which a shorter context is found
Pair = tuple[Program, Program | None]
Make = Callable[[Manifest, CompileOptions], Pair]
"""Compiles the model that a manifest names, for its rows, sequences and contexts, on what is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """What was given up, in words, and what was tried before it in vain."""

    name: str
    what: str
    refused: tuple[str, ...]


def degraded(
    parent: Manifest, options: CompileOptions, rungs: Sequence[str], make: Make, first: CapacityError
) -> tuple[Rung, Pair]:
    """The first rung on which the model fits. Raises the first CapacityError, and why no rung helps."""
    refused: list[str] = []
    for rung in rungs:
        try:
            what, made = _RUNGS[rung](parent, options, make)
        except CapacityError as error:
            refused.append(f"{rung}: {' '.join(error.reason.split())}")
            options = replace(options, users=None) if rung == "users" else options  # given up all the same
            continue
        return Rung(name=rung, what=what, refused=tuple(refused)), made
    tried = f" Tried in vain: {'; '.join(refused)}." if refused else " Nothing may be given up."
    error = CapacityError(first.stage, first.subject, first.reason, f"{first.remedy}{tried}")
    error.chips = first.chips
    raise error


def _users(parent: Manifest, options: CompileOptions, make: Make) -> tuple[str, Pair]:
    """As many users as fit; of a program that runs one step at a time, half the batch, and half of that."""
    if parent.waves is not None:
        made = make(parent, replace(options, users=None))
        waves = made[0].manifest.waves
        assert waves is not None
        return f"{waves.users} instead of {parent.waves.users} groups of users", made
    batch = parent.sequences // 2
    while batch >= 1:
        try:
            made = make(replace(parent, rows=batch, sequences=batch), options)
            return f"a batch of {batch} instead of {parent.sequences}", made
        except CapacityError as error:
            if batch == 1:
                raise error from None
        batch //= 2
    needs = "is 1 sequence at a time already"
    raise CapacityError("remap", "users", needs, "Give up something else.")


def _context(parent: Manifest, options: CompileOptions, make: Make) -> tuple[str, Pair]:
    """The longest context that fits, in steps of GRAIN tokens, and the buckets below it."""
    low, high = 0, parent.longest
    best: Pair | None = None
    last: CapacityError | None = None
    while high - low > max(GRAIN, parent.longest // 64):
        middle = max((low + high) // 2 // GRAIN * GRAIN, 1)
        if middle in (low, high):
            break
        try:
            best, low = make(replace(parent, contexts=_below(parent, middle)), options), middle
        except CapacityError as error:
            last, high = error, middle
    if best is None:
        reason = "is the shortest context already" if last is None else last.reason
        raise CapacityError("remap", f"context {parent.longest}", reason, "Give up something else.")
    return f"context {low} instead of {parent.longest}", best


def _below(parent: Manifest, longest: int) -> tuple[int, ...]:
    return (*(one for one in parent.contexts if one < longest), longest)


def _tp(parent: Manifest, options: CompileOptions, make: Make) -> tuple[str, Pair]:
    """Groups of another size: the search of the compiler, else one group of fewer chips."""
    asked = replace(options, tp=None, pp=None, cp=None)
    try:
        made = make(parent, asked)
    except CapacityError as error:
        fewer = [tp for tp in range(parent.tp - 1, 1, -1) if tp & (tp - 1)][:MOST_TRIED]
        made = _first(parent, asked, fewer, make, error)
    return f"tp {made[0].manifest.tp} instead of {parent.tp}", made


def _first(
    parent: Manifest, options: CompileOptions, sizes: Sequence[int], make: Make, error: CapacityError
) -> Pair:
    """The first of these tp that fits. Raises `error` if none does."""
    for tp in sizes:
        try:
            return make(parent, replace(options, tp=tp))
        except CapacityError:
            continue
    raise error


_RUNGS = {"users": _users, "context": _context, "tp": _tp}
