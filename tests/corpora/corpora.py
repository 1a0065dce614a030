"""The corpora of this repository by name."""

from corpus import Corpus
from drawn import hold_chunks, hold_kinds, hold_steps
from enlarged import CASES as ENLARGED
from enlarged import hold_enlarged
from enlarged import kind_of as kind_of_knob
from faulty import CASES, hold_fault
from hostile import SIZE as HOSTILE
from hostile import hold_hostile
from killed import CASES as KILLED
from killed import hold_killed
from malformed import SIZE, hold_malformed
from mutated import CASES as MUTATED
from mutated import hold_mutated
from mutated import kind as kind_of_mutation
from placed import hold_catalog, hold_optimum, programs, quick
from remapped import SIZE as REMAPPED
from remapped import hold_remap
from renumbered import SIZE as RENUMBERED
from renumbered import hold_numbering
from reworded import SIZE as REWORDED
from reworded import hold_reworded
from reworded import kind as kind_of_rewriting

CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus(name="steps of drawn models", size=300, hold=hold_steps),
        Corpus(name="steps of drawn kinds", size=300, hold=hold_kinds),
        Corpus(name="chunks of drawn models", size=150, hold=hold_chunks),
        Corpus(name="seeded faults", size=CASES, hold=hold_fault, good=("caught",), least=0.5),
        Corpus(
            name="mutated programs",
            size=MUTATED,
            hold=hold_mutated,
            good=("both", "proof alone", "check alone"),
            least=0.6,
            kind=kind_of_mutation,
        ),
        Corpus(
            name="reworded programs",
            size=REWORDED,
            hold=hold_reworded,
            least=0.5,
            kind=kind_of_rewriting,
        ),
        Corpus(name="hostile folders", size=HOSTILE, hold=hold_hostile, good=("refused",), least=0.7),
        Corpus(name="optima of drawn placements", size=1000, hold=hold_optimum, least=0.6),
        Corpus(name="killed writers", size=KILLED, hold=hold_killed),
        Corpus(name="remaps of the 70B", size=REMAPPED, hold=hold_remap),
        Corpus(name="racks numbered anew", size=RENUMBERED, hold=hold_numbering),
        Corpus(name="enlarged machines", size=len(ENLARGED), hold=hold_enlarged, kind=kind_of_knob),
        Corpus(name="malformed inputs", size=SIZE, hold=hold_malformed, good=("refused",), least=0.8),
        Corpus(
            name="programs of the catalog", size=len(programs()), hold=hold_catalog, least=0.5, quick=quick
        ),
    )
}
