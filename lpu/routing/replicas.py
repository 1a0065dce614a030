"""Copies of popular experts where devices have whole experts: how many of each, and on which device.

Source: EPLB (deepseek-ai/EPLB at d52c72d), in words in facts moe.md 3.2: groups go to nodes, copies
are made inside a node and go to its devices, each time the most loaded first.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

Loads = Float64[np.ndarray, " things"]
Ids = Int64[np.ndarray, " things"]


def copies(
    load: Sequence[float], copies: int, groups: int, nodes: int, devices: int
) -> Int64[np.ndarray, " copies"]:
    """The expert of each copy, device by device, equally many on each; `copies` counts the first of each.

    Groups that do not divide into the nodes are not kept together.
    """
    weights = np.asarray(load, np.float64)
    if groups % nodes:
        groups, nodes = 1, 1
    size = len(weights) // groups
    by_group = weights.reshape(groups, size).sum(axis=1)
    order = _packed(by_group, nodes)  # groups, node by node
    experts = (order[:, None] * size + np.arange(size)).reshape(nodes, -1)
    out: list[Ids] = []
    for own in experts:
        copied, count = _copied(weights[own], copies // nodes)
        each = (weights[own] / count)[copied]
        out.append(own[copied[_packed(each, devices // nodes)]])
    return np.concatenate(out)


def _packed(load: Loads, packs: int) -> Ids:
    """The things pack by pack, equally many in each: the heaviest first, into the lightest pack with room."""
    each = len(load) // packs
    if each == 1:
        return np.arange(len(load))
    held: list[list[int]] = [[] for _ in range(packs)]
    weight = [0.0] * packs
    for thing in np.argsort(-load, kind="stable").tolist():
        pack = min((i for i in range(packs) if len(held[i]) < each), key=lambda i: weight[i])
        held[pack].append(thing)
        weight[pack] += float(load[thing])
    return np.array([thing for pack in held for thing in pack])


def _copied(load: Loads, copies: int) -> tuple[Ids, Ids]:
    """The thing of each copy, and how many copies each has: one more of what weighs most for a copy."""
    count = np.ones(len(load), np.int64)
    made = list(range(len(load)))
    for _ in range(copies - len(load)):
        most = int(np.argmax(load / count))
        made.append(most)
        count[most] += 1
    return np.array(made), count


def most_over_mean(load: Sequence[float], placed: Ids, devices: int) -> float:
    """The load of the most loaded device over the mean, with each expert's load shared by its copies."""
    weights = np.asarray(load, np.float64)
    share = weights / np.bincount(placed, minlength=len(weights))
    by_device = share[placed].reshape(devices, -1).sum(axis=1)
    return float(by_device.max() / by_device.mean())
