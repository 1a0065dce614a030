"""The host lanes: which lines of its message a hop takes, and that it gives every line of the answer once."""

import numpy as np
from jaxtyping import Int

from compiler.program.instructions.host import GiveKernel, TakeKernel
from compiler.program.isa import F16_LANES, F32_LANES, Columns, Op, ceil_div
from compiler.program.manifest import Manifest, Message
from compiler.program.ranges import first_of, ramp
from lpu.link.error import fail

_LANES = {  # of a line in SRAM, by its format on the wire
    "fp8": F16_LANES,
    "fp16": F16_LANES,
    "f32": F32_LANES,
}


def host_lines(message: Message) -> int:
    """Lines of a message or an answer, `inputs` or `outputs` of a hop in the manifest."""
    return int(ceil_div(message.width, _LANES[message.wire]))


def check_host(columns: Columns, manifest: Manifest) -> None:
    """A program of one hop takes lines that its message has and gives each line of its answer once.

    Raises LinkError; others take and give nothing.
    """
    takes, gives = (np.flatnonzero(columns.op == op) for op in (Op.TAKE, Op.GIVE))
    if len(manifest.hops) != 1:
        for rows in (takes, gives):
            if len(rows):
                count = len(manifest.hops)
                fail(columns, rows[0], f"the manifest names {count} hops, a step has the lanes for 1")
        return
    (hop,) = manifest.hops
    _within(columns, takes, hop.inputs, manifest)
    _within(columns, gives, hop.outputs, manifest)
    _once(columns, gives, host_lines(hop.outputs))


def _within(columns: Columns, rows: Int[np.ndarray, " rows"], message: Message, manifest: Manifest) -> None:
    lines, wire = host_lines(message), message.wire
    fits = [isinstance(k, TakeKernel | GiveKernel) and k.wire == wire for k in manifest.kernels]
    if (miss := first_of(~np.array(fits, bool)[columns.aux[rows]])) >= 0:
        fail(columns, rows[miss], f"its kernel is of another format than the hop's, {wire}")
    out = (columns.src3[rows] < 0) | (columns.src3[rows] + columns.n[rows] > lines)
    if (miss := first_of(out)) >= 0:
        first = columns.src3[rows[miss]]
        fail(columns, rows[miss], f"lines {first} .. {first + columns.n[rows[miss]] - 1} of {lines}")


def _once(columns: Columns, rows: Int[np.ndarray, " rows"], lines: int) -> None:
    row = np.repeat(rows, columns.n[rows])
    line = columns.src3[row] + ramp(columns.n[rows])
    count = np.bincount(line, minlength=lines)
    if (miss := first_of(count > 1)) >= 0:
        fail(columns, row[np.flatnonzero(line == miss)[-1]], f"line {miss} of the answer is given twice")
    if (miss := first_of(count == 0)) >= 0:
        fail(columns, max(len(columns) - 1, 0), f"line {miss} of the answer is never given")
