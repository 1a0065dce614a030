"""The lowering rule of an op: how it becomes rows, and what the passes before lowering ask of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from compiler.graph.graph import Graph, Node
from compiler.program.instructions.host import Wire

AS_RESULT = 0  # of `wants`: an operand is cut as the op's result is


class Handed(Enum):
    """How an op reads a value that another group of chips hands over."""

    BY_LINE = "line by line, each on the rank that owns it"
    WHOLE = "all lines, on every rank that multiplies the op's result by weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoweringRule:
    """What the compiler knows of one op of the vocabulary.

    lower: adds the rows of one node to a `Lowering`. joint: the same for an op that multiplies its first
    operand by weights: all nodes of a block with that operand together. An op with neither is for GPUs alone.
    wants: into segments of how many columns an operand is cut; None: as other readers like.
    handed: how a node reads a value that crosses from one group to another; None: it cannot.
    residual: the result is f32, made line by line wherever the operands lie; blocks may hand it on.
    by_head: the first operand is read head by head. angles: which operand is a table of angles, preloaded
    once per chip. kv_heads: of an op that keeps KV, the heads of a node. rounds_to: of a rounding, the format
    in which its result crosses host lanes. keeps_columns: column i of the result is made of column i of the
    operands, however they are cut. picks_token: the result is the token that ends a step.
    cuts: into segments of how many columns the result is cut, whatever its readers like. even: segments of
    operands and result are dealt so that all ranks that have any have equally many. joined: operands of one
    node that are laid out as one value, rank by rank, in that order, runs: a rank's heads in that many runs,
    one after the other, given a `Lowering`, the node and the heads. copied: operands that every rank with
    segments of the first one reads whole. everywhere: every rank takes all of its operands. active: of a
    node, given its `Lowering`, the ranks that do so where nothing else reads an operand. shares: the result
    is how much each expert counts.
    """

    op: str
    lower: Callable[[Any, Node], None] | None = None
    joint: Callable[[Any, list[Node]], None] | None = None
    wants: Callable[["Uses", Node, int], int | None] = lambda uses, node, operand: None
    handed: Callable[["Uses", Node], Handed | None] = lambda uses, node: None
    residual: bool = False
    by_head: bool = False
    angles: int | None = None
    kv_heads: Callable[[Graph, Node], int] | None = None
    rounds_to: Wire | None = None
    keeps_columns: bool = False
    picks_token: bool = False
    cuts: Callable[["Uses", Node], int] | None = None
    even: bool = False
    joined: tuple[int, ...] = ()
    runs: Callable[[Any, Node, int], int] | None = None
    copied: tuple[int, ...] = ()
    everywhere: bool = False
    active: Callable[[Any, Node], Any] | None = None
    shares: bool = False


def every(columns: int) -> Callable[["Uses", Node, int], int]:
    """A `wants`: all operands in segments of this many columns, or AS_RESULT."""
    return lambda uses, node, operand: columns


def by_line(uses: "Uses", node: Node) -> Handed:
    """A `handed`: the operands are read line by line."""
    return Handed.BY_LINE


class Uses:
    """A graph: who reads each of its values, and the rule of each node."""

    def __init__(self, graph: Graph, rules: Mapping[str, LoweringRule]) -> None:
        self.graph = graph
        self._rules = rules
        self._readers: dict[int, list[tuple[Node, int]]] = {}
        self._maker = {value: node for node in graph.nodes for value in node.outputs}
        for node in graph.nodes:
            for operand, view in enumerate(node.inputs):
                self._readers.setdefault(view.value, []).append((node, operand))

    def readers(self, value: int) -> list[tuple[Node, int]]:
        """(node, which of its operands) of every use of a value."""
        return self._readers.get(value, [])

    def maker(self, value: int) -> Node | None:
        """The node that makes a value, if one does."""
        return self._maker.get(value)

    def rule(self, node: Node) -> LoweringRule:
        """The rule of a node; one that allows nothing if its op has none."""
        return self._rules.get(node.op) or LoweringRule(op=node.op)
