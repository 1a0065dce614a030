"""Orders of chips to place on after a fault: the parent's groups, and what takes the place of lost chips."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

from compiler.program.manifest import Manifest
from fabric.faults.living import living_order
from fabric.numbering import numbering
from fabric.paths import hops
from fabric.rack import Rack
from lpu.remap.options import PREFERENCES, Way

Groups = Sequence[Sequence[int]]


def orders(parent: Manifest, rack: Rack, prefer: str) -> Iterator[tuple[Way, list[int]]]:
    """The ways there are, by preference, each with the chips of the rack that work in its order."""
    assert rack.damage is not None
    before = living_order(rack, numbering(rack.damage.whole).chips.tolist())
    whole = all(len(group) == parent.tp for group in parent.groups)
    found: dict[Way, list[int] | None] = {"anew": before}
    if whole and parent.groups:
        found["stay"] = _stay(parent.groups, rack, before)
        found["chips"] = _chips(parent.groups, rack, before)
        found["groups"] = _groups(parent.groups, rack, before, parent.tp)
    for way in PREFERENCES[prefer]:
        order = found.get(way)
        if order is not None:
            yield way, order


def _with_rest(used: Groups, before: Sequence[int]) -> list[int]:
    """The chips of groups in order, then all others as they were."""
    first = [chip for group in used for chip in group]
    taken = set(first)
    return [*first, *(chip for chip in before if chip not in taken)]


def _stay(groups: Groups, rack: Rack, before: Sequence[int]) -> list[int] | None:
    """None if a group has lost a chip."""
    living = set(before)
    if any(chip not in living for group in groups for chip in group):
        return None
    return _with_rest(groups, before)


def _chips(groups: Groups, rack: Rack, before: Sequence[int]) -> list[int] | None:
    """The closest spare chip in the place of each lost one; None if none is lost or too few are free."""
    living, used = set(before), {chip for group in groups for chip in group}
    spare = [chip for chip in before if chip not in used]
    lost = [chip for chip in used if chip not in living]
    if not lost or len(spare) < len(lost):
        return None
    assert rack.damage is not None
    far = hops(rack.damage.whole)
    out: list[list[int]] = []
    for group in groups:
        stay = [chip for chip in group if chip in living]
        mine: list[int] = []
        for chip in group:
            if chip not in living:
                mine.append(spare.pop(_closest(far, spare, stay or list(group))))
            else:
                mine.append(chip)
        out.append(mine)
    return _with_rest(out, before)


def _closest(far: Int[np.ndarray, "chips chips"], spare: Sequence[int], group: Sequence[int]) -> int:
    """The place among spare chips of the one with the fewest hops to a group, the first of equals."""
    costs = [int(far[chip, list(group)].sum()) for chip in spare]
    return costs.index(min(costs))


def _groups(groups: Groups, rack: Rack, before: Sequence[int], tp: int) -> list[int] | None:
    """A spare group in the place of each hurt one, the first that is whole; None if too few are free."""
    assert rack.damage is not None
    hurt = [i for i, group in enumerate(groups) if _is_hurt(group, rack)]
    if not hurt:
        return None
    used = {chip for group in groups for chip in group}
    free = [chip for chip in before if chip not in used]
    spares = [free[at : at + tp] for at in range(0, len(free) - tp + 1, tp)]
    spares = [spare for spare in spares if not _is_hurt(spare, rack)] or spares
    if len(spares) < len(hurt):
        return None
    out = [list(group) for group in groups]
    for i, spare in zip(hurt, spares, strict=False):
        out[i] = spare
    return _with_rest(out, before)


def _is_hurt(group: Sequence[int], rack: Rack) -> bool:
    """Whether a group has a lost chip, bad words, or a broken link or lane between its chips."""
    assert rack.damage is not None
    inside = set(group)
    if inside & {*rack.damage.lost, *(words.chip for words in rack.damage.bad)}:
        return True
    ends = (fault.at[:2] for fault in rack.damage.faults if fault.kind in ("link", "lane"))
    return any(inside.issuperset(pair) for pair in ends)
