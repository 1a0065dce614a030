"""Regular racks: products of rings, lines and full meshes, and trays whose cables are dealt over their chips.

Each has one numbering that reads well: the one of its levels. A rack that is given link by link, or by its
levels in another order, is the same machine and gets the same numbering.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np
from jaxtyping import Int

from fabric.topology import Kind, Level, Ports, cables

Cable = tuple[int, int, int]
"""Two chips, and the number of the kind of link between them."""
Places = Int[np.ndarray, " chips"]
"""Of each chip its place on an axis."""
PORTS: tuple[Ports, ...] = ("mirror", "halves")


@dataclass(frozen=True, slots=True, order=True)
class Axis:
    """One factor of a product: `size` chips in a ring, a line or a full mesh of links of one kind.

    Axes are sorted from the inside out: by kind of link, then by size.
    """

    link: int
    size: int
    form: Kind
    reach: int = 1

    @property
    def cables_per_chip(self) -> Fraction:
        """Cables of the axis for each chip of the rack."""
        if self.form == "all-to-all":
            return Fraction(self.size - 1, 2)
        if self.form == "line":
            return Fraction(self.reach * self.size - self.reach * (self.reach + 1) // 2, self.size)
        return Fraction(self.reach) if 2 * self.reach < self.size else Fraction(self.size - 1, 2)


@dataclass(frozen=True, slots=True)
class Regular:
    """A regular rack in its own numbering: its cables, and how many chips are a tray."""

    cables: tuple[Cable, ...]
    tray: int


def axis(link: int, size: int, form: Kind, reach: int = 1) -> Axis:
    """The axis by its first name: two or three chips are a ring; four or more, all joined, a full mesh."""
    if size <= 3 and (form != "line" or size == 2 or reach > 1):
        form, reach = "ring", 1
    if size > 3 and reach == (size - 1 if form == "line" else size // 2):
        form = "all-to-all"
    return Axis(link, size, form, 1 if form == "all-to-all" else reach)


def axes_of(levels: Sequence[Level], links: Sequence[int]) -> list[Axis]:
    """The axes of levels that join chips of equal rank, in their order; links: the kind of each level's."""
    out: list[Axis] = []
    for level, link in zip(levels, links, strict=True):
        if level.kind == "torus":
            out += [axis(link, size, "ring") for size in reversed(level.shape)]
        else:
            form: Kind = "all-to-all" if level.kind == "dragonfly" else level.kind
            out.append(axis(link, level.size, form, level.reach))
    return [one for one in out if one.size > 1]


def order_of(axes: Sequence[Axis]) -> Int[np.ndarray, " chips"]:
    """The chips of a product of axes, the first one innermost, in the order that sorted axes give them.

    Two axes of two chips each that are alike are a ring of four.
    """
    chips = np.arange(prod(one.size for one in axes))
    places: list[tuple[Axis, Places]] = []
    rest = chips
    for one in axes:
        place, rest = rest % one.size, rest // one.size
        twin = next((i for i, (other, _) in enumerate(places) if one.size == 2 and other == one), None)
        if twin is not None:
            place = 2 * place + (place ^ places.pop(twin)[1])
            one = axis(one.link, 4, "ring")
        places.append((one, place))
    places.sort(key=lambda each: each[0])
    return _in_order([one for one, _ in places], [place for _, place in places])


def _in_order(axes: Sequence[Axis], places: Sequence[Places]) -> Int[np.ndarray, " chips"]:
    """The chips by their places on sorted axes, the first axis innermost.

    Of a mesh (two lines or more of one kind of link) in squares of two by two: the chips of a square are at
    most two hops apart, four of a line three, however many more chips there are.
    """
    keys: list[Places] = []
    for link in sorted({one.link for one in axes}):
        mine = [(one, place) for one, place in zip(axes, places, strict=True) if one.link == link]
        if sum(one.form == "line" and one.size > 2 for one, _ in mine) > 1:
            keys += [place % 2 for _, place in mine] + [place // 2 for _, place in mine]
        else:
            keys += [place for _, place in mine]
    return np.lexsort(keys) if keys else np.zeros(1, np.int64)


def tray_of(axes: Sequence[Axis]) -> int:
    """Chips of a tray: of the innermost axis if all are joined, else what the innermost kind of link does."""
    merged: list[Axis] = []
    for one in axes:
        twins = one.size == 2 and one in merged
        if twins:
            merged.remove(one)
        merged.append(axis(one.link, 4, "ring") if twins else one)
    inner = min(merged, default=axis(0, 1, "ring"))
    if inner.form == "all-to-all":
        return inner.size
    return prod(one.size for one in merged if one.link == inner.link)


def product(axes: Sequence[Axis]) -> Regular:
    """The product of sorted axes in the order that they give its chips."""
    levels = tuple(
        Level(name=str(i), kind=one.form, size=one.size, lanes=1, hop_ns=1, reach=one.reach)
        for i, one in enumerate(axes)
    )
    sizes = [one.size for one in axes]
    chips = np.arange(prod(sizes))
    places = [chips // prod(sizes[:i]) % size for i, size in enumerate(sizes)]
    number = np.argsort(_in_order(axes, places)).tolist()
    found = [(number[a], number[b], one.link) for i, one in enumerate(axes) for a, b in cables(levels, i)]
    return Regular(tuple(found), tray_of(axes))


def candidates(chips: int, counts: Sequence[int]) -> Iterator[Regular]:
    """Every regular rack of this many chips and, of each kind of link, this many cables."""
    want = [Fraction(count, chips) for count in counts]
    for axes in _products(chips, want, []):
        yield product(sorted(axes))
    for tray in range(2, chips // 2 + 1):
        if chips % tray == 0:
            yield from _dealt(chips, tray, counts)


def _products(chips: int, want: list[Fraction], axes: list[Axis]) -> Iterator[list[Axis]]:
    """The products of `axes` and others after them that have `chips` times as many chips."""
    if chips == 1:
        if not any(want):
            yield axes
        return
    least = axes[-1] if axes else Axis(0, 2, "all-to-all")
    for link in range(least.link, len(want)):
        if any(want[:link]):
            break
        for size in (size for size in range(2, chips + 1) if chips % size == 0):
            for one in _axes(link, size):
                if (one > least if one.size == 2 else one >= least) and one.cables_per_chip <= want[link]:
                    rest = [w - one.cables_per_chip * (i == link) for i, w in enumerate(want)]
                    yield from _products(chips // size, rest, [*axes, one])


def _axes(link: int, size: int) -> list[Axis]:
    """Every axis of that size."""
    some = [axis(link, size, "all-to-all")]
    some += [axis(link, size, "ring", reach) for reach in range(1, max(2, size // 2))]
    some += [axis(link, size, "line", reach) for reach in range(1, max(2, size - 1))]
    return sorted(set(some))


def _dealt(chips: int, tray: int, counts: Sequence[int]) -> Iterator[Regular]:
    """Full trays, and several cables between two trays, dealt over their chips."""
    inside, groups = tray * (tray - 1) // 2 * (chips // tray), chips // tray
    for inner in range(len(counts)):
        for outer in range(len(counts)):
            left = [count - inside * (i == inner) for i, count in enumerate(counts)]
            if left[inner] < 0 or any(one for i, one in enumerate(left) if i != outer):
                continue
            shapes: list[tuple[Kind, int]] = [("all-to-all", 1)]
            shapes.extend(("ring", reach) for reach in range(1, groups // 2))
            for kind, reach in shapes:
                pairs = groups * (groups - 1) // 2 if kind == "all-to-all" else groups * reach
                if not left[outer] or left[outer] % pairs:
                    continue
                for ports in PORTS[: 2 - tray % 2]:
                    levels = (
                        Level(name="i", kind="all-to-all", size=tray, lanes=1, hop_ns=1),
                        Level(
                            name="o",
                            kind=kind,
                            size=groups,
                            lanes=1,
                            hop_ns=1,
                            reach=reach,
                            links=left[outer] // pairs,
                            ports=ports,
                        ),
                    )
                    pairs_of = [(link, cables(levels, i)) for i, link in enumerate((inner, outer))]
                    found = [(a, b, link) for link, some in pairs_of for a, b in some]
                    if len({(min(a, b), max(a, b)) for a, b, _ in found}) == len(found):
                        yield Regular(tuple(found), tray)


def relations(chips: int, found: Sequence[Cable]) -> Int[np.ndarray, "chips chips"]:
    """What every chip is to every other: links between them, and of a link its kind."""
    out = np.zeros((chips, chips), np.int64)
    kinds = 1 + max((link for _, _, link in found), default=0)
    direct = np.array(found, np.int64).reshape(-1, 3)
    wired = np.eye(chips, dtype=np.float32)
    wired[direct[:, 0], direct[:, 1]] = wired[direct[:, 1], direct[:, 0]] = 1
    reached = np.eye(chips, dtype=bool)
    while not reached.all():
        out += ~reached * (kinds + 1)
        reached = reached.astype(np.float32) @ wired > 0
    out[direct[:, 0], direct[:, 1]] = out[direct[:, 1], direct[:, 0]] = direct[:, 2] + 1
    return out
