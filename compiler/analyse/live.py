"""Transient words that wait for a reader, by chip and cycle: derived from the tags of rows."""

import numpy as np
from jaxtyping import Int64

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import TAG_SHIFT, TRANSFER, TRANSIENT, Columns, is_transfer
from compiler.program.manifest import Manifest
from compiler.program.packed import by_kind

Curve = tuple[Int64[np.ndarray, " events"], Int64[np.ndarray, " events"]]  # cycles, words live from each on


def live_words(columns: Columns, manifest: Manifest) -> dict[int, Curve]:
    """Words of values that are live, by chip, in order of the chips.

    A value counts on a chip from its first commit there to its last read there, lines that are read early
    until the last one is. What nobody here reads is handed on: it counts to the last cycle of the rows.
    """
    batch = manifest.rows
    moved = is_transfer(columns.op)
    writes = [np.zeros((4, 0), np.int64)]  # chip, value, cycle, words
    reads = [np.zeros((3, 0), np.int64)]
    for op, aux, rows in by_kind(columns.op, columns.aux):
        record = INSTRUCTIONS[op]
        for operand in record.operands:
            if operand.space != TRANSIENT:
                continue
            tag = getattr(columns, f"{operand.column}_tag")[rows]
            some = rows[tag >= 0]
            value = tag[tag >= 0] >> TAG_SHIFT
            if operand is record.write:
                chip = np.where(moved[some], columns.peer[some], columns.chip[some])
                kernel = TRANSFER if moved[rows[0]] else manifest.kernels[aux]
                lines = operand.extent(columns.n[some], kernel)
                writes.append(np.stack([chip, value, columns.t1[some], lines * batch]))
            else:
                reads.append(np.stack([columns.chip[some], value, columns.t0[some]]))
    return _curves(np.concatenate(writes, axis=1), np.concatenate(reads, axis=1))


def _curves(writes: Int64[np.ndarray, "4 writes"], reads: Int64[np.ndarray, "3 reads"]) -> dict[int, Curve]:
    last = {(c, v): t for c, v, t in sorted(reads.T.tolist(), key=lambda one: one[2])}
    end = int(max(writes[2].max(initial=0), reads[2].max(initial=0)))
    by_chip: dict[int, list[tuple[int, int]]] = {}
    for chip, value, cycle, words in writes.T.tolist():
        over = max(last.get((chip, value), end), cycle)
        by_chip.setdefault(chip, []).extend([(cycle, words), (over, -words)])
    out: dict[int, Curve] = {}
    for chip, events in sorted(by_chip.items()):
        table = np.array(sorted(events, key=lambda one: (one[0], -one[1])), np.int64)
        out[chip] = table[:, 0], np.cumsum(table[:, 1])
    return out


def fullest(found: dict[int, Curve]) -> tuple[int, *Curve]:
    """The chip with the most at once, the first of several, and its curve."""
    if not found:
        return 0, np.zeros(1, np.int64), np.zeros(1, np.int64)
    chip = max(found, key=lambda one: (int(found[one][1].max()), -one))
    return chip, *found[chip]
