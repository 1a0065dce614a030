"""Sums in the contract's own order: a binary tree over an index that a model fixes, never over chips.

Level by level the pairs (0, 1), (2, 3), ... are added; a lone last one moves up unchanged. Among 2^j leaves
every aligned range [i 2^m, (i + 1) 2^m) is one node, so whoever owns such a range may add it up alone.
Source: facts/contract2.md section 1, TREE.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float32, Float64

from models.contract.formats import add32

Leaves = TypeVar("Leaves")


def tree(leaves: Leaves, add: Callable[[Leaves, Leaves], Leaves]) -> Leaves:
    """The root over the first axis of every array of `leaves`; `add` adds two such, leaf by leaf."""
    count = len(jax.tree.leaves(leaves)[0])
    while count > 1:
        even = count // 2 * 2
        nodes = add(_every(leaves, 0, even, 2), _every(leaves, 1, even, 2))
        if count % 2:
            nodes = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), nodes, _every(leaves, even, count, 1))
        leaves, count = nodes, count - count // 2
    return jax.tree.map(lambda x: x[0], leaves)


def _every(leaves: Leaves, first: int, end: int, step: int) -> Leaves:
    return jax.tree.map(lambda x: x[first:end:step], leaves)


def tree32(leaves: Float32[Array, "leaves *shape"]) -> Float32[Array, "*shape"]:
    """TREE32: the sum of f32 leaves with `add32` at every node; an absent leaf is +0."""
    return tree(leaves, add32)


def of_nodes(nodes: Sequence[Float32[Array, "*shape"]], sizes: Sequence[int]) -> Float32[Array, "*shape"]:
    """TREE32 where some leaves are added up already: `sizes` of them in each node, in order.

    Raises ValueError where these are no nodes of the tree.
    """
    if len(nodes) == 1:
        return nodes[0]
    left = 1 << ((sum(sizes) - 1).bit_length() - 1)  # leaves under the first child
    ends = list(accumulate(sizes))
    if left not in ends:
        raise ValueError(f"tree: {list(sizes)} leaves are no nodes of a tree of {sum(sizes)}.")
    cut = ends.index(left) + 1
    return add32(of_nodes(nodes[:cut], sizes[:cut]), of_nodes(nodes[cut:], sizes[cut:]))


def tree64(leaves: Float64[Array, "leaves *shape"]) -> Float64[Array, "*shape"]:
    """TREE64: the sum of f64 leaves, each node rounded to f64."""
    return tree(leaves, lambda x, y: x + y)


def nodes(first: int, end: int, leaves: int) -> tuple[tuple[int, int], ...]:
    """The maximal nodes, as ranges of leaves, whose leaves all lie in [first, end) of a tree of `leaves`.

    Words a lane that the owner of these leaves sends: one for an aligned range, up to 3 of 16 leaves
    where their owners are three. In a tree of any number of leaves a lone last node is one of each level.
    """
    if not 0 <= first <= end <= leaves:
        raise ValueError(f"tree: leaves {first} to {end} are not among the {leaves} of the tree.")
    found: list[tuple[int, int]] = []
    while first < end:
        size = 1
        while first % (2 * size) == 0 and min(first + 2 * size, leaves) <= end and first + size < leaves:
            size *= 2
        found.append((first, min(first + size, leaves)))
        first += size
    return tuple(found)
