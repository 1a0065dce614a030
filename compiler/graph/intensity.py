"""Intensity: FLOP and bytes of nodes of a graph, by the rows of the op vocabulary."""

from collections.abc import Sequence

import numpy as np
from jax.core import ShapedArray

from compiler.graph.graph import Graph, Node, View, width
from models.contract.ops import OPS


def intensity(graph: Graph, nodes: Sequence[Node]) -> float:
    """FLOP per byte of these nodes; a KV cache counts all of its bytes."""
    moved = sum(OPS[node.op].bytes(*_operands(graph, node), **node.attributes) for node in nodes)
    return flops(graph, nodes) / max(moved, 1)


def flops(graph: Graph, nodes: Sequence[Node]) -> int:
    """Floating-point operations of these nodes."""
    return sum(OPS[node.op].flops(*_operands(graph, node), **node.attributes) for node in nodes)


def bytes_of(graph: Graph, nodes: Sequence[Node], kind: str) -> int:
    """Bytes of all values of a kind ("param", "cache") that these nodes read, each counted once."""
    read = {view.value for node in nodes for view in node.inputs if graph.values[view.value].kind == kind}
    shaped = [_whole(graph, value) for value in sorted(read)]
    return sum(array.size * array.dtype.itemsize for array in shaped)


def _whole(graph: Graph, value: int) -> ShapedArray:
    return ShapedArray(graph.values[value].shape, np.dtype(graph.values[value].dtype))


def _operands(graph: Graph, node: Node) -> list[ShapedArray]:
    """The operands with the shapes that the op saw: activations as its result, or rows of features."""
    return [_operand(graph, node, view) for view in node.inputs]


def _operand(graph: Graph, node: Node, view: View) -> ShapedArray:
    whole, like = _whole(graph, view.value), graph.values[node.outputs[0]]
    if graph.values[view.value].kind != "node":
        return whole
    same = width(like) == view.width and len(like.shape) > 1
    return ShapedArray(like.shape if same else (graph.batch, view.width), whole.dtype)
