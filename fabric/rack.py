"""A rack: chips of one kind, their links, and the groups that they form."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from fabric.catalog import chip_spec, rack_spec
from fabric.chip import ChipSpec, Sourced, check_sources
from fabric.faults.fault import BadWords, Fault
from fabric.link import Links, Wire, directed, ns_to_cycles
from fabric.topology import RackSpec, cables, graph, groups

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, slots=True, kw_only=True)
class RackLevel:
    """One level of a built rack: its name, how its members are wired, and the chips of each of its groups."""

    name: str
    kind: str
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Damage:
    """What is broken of a rack.

    dead: chips that do not work. cut: chips that work, but no link joins them to most of the others. bad:
    words of SRAM of the chips that are left. avoided: chips that the compiler leaves out for their bad words.
    whole: the rack before. parent: digest of the program that ran before the faults, if one is remapped.
    """

    faults: tuple[Fault, ...]
    dead: tuple[int, ...]
    cut: tuple[int, ...]
    bad: tuple[BadWords, ...]
    whole: "Rack"
    avoided: tuple[int, ...] = ()
    parent: str = ""

    @property
    def lost(self) -> tuple[int, ...]:
        """Chips that nothing is placed on, ascending."""
        return tuple(sorted({*self.dead, *self.cut, *self.avoided}))

    def __str__(self) -> str:
        words = [" ".join(map(str, self.faults))]
        if self.cut:
            words.append(f"cut off: chips {' '.join(map(str, self.cut))}")
        return "; ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Rack:
    """The machine that a program is compiled for. Chips are numbered from 0, tray by tray.

    forward_cycles: extra cycles of each hop after the first. levels: from the tray outward; `links.level`
    indexes them, links that the file lists one by one have the level "links". spec: what it was built from.
    damage: what of it is broken, if anything; `links` are those that are left.
    """

    name: str
    chip: ChipSpec
    chips: int
    links: Links
    forward_cycles: int
    levels: tuple[RackLevel, ...]
    sources: tuple[Sourced, ...]
    spec: RackSpec
    damage: Damage | None = None

    def link(self, a: int, b: int) -> int:
        """The row of the link from `a` to `b` in `links`, or -1."""
        return int(self.links.index[a, b])

    def neighbours(self, a: int) -> Int[np.ndarray, " degree"]:
        """Chips that `a` has a link to, ascending."""
        first, last = np.searchsorted(self.links.a, [a, a + 1])
        return self.links.b[first:last]

    def groups(self, level: str) -> tuple[tuple[int, ...], ...]:
        """The chips of each group of that level, e.g. of each tray."""
        for one in self.levels:
            if one.name == level:
                return one.groups
        names = ", ".join(one.name for one in self.levels)
        raise ValueError(f"rack {self.name}: has no level {level!r}. It has: {names}.")

    def graph(self) -> "nx.DiGraph[int]":
        """Chips and directed links as a networkx graph."""
        return graph(self.links, self.chips)

    def to_json(self) -> dict[str, Any]:
        """Its numbers for JSON; links are [a, b, lanes, hop_cycles, slot_cycles]."""
        rows = zip(*(getattr(self.links, name).tolist() for name in Wire._fields[:5]), strict=True)
        return {
            "rack": self.name,
            "chips": self.chips,
            "chip_name": self.chip.name,
            "clock_hz": self.chip.clock_hz,
            "chip": self.chip.numbers(),
            "forward_cycles": self.forward_cycles,
            "levels": [[level.name, level.kind, [list(g) for g in level.groups]] for level in self.levels],
            "links": [list(row) for row in rows],
            "sources": [[s.field, s.confidence, s.source] for s in self.chip.sources + self.sources],
        } | ({"faults": [str(one) for one in self.damage.faults]} if self.damage else {})

    def __str__(self) -> str:
        levels = ", ".join(f"{len(level.groups)} {level.name}" for level in self.levels)
        cables = len(self.links) // 2
        broken = f", broken: {self.damage}" if self.damage else ""
        return f"{self.name}: {self.chips} chips {self.chip.name}, {cables} cables, {levels}{broken}"


def build_rack(spec: RackSpec, chip: ChipSpec) -> Rack:
    """The rack that `spec` describes, of chips `chip`; ValueError if it is inconsistent."""
    check_sources(f"chip {chip.name}", list(chip.numbers()), chip.sources)
    check_sources(f"rack {spec.name}", spec.numbers(), spec.sources)
    wires: list[Wire] = []
    for depth, level in enumerate(spec.levels):
        slot = chip.slot_cycles if level.slot_cycles is None else level.slot_cycles
        hop = ns_to_cycles(level.hop_ns, chip.clock_hz)
        wires += [Wire(a, b, level.lanes, hop, slot, depth) for a, b in cables(spec.levels, depth)]
    for a, b, lanes, hop_ns in spec.links:
        hop = ns_to_cycles(hop_ns, chip.clock_hz)
        wires.append(Wire(a, b, lanes, hop, chip.slot_cycles, len(spec.levels)))
    levels = [
        RackLevel(name=level.name, kind=level.kind, groups=groups(spec.levels, depth))
        for depth, level in enumerate(spec.levels)
    ]
    if spec.links or not levels:
        levels.append(RackLevel(name="links", kind="links", groups=(tuple(range(spec.span)),)))
    try:
        links = directed(wires, spec.span)
        _check_lanes(links, spec.span, chip)
        _check_connected(links, spec.span)
    except ValueError as error:
        raise ValueError(f"rack {spec.name}: {error}") from None
    return Rack(
        name=spec.name,
        chip=chip,
        chips=spec.span,
        links=links,
        forward_cycles=ns_to_cycles(spec.forward_ns, chip.clock_hz),
        levels=tuple(levels),
        sources=spec.sources,
        spec=spec,
    )


def load_rack(name: str, chip: str | ChipSpec | None = None) -> Rack:
    """The catalog's rack of that name, of its own chips or of `chip`.

    A chip with another clock has other cycle counts: nanoseconds of the file are rounded up to its cycles.
    """
    spec = rack_spec(name)
    if not isinstance(chip, ChipSpec):
        chip = chip_spec(chip or spec.chip)
    return build_rack(spec, chip)


def _check_lanes(links: Links, chips: int, chip: ChipSpec) -> None:
    used = np.bincount(links.a, weights=links.lanes, minlength=chips).astype(np.int64)
    worst = int(np.argmax(used))
    if used[worst] > chip.lanes:
        raise ValueError(f"chip {worst}: its links take {used[worst]} lanes, a {chip.name} has {chip.lanes}")


def _check_connected(links: Links, chips: int) -> None:
    reached = np.zeros(chips, bool)
    reached[0] = True
    count = 0
    while count != (count := int(reached.sum())):
        reached[links.b[reached[links.a]]] = True
    if count < chips:
        raise ValueError(f"chip {int(np.argmin(reached))} cannot be reached from chip 0")
