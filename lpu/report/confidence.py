"""Which of a machine's numbers are measured, modelled or assumed: the words that every report uses."""

from collections.abc import Sequence

from fabric.chip import Sourced

ASSUMED = ("assumed", "R")
DERIVED = ("D",)


def by_confidence(sources: Sequence[Sourced]) -> dict[str, list[str]]:
    """Names of the numbers by `published` (vendor text or a reading of it), `derived` and `assumed`."""
    out: dict[str, list[str]] = {"published": [], "derived": [], "assumed": []}
    for one in sources:
        kind = (
            "assumed"
            if one.confidence in ASSUMED
            else "derived"
            if one.confidence in DERIVED
            else "published"
        )
        out[kind].append(one.field)
    return out


def confidence_line(sources: Sequence[Sourced]) -> str:
    """One line: what is modelled, and which of the numbers under it are assumed or derived."""
    found = by_confidence(sources)
    parts = ["cycles are modelled, nothing is measured"]
    parts += [f"{kind}: {', '.join(found[kind])}" for kind in ("assumed", "derived") if found[kind]]
    return "; ".join(parts)
