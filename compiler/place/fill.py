"""Filling: blocks in order onto groups in order, by the compiler's own assignment."""

import numpy as np

from compiler.errors import LESS_KV, CapacityError
from compiler.place.problem import Placement, Shards
from compiler.place.stages import assign, turned
from compiler.place.tables import Tables
from fabric.rack import Rack


def fill(shards: Shards, rack: Rack, groups: tuple[tuple[int, ...], ...]) -> Placement:
    """Each block where the last one is if it fits, else on the next group; raises CapacityError."""
    stages = assign(shards.sizes(), shards.room_of(rack.name, len(groups)), None)
    return np.array(
        [np.array(groups[stage.group])[turned(shards.tp, stage.turn, 1)] for stage in stages], np.int64
    )


def first_fit(tables: Tables) -> list[int]:
    """The group of each block: the first that has room; raises CapacityError if none has."""
    shards = tables.shards
    used = [0] * len(tables.groups)
    at: list[int] = []
    for kind, name in zip(shards.kinds, shards.names, strict=True):
        words = tables.words[kind]
        free = [g for g, have in enumerate(used) if have + words <= shards.room]
        if not free:
            raise CapacityError(
                "place",
                f"block {name}",
                f"needs {words} words per chip, the emptiest group has {shards.room - min(used)} left",
                f"Use a larger rack{LESS_KV}.",
            )
        at.append(free[0])
        used[free[0]] += words
    return at
