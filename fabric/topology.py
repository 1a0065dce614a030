"""How chips are wired: levels of groups, from the tray outward, or an explicit list of links."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fabric.chip import Sourced
from fabric.link import Links

if TYPE_CHECKING:
    import networkx as nx

Kind = Literal["all-to-all", "dragonfly", "ring", "line", "torus"]
Ports = Literal["mirror", "halves"]
MOST = 10**9  # nanoseconds, lanes: keeps every cycle count far inside 64 bits
MOST_CHIPS = 4096  # a bound on memory: tables of chips x chips


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of a rack: `size` members - chips on the first level, groups of the level below after it.

    kind: which members are wired - all-to-all and dragonfly every pair, ring and line those up to `reach`
    apart, torus neighbours in the grid `shape`. links: by how many cables - 0 joins each chip of a member
    to the chip of the same rank in the other; n puts n cables between the two members, spread over their S
    chips: cable m at distance d (counted around the ring) is port p = n (d - 1) + m. ports says on which
    chip that is: mirror - p mod S of the first member and S - 1 - p mod S of the second; halves - p mod S/2
    of the first, S/2 + p mod S/2 of the second. lanes: of each cable. hop_ns: from SRAM to SRAM.
    slot_cycles: cycles per word and lane where they differ from the chip's.
    Source: both port rules are derived (hardware.md 2.2, 3.2); nobody has published one.
    """

    name: str
    kind: Kind
    size: int
    lanes: int
    hop_ns: int
    links: int = 0
    ports: Ports = "mirror"
    reach: int = 1
    shape: tuple[int, ...] = ()
    slot_cycles: int | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("size", self.size),
            ("lanes", self.lanes),
            ("hop_ns", self.hop_ns),
            ("reach", self.reach),
        ):
            if not 1 <= value <= MOST:
                bound = f"at most {MOST:_}" if value > MOST else "at least 1"
                raise ValueError(f"{name}: level {self.name} has {value}, needs {bound}")
        if self.links < (1 if self.kind == "dragonfly" else 0):
            raise ValueError(f"links: level {self.name} has {self.links}, a {self.kind} needs at least 1")
        if self.kind == "torus":
            if not self.shape or min(self.shape) < 1 or _product(self.shape) != self.size:
                raise ValueError(
                    f"shape: level {self.name} is {list(self.shape)}, its product must be size {self.size}"
                )
        elif self.shape:
            raise ValueError(f"shape: level {self.name} is a {self.kind}, only a torus has a shape")
        furthest = self.size - 1 if self.kind == "line" else self.size // 2
        if self.reach > max(furthest, 1):
            raise ValueError(
                f"reach: level {self.name} has {self.reach}, of {self.size} the furthest are {furthest} apart"
            )
        if self.reach > 1 and self.kind not in ("ring", "line"):
            raise ValueError(f"reach: level {self.name} is a {self.kind}, only a ring or line has a reach")

    def numbers(self) -> list[str]:
        """Names of the numbers that need a source."""
        extra = ["slot_cycles"] if self.slot_cycles is not None else []
        return [f"{self.name}.{number}" for number in ("size", "lanes", "hop_ns", *extra)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RackSpec:
    """A rack as a YAML file writes it: levels, or a count of chips and links [a, b, lanes, hop_ns], or both.

    chip: a name of the chip catalog. forward_ns: what a hop takes longer where the word came in by a link.
    """

    name: str
    chip: str
    forward_ns: int
    chips: int = 0
    levels: tuple[Level, ...] = ()
    links: tuple[tuple[int, int, int, int], ...] = ()
    sources: tuple[Sourced, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.forward_ns <= MOST:
            raise ValueError(f"forward_ns: is {self.forward_ns}, needs 0 to {MOST:_}")
        for link in self.links:
            if max(map(abs, link)) > MOST:
                raise ValueError(f"links: {list(link)} holds a number above {MOST:_}")
        names = [level.name for level in self.levels]
        for name in names:
            if names.count(name) > 1 or name == "links":
                raise ValueError(f"levels: the name {name!r} is taken; each level needs its own")
        below = 1
        for level in self.levels:
            if level.ports == "halves" and below % 2:
                raise ValueError(f"ports: level {level.name} halves members of {below} chips")
            below *= level.size
        if self.levels and self.levels[0].links:
            raise ValueError(
                "levels: the first level joins chips, of which each pair has one link; leave out `links`"
            )
        spanned = _product(tuple(level.size for level in self.levels))
        if self.levels and self.chips not in (0, spanned):
            raise ValueError(f"chips: is {self.chips}, the levels span {spanned}")
        if not self.levels and self.chips < 1:
            raise ValueError(f"chips: is {self.chips}, a rack without levels needs at least 1")
        if self.span > MOST_CHIPS:
            raise ValueError(f"chips: the rack has {self.span}, at most {MOST_CHIPS} can be scheduled as one")

    def numbers(self) -> list[str]:
        """Names of the numbers that need a source."""
        names = ["forward_ns"] + [name for level in self.levels for name in level.numbers()]
        return names + (["links"] if self.links else [])

    @property
    def span(self) -> int:
        """Chips of the rack."""
        return _product(tuple(level.size for level in self.levels)) if self.levels else self.chips


def groups(levels: tuple[Level, ...], depth: int) -> tuple[tuple[int, ...], ...]:
    """The chips of each group of level `depth`, in order: for depth 0 the trays."""
    size = _product(tuple(level.size for level in levels[: depth + 1]))
    span = _product(tuple(level.size for level in levels))
    return tuple(tuple(range(first, first + size)) for first in range(0, span, size))


def cables(levels: tuple[Level, ...], depth: int) -> list[tuple[int, int]]:
    """Every pair of chips that level `depth` joins, each once."""
    level = levels[depth]
    chips = _product(tuple(below.size for below in levels[:depth]))
    pairs: list[tuple[int, int]] = []
    for group in groups(levels, depth):
        for i, j, distance in _members(level):
            a, b = group[i * chips], group[j * chips]
            if level.links:
                ports = range(level.links * (distance - 1), level.links * distance)
                pairs += [
                    (a + first, b + second) for first, second in (_port(level, p, chips) for p in ports)
                ]
            else:
                pairs += [(a + rank, b + rank) for rank in range(chips)]
    return pairs


def graph(links: Links, chips: int) -> "nx.DiGraph[int]":
    """Chips and directed links as a networkx graph; edges carry lanes, hop_cycles and slot_cycles."""
    import networkx as nx

    out: nx.DiGraph[int] = nx.DiGraph()
    out.add_nodes_from(range(chips))
    rows = zip(links.a, links.b, links.lanes, links.hop_cycles, links.slot_cycles, strict=True)
    for a, b, lanes, hop, slot in rows:
        out.add_edge(int(a), int(b), lanes=int(lanes), hop_cycles=int(hop), slot_cycles=int(slot))
    return out


def _port(level: Level, port: int, chips: int) -> tuple[int, int]:
    """Ranks of the two chips that hold a port."""
    if level.ports == "halves":
        half = chips // 2
        return port % half, chips - half + port % half
    return port % chips, chips - 1 - port % chips


def _members(level: Level) -> list[tuple[int, int, int]]:
    """Pairs of members (first, second, distance) that the level joins, each pair once."""
    size = level.size
    if level.kind == "torus":
        return _torus(level.shape)
    if level.kind == "line":
        return [(i, i + d, d) for d in range(1, level.reach + 1) for i in range(size - d)]
    reach = level.reach if level.kind == "ring" else size // 2
    return [
        (i, (i + d) % size, d)
        for d in range(1, min(reach, size // 2) + 1)
        for i in range(size // 2 if 2 * d == size else size)
    ]


def _torus(shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Neighbour pairs of a torus, the last axis fastest; `distance` numbers the axis, for the port rule."""
    size = _product(shape)
    pairs: list[tuple[int, int, int]] = []
    for axis, length in enumerate(shape):
        stride = _product(shape[axis + 1 :])
        for i in range(size):
            at = i // stride % length
            if length > 1 and not (length == 2 and at == 1):
                pairs.append((i, i + ((at + 1) % length - at) * stride, axis + 1))
    return pairs


def _product(values: tuple[int, ...]) -> int:
    out = 1
    for value in values:
        out *= value
    return out
