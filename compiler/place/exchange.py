"""Exchanges: some chips send words to others over the routes that the compiler takes; how long that is."""

from dataclasses import dataclass

from fabric.multicast import multicast_tree
from fabric.rack import Rack


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """cycles: until the last word is there. loads: cycles that each link (row of the rack's links) is held.

    hop_words: words times the links that they cross.
    """

    cycles: int
    loads: tuple[tuple[int, int], ...]
    hop_words: int


def exchange(rack: Rack, sources: tuple[int, ...], targets: tuple[int, ...], words: int) -> Exchange:
    """Each source sends its `words` to every target but itself, all at once.

    The longest route (slots and hops one after another, as each hop stores its words first), and on top of it
    what other messages hold the most loaded link for.
    """
    links, forward = rack.links, rack.forward_cycles
    loads: dict[int, int] = {}
    longest, own, hop_words = 0, 0, 0
    for salt, source in enumerate(sources):
        there = {source: 0}
        others = [chip for chip in targets if chip != source]
        for parent, child in multicast_tree(rack, source, others, salt=salt) if words and others else ():
            link = rack.link(parent, child)
            hold = -(-words // int(links.lanes[link])) * int(links.slot_cycles[link])
            there[child] = there[parent] + hold + int(links.hop_cycles[link])
            if parent != source:
                there[child] += forward
            loads[link] = loads.get(link, 0) + hold
            own = max(own, hold)
            hop_words += words
        longest = max(longest, *there.values())
    queue = max(loads.values(), default=0) - own
    return Exchange(cycles=longest + max(queue, 0), loads=tuple(sorted(loads.items())), hop_words=hop_words)
