"""Programs rewritten so that they mean the same: whatever the checker accepts, the proof accepts too."""

from executed import played
from mutated import Subject, before, subjects
from rewrites import REWRITES, rewritten

from compiler.program.manifest import Step
from lpu.check.check import check
from lpu.prove.prove import prove

SIZE, RUN = 1600, 40  # every so many cases are run, too
TRIES = 20


def _of_steps() -> list[tuple[int, Subject]]:
    return [(i, one) for i, one in enumerate(subjects()) if isinstance(one.program.manifest.body, Step)]


def hold_reworded(case: int) -> str:
    """ "held", or "illegal" if no draw of the case makes a program that the checker accepts."""
    some = _of_steps()
    which, subject = some[case % len(some)]
    seed = case // len(some)
    for i in range(TRIES):
        made = rewritten(subject.program, seed + 24_000 * (TRIES * which + i))
        if made is None:
            continue
        kind, program = made
        if all(check(program, context).ok for context in program.manifest.contexts):
            found = prove(program)
            assert found.ok, f"{kind} of {subject.name}, {subject.role}: {found.reason}"
            if case % RUN == 0 and subject.role == "decode":
                assert played(program, subject.weights) == before(which), f"{kind}: other bits"
            return "held"
    return "illegal"


def kind(case: int) -> str:
    """How it is rewritten, for the table."""
    return tuple(REWRITES)[case // len(_of_steps()) % len(REWRITES)]
