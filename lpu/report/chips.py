"""Chips that a person names: numbers, ranges, or all of them. Nothing heavy is imported here."""

from collections.abc import Sequence

ALL = "all"
Ranges = tuple[tuple[int, int] | str, ...]


class UnknownChipNumberError(ValueError):
    """A chip number outside the rack."""

    exit_code = 2


def chip_ranges(text: str) -> Ranges:
    """`0-15,20` or `all` as ranges of chip numbers. Raises ValueError."""
    out: list[tuple[int, int] | str] = []
    for word in text.split(","):
        first, dash, last = word.strip().partition("-")
        ends = [first, last] if dash else [first, first]
        if word.strip() == ALL:
            out.append(ALL)
        elif all(end.isascii() and end.isdigit() and len(end) < 10 for end in ends):
            out.append((int(ends[0]), int(ends[1])))
        else:
            raise ValueError(
                f"{text[:60]!r} is no list of chips. Give numbers and ranges, as in 0-15,20, or all"
            )
    for one in out:
        if not isinstance(one, str) and one[0] > one[1]:
            raise ValueError(f"{one[0]}-{one[1]} begins after it ends. Give {one[1]}-{one[0]}")
    return tuple(out)


def chosen_chips(asked: Sequence[int] | Ranges, chips: int, rack: str) -> list[int]:
    """The numbers of chips that are named, ascending. Raises UnknownChipNumberError."""
    found: set[int] = set()
    for one in asked:
        if isinstance(one, str):
            found |= set(range(chips))
            continue
        first, last = (one, one) if isinstance(one, int) else one
        for end in (first, last):
            if not 0 <= end < chips:
                raise UnknownChipNumberError(f"trace: chip {end}: {rack} has {chips} chips, numbered from 0.")
        found |= set(range(first, last + 1))
    return sorted(found)
