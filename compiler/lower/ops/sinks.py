"""Where the sinks of an attention's heads lie: a preloaded word beside the rows that divide."""

from typing import Any

import numpy as np
from jaxtyping import Int

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.rows import tag
from compiler.program.isa import F32_LANES

SINK = 6  # which operand they are


def sinks_of(low: Lowering, node: Node, group: int, owner: Int[np.ndarray, " heads"]) -> dict[str, Any]:
    """Where the AOUT row of each KV head finds the sinks of its heads: a preloaded word, a lane per head."""
    uid, lines = low.weight_uid(), np.arange(len(owner))
    columns = np.full((len(owner), F32_LANES), -1)
    columns[:, :group] = np.arange(len(owner) * group).reshape(-1, group)
    words = low.gain(node.inputs[SINK].value, columns.reshape(-1), owner, lines, uid)
    return {"src3": words, "src3_tag": tag(uid, lines)}
