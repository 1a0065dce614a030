"""Random: a seeded permutation of all chips, cut into groups."""

import numpy as np

from fabric.rack import Rack


def place(rack: Rack, size: int, groups: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Groups of chips drawn without replacement by a PCG64 generator of that seed."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(rack.chips)
    return tuple(tuple(int(chip) for chip in order[g * size : (g + 1) * size]) for g in range(groups))
