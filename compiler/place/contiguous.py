"""Contiguous: chips in number order, so that a group is a tray or a run of trays."""

from fabric.rack import Rack


def place(rack: Rack, size: int, groups: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Groups of `size` neighbouring chips."""
    return tuple(tuple(range(g * size, (g + 1) * size)) for g in range(groups))
