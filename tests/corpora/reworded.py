"""Programs rewritten so that they mean the same: whatever the checker accepts, the proof accepts too."""

from executed import played
from rewrites import REWRITES, rewritten
from subjects import DECODE, NAMES, before, subject

from lpu.check.check import check
from lpu.prove.prove import prove

OTHERS = ("moves", "waves", "hops", "switch")
OF_STEPS = [which for which, (name, _) in enumerate(NAMES) if name not in OTHERS]
SIZE, RUN = 60 * len(OF_STEPS), 40  # every so many cases are run, too
TRIES = 20


def hold_reworded(case: int) -> str:
    """ "held", or "illegal" if no draw of the case makes a program that the checker accepts."""
    which, seed = OF_STEPS[case % len(OF_STEPS)], case // len(OF_STEPS)
    of = subject(which)
    for i in range(TRIES):
        made = rewritten(of.program, seed + 24_000 * (TRIES * which + i))
        if made is None:
            continue
        kind, program = made
        if all(check(program, context).ok for context in program.manifest.contexts):
            found = prove(program)
            assert found.ok, f"{kind} of {of.name}, {of.role}: {found.reason}"
            if case % RUN == 0 and of.role == DECODE:
                assert played(program, of.weights) == before(which), f"{kind}: other bits"
            return "held"
    return "illegal"


def kind(case: int) -> str:
    """How it is rewritten, for the table."""
    return tuple(REWRITES)[case // len(OF_STEPS) % len(REWRITES)]
