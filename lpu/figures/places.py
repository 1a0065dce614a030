"""Where each chip of a rack is drawn: groups inside groups, each laid out as it is wired."""

from collections.abc import Sequence
from math import ceil, cos, pi, sin, sqrt

from compiler.program.manifest import LevelWiring
from fabric.rack import RackLevel

Point = tuple[float, float]
Level = LevelWiring | RackLevel
GAP = 1.6  # between groups, in cells
RINGS = ("ring",)
FEW = 24  # members that are drawn as a ring; of more as a grid


def places(levels: Sequence[Level], chips: int) -> list[Point]:
    """X and y of each chip, in cells; levels as a manifest or a rack has them, from the tray outward."""
    at: list[Point] = [(0.0, 0.0)] * chips
    members: list[tuple[int, ...]] = [(chip,) for chip in range(chips)]
    for level in levels:
        members = [_placed(level, group, members, at) for group in level.groups]
    if len(members) > 1:
        _spread(members, at, _grid(len(members), 1.0))
    return at


def _placed(
    level: Level, group: tuple[int, ...], members: Sequence[tuple[int, ...]], at: list[Point]
) -> tuple[int, ...]:
    """Lay out the members of one group, in place; gives the chips of the group."""
    inside = set(group)
    mine = [member for member in members if member[0] in inside]
    ring = level.kind in RINGS and len(mine) <= FEW
    single = all(len(member) == 1 for member in mine)
    if ring:
        _spread(mine, at, _circle(len(mine)))
    elif level.kind == "line":
        _spread(mine, at, [(float(i), 0.0) for i in range(len(mine))])
    elif level.kind == "links" and single:
        _spread(mine, at, _circle(len(mine)) if len(mine) <= FEW else _grid(len(mine), 1.0))
    else:
        _spread(mine, at, _grid(len(mine), 2.0 if single else 1.0))
    return tuple(chip for member in mine for chip in member)


def _grid(count: int, wide: float) -> list[Point]:
    """Cells of a grid, about `wide` times as wide as high, by rows from the top, full ones if possible."""
    least = max(1, ceil(sqrt(count * wide)))
    columns = next((n for n in range(least, least * 3 // 2 + 1) if count % n == 0), least)
    return [(float(i % columns), -float(i // columns)) for i in range(count)]


def _circle(count: int) -> list[Point]:
    radius = 1 / (sqrt(2) * sin(pi / count)) if count > 2 else 0.5  # a cell apart, aslant too
    angles = (pi / 2 - 2 * pi * i / count for i in range(count))
    return [(radius * cos(angle), radius * sin(angle)) for angle in angles]


def _spread(members: Sequence[tuple[int, ...]], at: list[Point], cells: Sequence[Point]) -> None:
    """Move each member, as it is laid out, to its cell; a cell holds the largest member and a gap."""
    sizes = [_size([at[chip] for chip in member]) for member in members]
    single = all(len(member) == 1 for member in members)
    gap = 1.0 if single else GAP
    wide, high = (max(size[i] for size in sizes) + gap for i in (0, 1))
    for member, (x, y) in zip(members, cells, strict=True):
        left, top = min(at[chip][0] for chip in member), max(at[chip][1] for chip in member)
        for chip in member:
            at[chip] = (at[chip][0] - left + x * wide, at[chip][1] - top + y * high)


def _size(points: Sequence[Point]) -> Point:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return max(xs) - min(xs), max(ys) - min(ys)
