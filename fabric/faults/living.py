"""The chips of a broken rack that work, as a rack of its own that everything can be placed on.

Programs take chips from the front. So trays that lost nothing come first, in their order; what is left of the
others comes last, chips that are close together beside each other, and those with bad words at the very end.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from fabric.faults.broken import trays
from fabric.faults.fault import BadWords
from fabric.link import Wire, directed
from fabric.near import near_order
from fabric.paths import WORDS, hops
from fabric.rack import Rack, RackLevel


def living(rack: Rack, order: Sequence[int]) -> Rack:
    """The rack of these chips, numbered in this order; their trays are its only level.

    order: chips of the rack that work and that links join.
    """
    assert rack.damage is not None
    number = np.full(rack.chips, -1)
    number[list(order)] = np.arange(len(order))
    links = rack.links
    ends = np.stack([number[links.a], number[links.b]])
    keep = (ends >= 0).all(axis=0) & (ends[0] < ends[1])
    columns = (*ends, links.lanes, links.hop_cycles, links.slot_cycles, np.zeros_like(links.a))
    wires = [Wire(*row) for row in np.stack(columns, axis=1)[keep].tolist()]
    groups = trays(rack) or (tuple(range(rack.chips)),)
    there = (tuple(number[list(group)][number[list(group)] >= 0].tolist()) for group in groups)
    level = RackLevel(name="tray", kind="numbered anew", groups=tuple(group for group in there if group))
    bad = tuple(
        sorted(BadWords(int(number[w.chip]), w.first, w.stop) for w in rack.damage.bad if number[w.chip] >= 0)
    )
    damage = replace(rack.damage, bad=bad, dead=(), cut=(), avoided=())
    return replace(rack, chips=len(order), links=directed(wires, len(order)), levels=(level,), damage=damage)


def living_order(rack: Rack, before: Sequence[int]) -> list[int]:
    """The chips that work, in the order to place on. before: all chips, in the order without faults."""
    assert rack.damage is not None
    lost, works = set(rack.damage.lost), list(before)
    works = [chip for chip in works if chip not in lost]
    tray = np.zeros(rack.chips, np.int64)
    for i, group in enumerate(trays(rack)):
        tray[list(group)] = i
    hurt = _hurt(rack, tray)
    first = [chip for chip in works if tray[chip] not in hurt]
    last = [chip for chip in works if tray[chip] in hurt]
    bad = {words.chip for words in rack.damage.bad}
    close = _close(rack, last)
    return [*first, *(c for c in close if c not in bad), *(c for c in close if c in bad)]


def _hurt(rack: Rack, tray: Int[np.ndarray, " chips"]) -> set[int]:
    """Trays that lost a chip, words, a link or lanes between their chips."""
    assert rack.damage is not None
    hurt = {int(tray[chip]) for chip in (*rack.damage.lost, *(words.chip for words in rack.damage.bad))}
    for fault in rack.damage.faults:
        if fault.kind in ("link", "lane") and tray[fault.at[0]] == tray[fault.at[1]]:
            hurt.add(int(tray[fault.at[0]]))
    return hurt


def _close(rack: Rack, chips: Sequence[int]) -> list[int]:
    """The chips, those close together beside each other."""
    if len(chips) < 3:
        return list(chips)
    machine = living(rack, chips) if _joined(rack, chips) else None
    if machine is None:
        return list(chips)
    links = machine.links
    cycles = links.hop_cycles - (-WORDS // links.lanes) * links.slot_cycles
    far = hops(machine) * int(cycles.max())
    far[links.a, links.b] = cycles
    return [chips[i] for i in near_order(far)]


def _joined(rack: Rack, chips: Sequence[int]) -> bool:
    """Whether links between these chips join all of them."""
    reached = {chips[0]}
    inside, todo = set(chips), [chips[0]]
    while todo:
        new = [b for b in rack.neighbours(todo.pop()).tolist() if b in inside and b not in reached]
        reached.update(new)
        todo += new
    return len(reached) == len(inside)
