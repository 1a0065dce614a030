"""Round robin: chips are dealt to the groups one by one."""

from fabric.rack import Rack


def place(rack: Rack, size: int, groups: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Group g takes chips g, g + groups, g + 2 groups, ..."""
    return tuple(tuple(range(g, size * groups, groups)) for g in range(groups))
