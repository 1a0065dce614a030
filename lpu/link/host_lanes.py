"""The host lanes: which lines of its message a hop takes, and that it gives every line of the answer once."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from compiler.program.isa import F16_LANES, F32_LANES, Columns, Op, ceil_div
from lpu.link.error import fail, first_of, ramp

_LANES = {
    "fp8": F16_LANES,
    "fp16": F16_LANES,
    "f32": F32_LANES,
}  # of a line in SRAM, by its format on the wire


def host_lines(stated: Mapping[str, Any]) -> int:
    """Lines of a message or an answer, `inputs` or `outputs` of a hop in the manifest."""
    return int(ceil_div(stated["width"], _LANES[stated["wire"]]))


def check_host(columns: Columns, manifest: Manifest) -> None:
    """A program of one hop takes lines that its message has and gives each line of its answer once.

    Raises LinkError; others take and give nothing.
    """
    hops = manifest.hops
    for op, name in ((Op.TAKE, "inputs"), (Op.GIVE, "outputs")):
        rows = np.flatnonzero(columns.op == op)
        if len(hops) != 1:
            if len(rows):
                fail(columns, rows[0], f"the manifest names {len(hops)} hops, a step has the lanes for 1")
            continue
        lines, wire = host_lines(hops[0][name]), hops[0][name]["wire"]
        wires = np.array([kernel.get("wire") == wire for kernel in manifest.kernels])
        if (miss := first_of(~wires[columns.aux[rows]])) >= 0:
            fail(columns, rows[miss], f"its kernel is of another format than the hop's, {wire}")
        out = (columns.src3[rows] < 0) | (columns.src3[rows] + columns.n[rows] > lines)
        if (miss := first_of(out)) >= 0:
            first = columns.src3[rows[miss]]
            fail(columns, rows[miss], f"lines {first} .. {first + columns.n[rows[miss]] - 1} of {lines}")
        if op is Op.GIVE:
            _once(columns, rows, lines)


def _once(columns: Columns, rows: np.ndarray, lines: int) -> None:
    row = np.repeat(rows, columns.n[rows])
    line = columns.src3[row] + ramp(columns.n[rows])
    count = np.bincount(line, minlength=lines)
    if (miss := first_of(count > 1)) >= 0:
        fail(columns, row[np.flatnonzero(line == miss)[-1]], f"line {miss} of the answer is given twice")
    if (miss := first_of(count == 0)) >= 0:
        fail(columns, max(len(columns) - 1, 0), f"line {miss} of the answer is never given")
