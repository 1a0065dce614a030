"""From one step to another by steps that are compiled again, with one more fact of the other in each."""

from compiler.program.program import Program
from lpu.diff.again import CannotRepeatError, mixed
from lpu.diff.side import REMAPPED, Side, of_program, remapped_from
from lpu.folder import Progress

Leg = tuple[tuple[str, ...], Side, Side]


def legs_between(
    a: Side, b: Side, first: Program, last: Program, facts: list[str], progress: Progress
) -> tuple[list[Leg], int]:
    """Steps from a to b, one more fact of b in each, and the cycles by which compiling again misses a and b.

    Facts that cannot be taken alone, as where the model does not fit, are taken together.
    """
    contexts = a.context, b.context
    taken: list[str] = []
    pending: list[str] = []
    legs: list[Leg] = []
    progress("diff", 0, len(facts) + 1)
    start = before = _again(first, last, taken, contexts)
    facts = [fact for fact in facts if fact != REMAPPED]
    for i, fact in enumerate(facts, 1):
        progress(f"diff {fact}", i, len(facts) + 1)
        pending.append(fact)
        try:
            after = _again(first, last, [*taken, *pending], contexts)
        except CannotRepeatError:
            if i == len(facts):
                raise
            continue
        legs.append((tuple(pending), before, after))
        taken, pending, before = taken + pending, [], after
    rest = 0
    for side, again, leg in ((a, start, (a, start)), (b, before, (before, b))):
        if _kept(side, again):
            legs.append(((REMAPPED,), *leg))
        else:
            rest += leg[1].cycles - leg[0].cycles
    return legs, rest


def _kept(side: Side, again: Side) -> bool:
    """Whether a side is a program of `lpu remap`, which compiling anew does not give, of this version."""
    assert side.program is not None
    assert again.program is not None
    versions = side.program.manifest.versions == again.program.manifest.versions
    return versions and bool(remapped_from(side.program.manifest))


def _again(first: Program, last: Program, taken: list[str], contexts: tuple[int, int]) -> Side:
    made = mixed(first.manifest, last.manifest, taken, contexts)
    return of_program("again", made, made.manifest.contexts[0])
