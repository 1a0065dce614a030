"""The rack that faults leave: chips keep their numbers; broken links, lanes and words are gone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Int

from fabric.faults.fault import BadWords, Fault, FaultError
from fabric.link import Links, Wire, directed
from fabric.rack import Damage, Rack


def break_rack(rack: Rack, faults: Sequence[Fault]) -> Rack:
    """The rack without its broken parts, which it names; faults that it has already are kept.

    Raises FaultError for a part that the rack does not have, one that is given twice or lies in another.
    """
    whole = rack if rack.damage is None else rack.damage.whole
    before = () if rack.damage is None else rack.damage.faults
    for fault in faults:
        _check_there(whole, fault)
    _check_once(whole, faults)
    again = [one for one in faults if any(_covers(whole, old, one) for old in before)]
    if again:
        raise FaultError(f"faults: {again[0]}: is broken already. Leave it out.")
    kept = [old for old in before if not any(_covers(whole, one, old) for one in faults)]
    every = (*kept, *faults)
    if not every:
        return rack
    dead = np.zeros(whole.chips, bool)
    dead[[chip for fault in every for chip in _chips(whole, fault)]] = True
    if dead.all():
        raise FaultError(f"faults: leave 0 of the {whole.chips} chips of {whole.name}. Give fewer.")
    links = _links(whole, every, dead)
    cut = _cut_off(links, dead)
    gone = dead | cut
    damage = Damage(
        faults=every,
        dead=tuple(np.flatnonzero(dead).tolist()),
        cut=tuple(np.flatnonzero(cut).tolist()),
        bad=tuple(words for words in _bad(every) if not gone[words.chip]),
        whole=whole,
    )
    return replace(whole, links=links, damage=damage)


def avoiding(rack: Rack) -> Rack:
    """The same rack, its chips with bad words left out as well."""
    assert rack.damage is not None
    avoided = tuple(sorted({*rack.damage.avoided, *(words.chip for words in rack.damage.bad)}))
    return replace(rack, damage=replace(rack.damage, avoided=avoided, bad=()))


def trays(rack: Rack) -> tuple[tuple[int, ...], ...]:
    """The chips of each tray: of each group of the innermost level; none of a rack without levels."""
    return rack.levels[0].groups if rack.levels and rack.levels[0].kind != "links" else ()


def _chips(rack: Rack, fault: Fault) -> tuple[int, ...]:
    """The chips that a fault takes whole."""
    if fault.kind == "tray":
        return trays(rack)[fault.at[0]]
    return fault.at if fault.kind == "chip" else ()


def _check_there(rack: Rack, fault: Fault) -> None:
    """Raise FaultError for a part that the rack does not have."""

    def need(number: int, count: int, what: str) -> None:
        if number >= count:
            raise FaultError(f"faults: {fault}: {rack.name} has {what}{count - 1}. Give one of those.")

    if fault.kind == "tray":
        count = len(trays(rack))
        if not count:
            raise FaultError(f"faults: {fault}: {rack.name} has no trays, it lists links. Name its chips.")
        need(fault.at[0], count, "trays 0 to ")
        return
    for chip in fault.at[: 2 if fault.kind in ("link", "lane") else 1]:
        need(chip, rack.chips, "chips 0 to ")
    if fault.kind in ("link", "lane"):
        row = rack.link(*fault.at[:2])
        if row < 0:
            near = " ".join(map(str, rack.neighbours(fault.at[0])[:12].tolist()))
            raise FaultError(
                f"faults: {fault}: {rack.name} has no link there. Chip {fault.at[0]} has links to {near}."
            )
        if fault.kind == "lane":
            need(fault.at[2], int(rack.links.lanes[row]), "there lanes 0 to ")
    if fault.kind == "sram":
        _, first, words = fault.at
        if words < 1 or first + words > rack.chip.sram_words:
            raise FaultError(
                f"faults: {fault}: is words {first} to {first + words - 1}, a chip has words 0 to "
                f"{rack.chip.sram_words - 1}. Give words of the chip."
            )


def _check_once(rack: Rack, faults: Sequence[Fault]) -> None:
    """Raise FaultError for a part that is given twice, or as a part of another."""
    for one, other in combinations(faults, 2):
        if one == other:
            raise FaultError(f"faults: {one}: is given twice. Leave one out.")
        for outer, inner in ((one, other), (other, one)):
            if _covers(rack, outer, inner):
                raise FaultError(f"faults: {inner}: lies in {outer}, which is given too. Leave it out.")
        if one.kind == other.kind == "sram" and _share(one, other):
            raise FaultError(f"faults: {one} and {other}: share words. Give them as one.")


def _share(one: Fault, other: Fault) -> bool:
    (a, first, words), (b, begin, more) = one.at, other.at
    return a == b and first < begin + more and begin < first + words


def _covers(rack: Rack, outer: Fault, inner: Fault) -> bool:
    """Whether a part lies in another, or is the same."""
    if outer == inner:
        return True
    taken = _chips(rack, outer)
    if taken:
        ends = _chips(rack, inner) or inner.at[: 2 if inner.kind in ("link", "lane") else 1]
        every = inner.kind in ("tray", "chip")
        return all(chip in taken for chip in ends) if every else any(chip in taken for chip in ends)
    if outer.kind == "link":
        return inner.kind == "lane" and inner.at[:2] == outer.at
    if outer.kind == inner.kind == "sram":
        (a, first, words), (b, begin, more) = outer.at, inner.at
        return a == b and first <= begin and begin + more <= first + words
    return False


def _links(rack: Rack, faults: Sequence[Fault], dead: Bool[np.ndarray, " chips"]) -> Links:
    """The links between living chips, of the lanes that work; none of a cable without lanes."""
    links = rack.links
    lanes = links.lanes.copy()
    for fault in faults:
        if fault.kind in ("link", "lane"):
            for row in (rack.link(*fault.at[:2]), rack.link(fault.at[1], fault.at[0])):
                lanes[row] -= lanes[row] if fault.kind == "link" else 1
    keep = (lanes > 0) & ~dead[links.a] & ~dead[links.b] & (links.a < links.b)
    columns = (links.a, links.b, lanes, links.hop_cycles, links.slot_cycles, links.level)
    return directed([Wire(*row) for row in np.stack(columns, axis=1)[keep].tolist()], rack.chips)


def _cut_off(links: Links, dead: Bool[np.ndarray, " chips"]) -> Bool[np.ndarray, " chips"]:
    """Living chips outside the largest part that links join, of equal ones the part of the lowest chip."""
    part = _parts(links, dead)
    sizes = np.bincount(part[~dead])
    return ~dead & (part != int(np.argmax(sizes)))


def _parts(links: Links, dead: Bool[np.ndarray, " chips"]) -> Int[np.ndarray, " chips"]:
    """The number of the joined part that each chip is in, -1 of dead ones; numbered by their lowest chips."""
    part = np.full(len(dead), -1)
    for chip in np.flatnonzero(~dead):
        if part[chip] < 0:
            reached = np.zeros(len(dead), bool)
            reached[chip] = True
            count = 0
            while count != (count := int(reached.sum())):
                reached[links.b[reached[links.a]]] = True
            part[reached] = part.max() + 1
    return part


def _bad(faults: Sequence[Fault]) -> Iterator[BadWords]:
    """The bad words of all chips, ascending."""
    ranges = sorted(fault.at for fault in faults if fault.kind == "sram")
    return (BadWords(chip, first, first + words) for chip, first, words in ranges)
