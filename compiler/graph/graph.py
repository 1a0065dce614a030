"""The captured model: nodes in the op vocabulary over values, in execution order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.core import ShapedArray

from compiler.errors import bug
from models.contract.ops import OPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One array: a parameter, a step input, a cache, or the output of a node.

    `kind` is "param" (name = path in the weights), "token", "position", "cache" or "node".
    """

    index: int
    kind: str
    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A contiguous piece of a value's features: all but the first (batch) axis, flattened."""

    value: int
    start: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One vocabulary op: what it reads (views), what it writes (values), its attributes and module path."""

    index: int
    op: str
    inputs: tuple[View, ...]
    outputs: tuple[int, ...]
    attributes: Mapping[str, Any]
    path: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A decode step: nodes in order; `logits` and `token` are views of its results."""

    values: tuple[Value, ...]
    nodes: tuple[Node, ...]
    logits: View
    token: View
    batch: int

    def __str__(self) -> str:
        lines = [f"graph: {len(self.nodes)} nodes, batch {self.batch}"]
        for node in self.nodes[:40]:
            reads = ", ".join(self._name(view) for view in node.inputs)
            lines.append(f"  {node.index:4d} {node.op:<10} {node.path:<24} <- {reads}")
        return "\n".join(lines)

    def verify(self) -> None:
        """Raises CompileError if a node reads what no earlier node has made."""
        made = {value.index for value in self.values if value.kind != "node"}
        for node in self.nodes:
            if late := [view.value for view in node.inputs if view.value not in made]:
                raise bug(
                    "capture", f"node {node.index} ({node.op})", f"reads value {late[0]} before it is there"
                )
            made.update(node.outputs)

    def _name(self, view: View) -> str:
        value = self.values[view.value]
        name = value.name or f"%{value.index}"
        whole = view.start == 0 and view.width == width(value)
        return name if whole else f"{name}[{view.start}:{view.start + view.width}]"


def width(value: Value) -> int:
    """Features of a value per batch row."""
    size = 1
    for extent in value.shape[1:]:
        size *= extent
    return size


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
