"""What a line holds must be what its reader takes; blocks come whole from one row."""

import numpy as np

from compiler.program.isa import Columns, Op
from lpu.link.error import fail, first_of, ramp
from lpu.link.lines import COPY, F32, MERGED, NAMES, PART, PEAK, SCORE, SUM, WEIGHT, Lines, Spans

_ATTENTION = (SCORE, WEIGHT, SUM, PART, PEAK, MERGED)


def check_outputs(columns: Columns, lines: Lines, outputs: np.ndarray) -> None:
    """The logits end as f32 lines, the token (the last output) as what the final argmax picked."""
    row, kind = lines.row[outputs], lines.kind[outputs]
    wrong = kind != F32
    wrong[-1] = columns.op[row[-1]] != Op.ARGRED
    if (miss := first_of(wrong)) >= 0:
        what = "the token" if miss == len(outputs) - 1 else f"logits line {miss}"
        fail(columns, row[miss], f"leaves {NAMES[kind[miss]]} where {what} should be", at_commit=True)


def check_kinds(columns: Columns, reads: tuple[Spans, Spans], lines: Lines) -> None:
    """Every line is of the kind that its reader takes; blocks are whole, in order, of one row and kernel."""
    for span, found in zip(reads, lines.found, strict=True):
        reader = np.repeat(np.arange(len(columns)), span.count)
        word = span.start[reader] + ramp(span.count) * span.step[reader]
        want, have = span.kind[reader], lines.kind[found]
        if (miss := first_of((want != COPY) & (want != have))) >= 0:
            message = (
                f"reads {NAMES[want[miss]]} where row {lines.row[found[miss]]} wrote {NAMES[have[miss]]}"
            )
            fail(columns, int(reader[miss]), message, int(word[miss]))
        block = span.block[reader]
        offset = ramp(span.count) % block
        head = np.arange(len(found)) - offset
        head_line = lines.line[found[head]]
        same = (lines.row[found] == lines.row[found[head]]) & (lines.line[found] == head_line + offset)
        if (miss := first_of(~same | (head_line % block != 0) & (block > 1))) >= 0:
            message = f"reads a {NAMES[want[miss]]} block whose lines are not one whole result"
            fail(columns, int(reader[miss]), message, int(word[miss]))
        attention = np.isin(want, _ATTENTION)
        if (miss := first_of(attention & (columns.aux[reader] != columns.aux[lines.row[found]]))) >= 0:
            fail(columns, int(reader[miss]), "reads the result of another attention", int(word[miss]))
