"""Why a value is not the model's: the first part of it that the model does not have, and its row."""

from compiler.program.instruction_set import name_of
from lpu.prove.follow.step_proof import StepProof


def foreign(step: StepProof, term: int, ours: int, where: str) -> str:
    """Where a term leaves the model: `ours` terms are the model's own, all others are the program's."""
    terms, names = step.known.terms, {}
    if term < ours:
        return f"{where} holds {step.model.places.get(term, terms.show(term, names))}"
    found = _first(step, term, ours)
    near = _near(step, found)
    made = step.origin(found)
    by = ""
    if made is not None:
        call = step.program.calls[made.call]
        by = f", made in {call.name}"
        if made.row >= 0:
            op = int(step.program.blocks[call.block].columns[step.context].op[made.row])
            by += f" by row {made.row} of its block ({name_of(op)})"
    return f"{where}: {terms.show(found, names)} is not in the model{near}{by}"


def _first(step: StepProof, term: int, ours: int) -> int:
    """The deepest foreign term: all that it is made of is the model's."""
    while True:
        inner = [one for one in step.known.terms.all[term].operands if one >= ours]
        if not inner:
            return term
        term = inner[0]


def _near(step: StepProof, term: int) -> str:
    """What the model makes of the same value or with the same tensor."""
    terms = step.known.terms
    op, operands, _, _, _ = terms.all[term]
    best, most = -1, 0
    for other in step.model.places:
        theirs = terms.all[other]
        shared = len({*theirs.operands} & {*operands}) + (theirs.op == op)
        if shared > most:
            best, most = other, shared
    if best < 0:
        return ""
    return f" (it has {terms.show(best, {})} in {step.model.places[best]})"
