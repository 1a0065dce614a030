"""Faults: the parts of a rack that no longer work, each by a name of one line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

FaultKind = Literal["chip", "link", "lane", "tray", "sram"]
FORMS = "chip:17, link:3-4, lane:3-4/2, tray:5, sram:17/0x1000+4096 (first word, words of 320 bytes)"
_NUMBER = r"(0x[0-9a-fA-F]{1,12}|\d{1,12})"
_PATTERNS: dict[FaultKind, str] = {
    "chip": _NUMBER,
    "link": f"{_NUMBER}-{_NUMBER}",
    "lane": f"{_NUMBER}-{_NUMBER}/{_NUMBER}",
    "tray": _NUMBER,
    "sram": f"{_NUMBER}/{_NUMBER}\\+{_NUMBER}",
}


class FaultError(ValueError):
    """A fault that cannot be: its name, its number, or beside another one."""

    exit_code = 2


class BadWords(NamedTuple):
    """Words of SRAM of a chip that hold nothing any more: the first one, and the one after the last."""

    chip: int
    first: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One broken part. at: its numbers, in the order in which its name has them.

    chip: one chip, with its SRAM and the ends of its links. link: a cable, both directions. lane: one lane of
    a cable, both directions; the lanes that work are numbered anew. tray: all chips of a group of the
    innermost level. sram: words of a chip that hold nothing any more.
    """

    kind: FaultKind
    at: tuple[int, ...]

    def __str__(self) -> str:
        a, *rest = self.at
        match self.kind:
            case "link":
                return f"link:{a}-{rest[0]}"
            case "lane":
                return f"lane:{a}-{rest[0]}/{rest[1]}"
            case "sram":
                return f"sram:{a}/{rest[0]:#x}+{rest[1]}"
            case _:
                return f"{self.kind}:{a}"


def parse_fault(text: str) -> Fault:
    """The fault of a name; two ends of a cable are the lower first. Raises FaultError."""
    kind, _, rest = text.strip().partition(":")
    if kind not in _PATTERNS:
        raise FaultError(f"faults: {text!r}: names no part. Give one like {FORMS}.")
    found = re.fullmatch(_PATTERNS[kind], rest)
    if found is None:
        raise FaultError(f"faults: {text!r}: is not written as a {kind} is. Give one like {FORMS}.")
    at = tuple(int(word, 0) if word[:2] == "0x" else int(word) for word in found.groups())
    if kind in ("link", "lane") and at[0] > at[1]:
        at = (at[1], at[0], *at[2:])
    return Fault(kind=kind, at=at)


def parse_faults(texts: Sequence[str]) -> tuple[Fault, ...]:
    """The faults of several names, in their order. Raises FaultError."""
    return tuple(parse_fault(text) for text in texts)
