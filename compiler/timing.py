"""How long each instruction holds its unit and when its result is there: the one source of cycle formulas.

`docs/timing.md` states the same rules in prose; `lpu/check/cycles.py` implements them a second time.
Source: facts scheduling.md section 1.2; the VXM pass counts are assumed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.program.isa import (
    F32_LANES,
    READS,
    TILE_ROWS,
    TRANSIENT,
    WRITES,
    Kernel,
    Op,
    ceil_div,
    wire_words,
)
from fabric.chip import ChipSpec

MXM, DRAIN, VXM, LINK, HOST_IN, HOST_OUT = range(6)  # unit classes
CLASSES = 6


def _lanes_of_lines(n: Any, k: Kernel) -> Any:
    return F32_LANES * n


def _heads(n: Any, k: Kernel) -> Any:
    return n * k["head_dim"]


def _group(n: Any, k: Kernel) -> Any:
    return n * k["group"] * k["head_dim"]


def _scores(n: Any, k: Kernel) -> Any:
    return k["group"] * k["chunk"] + 0 * n


# VXM rows: lanes per batch row, passes over the ALU mesh, and whether lanes are reduced across.
_VXM: dict[Op, tuple[Callable[[Any, Kernel], Any], int, bool]] = {
    Op.EMBED: (_lanes_of_lines, 1, False),
    Op.RSTAT: (_lanes_of_lines, 2, True),
    Op.NORM: (_lanes_of_lines, 2, False),
    Op.HNORM: (_heads, 4, True),
    Op.ROPE: (_heads, 3, False),
    Op.CAST: (_lanes_of_lines, 1, False),
    Op.KVW: (lambda n, k: 2 * k["head_dim"] + 0 * n, 1, False),
    Op.SMAX: (lambda n, k: n * k["group"] * k["chunk"], 1, True),
    Op.EXP: (_scores, 4, True),
    Op.AOUT: (_group, 1, False),
    Op.ASUM: (_group, 1, False),
    Op.AEND: (_group, 1, False),
    Op.RED: (lambda n, k: F32_LANES * n * k["parts"], 1, False),
    Op.ADD: (_lanes_of_lines, 1, False),
    Op.GLU: (_lanes_of_lines, 4, False),
    Op.ARGMAX: (_lanes_of_lines, 1, True),
    Op.ARGRED: (_lanes_of_lines, 1, True),
}
VXM_WORDS_PER_CYCLE = 8  # assumed: words that one chain reads and writes in a cycle


def unit_class(op: Op) -> int:
    """The class of unit that an opcode holds."""
    if op in (Op.MM, Op.QK, Op.PV):
        return MXM
    if op is Op.WB:
        return DRAIN
    if op in (Op.TAKE, Op.KVIN):
        return HOST_IN
    if op in (Op.GIVE, Op.KVOUT):
        return HOST_OUT
    return LINK if op in (Op.SEND, Op.FORWARD) else VXM


def moved_lines(op: Op, n: Any, kernel: Kernel) -> Any:
    """Transient lines that a row reads and writes."""
    total = 0 * n
    write = WRITES[op]
    for operand in READS[op] + (() if write is None else (write,)):
        if operand.space == TRANSIENT:
            total = total + operand.extent(n, kernel) * (n if operand.stride else 1)
    return total


def timing(op: Op, n: Any, kernel: Kernel, chip: ChipSpec, rows: int) -> tuple[Any, Any]:
    """(hold, t1 - t0) in cycles of compute rows with counts `n`: an int or an int array, elementwise."""
    if op is Op.MM:
        hold = np.maximum(ceil_div(TILE_ROWS * F32_LANES * n, chip.plane_bytes_per_cycle), rows)
        return hold, hold
    if op is Op.WB:
        hold = rows * (4 if kernel["wide"] else 1) + 0 * n
        return hold, hold + chip.mxm_fill_cycles
    if op in (Op.QK, Op.PV):
        install = kernel["chunk"] * kernel["head_dim"] * (2 if kernel["kv"] == "fp16" else 1)
        share = rows // kernel["sequences"]  # K or V of a sequence is installed once for all of its rows
        stream = share * ceil_div(kernel["chunk"], TILE_ROWS) * kernel["group"]
        hold = kernel["sequences"] * max(ceil_div(install, chip.plane_bytes_per_cycle), stream) + 0 * n
        return hold, hold + chip.mxm_fill_cycles
    if unit_class(op) in (HOST_IN, HOST_OUT):
        hold = wire_words(op, n, kernel, rows) * kernel["host_slot"]
        return hold, hold
    lanes, passes, reduces = _VXM[op]
    words = rows * moved_lines(op, n, kernel)
    if op is Op.EMBED:
        words = words + rows * ceil_div(n, 2)
    if op is Op.KVW:
        words = words + rows * kernel["kv_words"]
    hold = np.maximum(
        ceil_div(lanes(n, kernel) * rows, TILE_ROWS) * passes, ceil_div(words, VXM_WORDS_PER_CYCLE)
    )
    latency = chip.vxm_latency_cycles + (chip.lane_reduce_cycles if reduces else 0)
    return hold, hold + latency
