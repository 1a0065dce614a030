"""What a line holds must be what its reader takes; blocks come whole from one row."""

from typing import Any

import numpy as np
from jaxtyping import Int

from compiler.program.isa import Columns, Holds, Op
from compiler.program.ranges import first_of, ramp
from lpu.link.error import fail
from lpu.link.lines import LineSpans, Resolved

_ATTENTION = (Holds.SCORE, Holds.WEIGHT, Holds.PEAK, Holds.BLOCKS, Holds.FETCHED, Holds.COLD)


def in_words(kind: Any) -> str:
    """What a line holds."""
    return "fp16" if kind == Holds.F16 else Holds(int(kind)).name.lower()


def check_outputs(columns: Columns, lines: Resolved, outputs: Int[np.ndarray, " outputs"]) -> None:
    """The logits end as f32 lines, the token (the last output) as what the final argmax picked."""
    row, kind = lines.row[outputs], lines.kind[outputs]
    wrong = kind != Holds.F32
    wrong[-1] = columns.op[row[-1]] != Op.ARGRED
    if (miss := first_of(wrong)) >= 0:
        what = "the token" if miss == len(outputs) - 1 else f"logits line {miss}"
        left = in_words(kind[miss])
        fail(columns, row[miss], f"leaves {left} where {what} should be", at_commit=True)


def check_kinds(columns: Columns, reads: tuple[LineSpans, LineSpans], lines: Resolved) -> None:
    """Every line is of the kind that its reader takes; blocks are whole, in order, of one row and kernel."""
    for span, found in zip(reads, lines.found, strict=True):
        reader = np.repeat(np.arange(len(columns)), span.count)
        word = span.start[reader] + ramp(span.count) * span.step[reader]
        want, have = span.kind[reader], lines.kind[found]
        if (miss := first_of((want != Holds.COPY) & (want != have))) >= 0:
            wanted, wrote = in_words(want[miss]), in_words(have[miss])
            message = f"reads {wanted} where row {lines.row[found[miss]]} wrote {wrote}"
            fail(columns, int(reader[miss]), message, int(word[miss]))
        block = span.block[reader]
        offset = ramp(span.count) % block
        head = np.arange(len(found)) - offset
        head_line = lines.line[found[head]]
        same = (lines.row[found] == lines.row[found[head]]) & (lines.line[found] == head_line + offset)
        if (miss := first_of(~same | (head_line % block != 0) & (block > 1))) >= 0:
            message = f"reads a {in_words(want[miss])} block whose lines are not one whole result"
            fail(columns, int(reader[miss]), message, int(word[miss]))
        attention = np.isin(want, _ATTENTION)
        if (miss := first_of(attention & (columns.aux[reader] != columns.aux[lines.row[found]]))) >= 0:
            of = "tile" if want[miss] == Holds.COLD else "attention"
            fail(columns, int(reader[miss]), f"reads the result of another {of}", int(word[miss]))
