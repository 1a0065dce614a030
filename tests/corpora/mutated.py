"""Mutated programs of every kind: the checker or the proof catches each, or it computes the same bits."""

from mutations import kind_of, mutated
from subjects import NAMES, before, subject

CASES = 300 * len(NAMES)
TRIES, APART = 20, 65_000  # draws until one can be made, and the seeds between them: of one kind


def hold_mutated(case: int) -> str:
    """Who catches a mutation: both, one alone, or nobody, as it changes no bit; "none" if none can be made.

    Raises AssertionError for one that nothing notices.
    """
    which, seed = case % len(NAMES), case // len(NAMES)
    of = subject(which)
    tries = (seed + APART * (TRIES * which + i) for i in range(TRIES))
    made = next((found for one in tries if (found := mutated(of.program, one)) is not None), None)
    if made is None:
        return "none"
    kind, program = made
    proved, legal = of.proved(program), of.legal(program)
    if not proved or not legal:
        return "both" if not proved and not legal else "proof alone" if legal else "check alone"
    try:
        found = of.computed(program)
    except Exception as error:
        raise AssertionError(f"{kind} of {of.name}: unnoticed, and its run fails: {error}") from error
    assert found == before(which), f"{kind} of {of.name}, {of.role}: unnoticed, and other bits"
    return "harmless"


def kind(case: int) -> str:
    """The folder and what is changed, for the table."""
    return f"{NAMES[case % len(NAMES)][0]}: {kind_of(case // len(NAMES))}"
