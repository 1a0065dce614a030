"""The RoPE table: preloaded once per chip and read by every block there."""

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Graph
from compiler.lower.rules import rule_of
from compiler.program.isa import ANGLES, COLUMNS, SHARED, SPACE_SHIFT, TAGS, WORD_BYTES, Columns, ceil_div
from compiler.program.program import LOADS, Block, Loads


def angle_params(graph: Graph) -> list[int]:
    """The RoPE table of a graph, if it has one."""
    found: list[int] = []
    for node in graph.nodes:
        operand = rule_of(node).angles
        if operand is not None and node.inputs[operand].value not in found:
            found.append(node.inputs[operand].value)
    if len(found) > 1:
        names = ", ".join(graph.values[value].name for value in found)
        raise CompileError("lower", "rope", f"reads {len(found)} angle tables ({names})", "Share one table.")
    return found


def angle_words(graph: Graph) -> int:
    """Words of the RoPE table on a chip."""
    total = 0
    for value in angle_params(graph):
        positions, _, half = graph.values[value].shape
        total += positions * int(ceil_div(4 * half, WORD_BYTES))
    return total


def angle_block(graph: Graph, ranks: int, contexts: tuple[int, ...]) -> Block:
    """The RoPE table as a block without rows, called once per group."""
    rank = np.arange(ranks if angle_params(graph) else 0)
    fields = dict.fromkeys(LOADS, 0 * rank)
    fields |= {
        "chip": rank,
        "addr": (SHARED << SPACE_SHIFT) + 0 * rank,
        "words": angle_words(graph) + 0 * rank,
        "kind": ANGLES + 0 * rank,
        "lines": 1 + 0 * rank,
    }
    empty = Columns(**{name: np.zeros(0, np.int64) for name in COLUMNS + TAGS})
    return Block(
        name="angles",
        columns=dict.fromkeys(contexts, empty),
        cycles=dict.fromkeys(contexts, 0),
        loads=Loads(**fields),
        maps=(),
        slots=((-1, -1),) if len(rank) else (),
    )
