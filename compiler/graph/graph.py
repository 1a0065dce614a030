"""The captured model: nodes in the op vocabulary over values, in execution order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
