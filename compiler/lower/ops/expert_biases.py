"""Where the biases of experts lie: beside each line of gate and up a word of every expert, preloaded.

All slots read the same words; which of a line's is added, the slot says.
"""

from typing import Any

import numpy as np
from jaxtyping import Int

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.ops.expert_tables import operands_of
from compiler.lower.rows import tag
from compiler.program.isa import F32_LANES


def biases_of(
    low: Lowering,
    node: Node,
    table: tuple[int, int],
    owner: Int[np.ndarray, " lines"],
    columns: Int[np.ndarray, " lanes"],
    run: Int[np.ndarray, " rows"],
) -> dict[str, Any]:
    """Where WGLU rows that begin at the lines `run` find their biases; nothing where experts have none.

    table: the first expert, and how many. owner, columns: of the lines of gate and up.
    """
    operands = operands_of(node)
    if operands.biases is None:
        return {}
    (begin, experts), value = table, operands.biases.value
    width = low.graph.values[value].shape[0] // operands.weights.width
    one = columns.reshape(-1, 1, F32_LANES)
    every = np.where(one < 0, -1, one + width * (begin + np.arange(experts))[:, None])
    uid, words = low.weight_uid(), np.arange(len(owner) * experts)
    address = low.gain(value, every.reshape(-1), np.repeat(owner, experts), words, uid)
    return {"src3": address[run * experts], "src3_tag": tag(uid, run * experts)}
