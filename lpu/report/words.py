"""Words of reports: numbers as a person reads them, and how the numbers of a machine are known."""

from collections.abc import Sequence
from typing import Literal

from fabric.chip import Sourced
from lpu.screen import plain

EXACT: Literal["exact for the stated machine"] = "exact for the stated machine"
PROJECTION = "projection"
SPECULATIVE = ("lp35", "lp35-4bit", "lp40")
"""Chips of which no number is published."""

MEASURED = ("groqchip1",)
"""Chips of which measurements are public: `lpu validate` holds its cases against them."""

CAUTION_FACTOR = 2.4
"""Tokens/s of Llama-2-70B on 576 GroqChip1 by the hardware alone, over the 300 that were served. Held by
`lpu validate --suite served`; docs/validation.md."""

ASSUMED = ("assumed", "R")
DERIVED = ("D",)


def label_of(chip: str) -> str | None:
    """`projection` for figures of a chip of which no measurement is public, `speculative` if no number is."""
    if chip in MEASURED:
        return None
    return f"speculative {PROJECTION}" if chip in SPECULATIVE else PROJECTION


def kind(chip: str) -> str:
    """Of what kind cycles on a chip are, with the label on top."""
    label = label_of(chip)
    return EXACT if label is None else f"{label}, {EXACT}"


def caution(chip: str) -> str | None:
    """What a result of a chip without public measurements is to be read with."""
    return caution_of(label_of(chip))


def caution_of(label: str | None) -> str | None:
    """The same of a figure with such a label on top, None for one that has none."""
    if label is None:
        return None
    return f"served systems of the older chip took {CAUTION_FACTOR:g} x what this arithmetic gives for them"


def percent(share: float) -> str:
    """A share as percent, two digits where it is small."""
    return f"{100 * share:.1f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def size(count: int) -> str:
    """Bytes in the largest decimal unit that they fill."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def by_confidence(sources: Sequence[Sourced]) -> dict[str, list[str]]:
    """Names of the numbers by `published` (vendor text or a reading of it), `derived` and `assumed`."""
    out: dict[str, list[str]] = {"published": [], "derived": [], "assumed": []}
    for one in sources:
        out[kind_of(one)].append(one.field)
    return out


def kind_of(source: Sourced) -> str:
    """How a number is known: published, derived or assumed."""
    if source.confidence in ASSUMED:
        return "assumed"
    return "derived" if source.confidence in DERIVED else "published"


def confidence_line(sources: Sequence[Sourced]) -> str:
    """One line: of what kind cycles are, and which of the numbers under them are assumed or derived."""
    found = by_confidence(sources)
    parts = [f"cycles are {EXACT}, nothing is measured"]
    for kind in ("assumed", "derived"):
        if found[kind]:
            parts.append(f"{kind}: {', '.join(plain(name, 40) for name in found[kind])}")
    return "; ".join(parts)
