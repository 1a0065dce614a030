"""Needs: which ranks of a group read what, so that nothing is computed or sent that nobody reads."""

import numpy as np

from compiler.graph.graph import Graph, width
from compiler.lower.blocks import ModelBlock
from compiler.lower.layout import Demands, is_head_norm, natural
from compiler.program.isa import ceil_div


def multipliers(demands: Demands, value: int, ranks: int, k_parts: int) -> np.ndarray:
    """Who computes a tile of any matmul that reads the value, as [ranks]."""
    found = np.zeros(ranks, bool)
    for node, _ in demands.readers(value):
        if node.op == "matmul":
            for demand in demands.pieces(node.outputs[0]):
                count = int(ceil_div(demand.view.width, demand.columns))
                owners = np.arange(count) * ranks // count
                found |= np.isin(np.arange(ranks) // k_parts, owners // k_parts)
    return found


def input_lines(graph: Graph, demands: Demands, block: ModelBlock, ranks: int, k_parts: int) -> np.ndarray:
    """The lines of its input that a block reads on each rank, as [ranks, lines].

    The first block reads the token (one line) wherever it looks up columns of the embedding.
    """
    if block.source < 0:
        total = width(graph.values[block.nodes[0].outputs[0]])
        return np.isin(np.arange(ranks), natural(total, ranks)[0])[:, None]
    owner, _ = natural(width(graph.values[block.source]), ranks)
    need = np.zeros((ranks, len(owner)), bool)
    for node, _ in demands.readers(block.source):
        if node.op == "rms_norm" and not is_head_norm(demands, node):
            need[multipliers(demands, node.outputs[0], ranks, k_parts)] = True
        else:
            need[owner, np.arange(len(owner))] = True
    return need
