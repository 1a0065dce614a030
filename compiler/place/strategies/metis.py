"""METIS: the graph of shards and their traffic cut into a part per chip, by pymetis (an extra).

It makes the cut small, so it puts the shards of a block on one chip, which then takes their turns.
Source: Karypis and Kumar 1998.
"""

from typing import Any

import numpy as np

from compiler.place.cost import CostModel
from compiler.place.problem import Placement, PlacementError, Shards
from fabric.rack import Rack

SCALE = 10_000  # shard weights: METIS counts in 32 bits


def place(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> Placement:
    """Parts in order of first shard on chips in number order; SRAM is a weight to METIS, not a limit."""
    try:
        import pymetis  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise PlacementError(
            "place", "metis", "needs pymetis, which is not installed", "pip install 'lpu-emulator[metis]'."
        ) from None
    library: Any = pymetis
    near, weights, begins, words = _graph(shards)
    scale = max(sum(words) // (SCALE * 1000), 1)
    _, parts = library.part_graph(
        min(rack.chips, len(words)),
        adjacency=library.CSRAdjacency(begins, near),
        vweights=[max(one // scale, 1) for one in words],
        eweights=weights,
        options=library.Options(seed=seed),
    )
    chip = {part: i for i, part in enumerate(dict.fromkeys(parts))}
    found = np.array([chip[part] for part in parts], np.int64).reshape(len(shards), shards.tp)
    cost.note(cost.estimate(found).value)
    return found


def _graph(shards: Shards) -> tuple[list[int], list[int], list[int], list[int]]:
    """Neighbours and words sent between them in CSR form, where each shard's begin, words of each shard."""
    tp = shards.tp
    after: list[list[int]] = [[] for _ in shards.kinds]
    for i, reads in enumerate(shards.before):
        for before in reads:
            after[before].append(i)
    near: list[int] = []
    weights: list[int] = []
    begins, words = [0], list[int]()
    for i, kind in enumerate(shards.kinds):
        need = shards.need(kind, tp)
        for rank in range(tp):
            inside = 2 * need.rounds * need.sent
            links = [(i * tp + other, max(inside, 1)) for other in range(tp) if other != rank]
            for other in shards.before[i]:
                handed = shards.need(shards.kinds[other], tp).handed
                links += [(other * tp + one, max(handed, 1)) for one in range(tp)]
            for other in after[i]:
                links += [(other * tp + one, max(need.handed, 1)) for one in range(tp)]
            near += [one for one, _ in links]
            weights += [weight for _, weight in links]
            begins.append(len(near))
            words.append(need.words[rank])
    return near, weights, begins, words
