"""Rules 2, 3 and 7 on transient lines: every read finds the value that was meant.

Reads and writes are cut into segments that no access divides, so long operands stay few pieces. In the order
(segment, cycle, writes first) the producer of a read is the last write before it.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import Op, by_opcode, is_transfer
from lpu.check.findings import Findings, tag
from lpu.check.operands import Accesses, Operands
from lpu.check.rows import CYCLE, TIME_BITS, Batches, split
from lpu.check.stated import Stated

_BATCH_LINES = 1 << 19  # lines of SRAM looked at together: bounds the memory of the check
_ACCESS_LINES = 16  # an access takes about the memory of this many lines


class _Events(NamedTuple):
    """Pieces of accesses in the order (segment, cycle, writes first)."""

    key: Int[np.ndarray, " events"]
    row: Int[np.ndarray, " events"]
    tag: Int[np.ndarray, " events"]
    line: Int[np.ndarray, " events"]


def memory(
    findings: Findings, stated: Stated, operands: Operands
) -> tuple[Int[np.ndarray, " unread"], Int[np.ndarray, " outputs"]]:
    """Check the transient lines of every chip, some chips at a time.

    Returns the rows with a line that no row reads, and the tags left at the logits and the token (-1: none).
    """
    unread = [np.zeros(0, np.int64)]
    writes, reads = (_lines(a, stated.rows) for a in (operands.writes, operands.reads))
    reach = np.zeros(stated.chips, np.int64)
    for a in (writes, reads):
        np.maximum.at(reach, a.chip, a.stop)
    count = np.bincount(writes.chip, minlength=stated.chips) + np.bincount(reads.chip, minlength=stated.chips)
    batches = Batches(reach + _ACCESS_LINES * count, _BATCH_LINES)
    offset = np.zeros(stated.chips, np.int64)
    for (first, last), write, read in zip(
        batches, batches.of(writes.chip), batches.of(reads.chip), strict=True
    ):
        lines = np.cumsum(reach[first:last])
        offset[first:last] = lines - reach[first:last]
        events = _events(writes.take(write), reads.take(read), offset, int(lines[-1]))
        _resolve(findings, events)
        unread.append(_unread(findings, events))
    return np.unique(np.concatenate(unread)), _outputs(findings, stated, operands.writes)


def _unread(findings: Findings, e: _Events) -> Int[np.ndarray, " rows"]:
    """Rows with a line that is overwritten, or left at the end, and was never read.

    A statistic, a copy or a last result may lie where nobody reads it; any other result is made for a row.
    """
    write = e.key & 1 == 0
    read = np.zeros(len(write), bool)
    read[:-1] = ~write[1:] & (e.key[1:] >> TIME_BITS + 1 == e.key[:-1] >> TIME_BITS + 1)
    rows = e.row[write & ~read]
    may = by_opcode([(op, record.unread) for op, record in INSTRUCTIONS.items()], 0)
    return rows[may[findings.columns.op[rows]] == 0]


def _lines(a: Accesses, rows: int) -> Accesses:
    return a if rows == 1 else a._replace(start=a.start // rows, stop=a.stop // rows)


def _events(writes: Accesses, reads: Accesses, offset: Int[np.ndarray, " chips"], size: int) -> _Events:
    a = Accesses(*(np.concatenate(columns) for columns in zip(writes, reads, strict=True)))
    start = a.start + offset[a.chip]
    interval, segment, begin = split(start, start + (a.stop - a.start), size)
    into = begin - start[interval]
    tag = a.tag[interval]
    tag = np.where(tag < 0, -1, tag + into)
    key = (segment.astype(np.int64) << TIME_BITS | a.time[interval]) << 1 | (interval >= len(writes.row))
    order = np.argsort(key)
    interval, into = interval[order], into[order]
    return _Events(key[order], a.row[interval], tag[order], a.start[interval] + into)


def _resolve(findings: Findings, e: _Events) -> None:
    c = findings.columns
    position = np.arange(len(e.key))
    write = e.key & 1 == 0
    twice = np.flatnonzero((e.key[1:] == e.key[:-1]) & write[1:])
    findings.add(
        3,
        np.maximum(e.row[twice], e.row[twice + 1]),
        lambda i: (
            f"commits line {e.line[twice[i]]} at cycle {c.t1[e.row[twice[i]]]}, so does "
            f"{findings.place(int(min(e.row[twice[i]], e.row[twice[i] + 1])))}"
        ),
    )
    read = np.flatnonzero(~write)
    made = np.maximum.accumulate(np.where(write, position, 0))[read]
    found = write[made] & (e.key[made] >> TIME_BITS + 1 == e.key[read] >> TIME_BITS + 1)
    _unwritten(findings, e, read[~found])
    read, made = read[found], made[found]
    relayed = (c.op[e.row[read]] == Op.SEND) & is_transfer(c.op[e.row[made]])
    bad = np.flatnonzero(relayed)
    findings.add(
        4,
        e.row[read[bad]],
        lambda i: (
            f"sends line {e.line[read[bad[i]]]}, which arrived by {findings.place(e.row[made[bad[i]]])}: "
            "its opcode must be FORWARD"
        ),
    )
    wrong = (e.tag[read] != e.tag[made]) & (e.tag[read] >= 0) & (e.tag[made] >= 0)
    _mistaken(findings, e, read[wrong], made[wrong])


def _unwritten(findings: Findings, e: _Events, read: Int[np.ndarray, " reads"]) -> None:
    c = findings.columns

    def text(i: int) -> str:
        segment = e.key[read[i]] >> TIME_BITS + 1
        later = np.flatnonzero((e.key >> TIME_BITS + 1 == segment) & (e.key & 1 == 0))
        when = (
            f"the first commit is at cycle {c.t1[e.row[later[0]]]}, by {findings.place(e.row[later[0]])}"
            if len(later)
            else "no row writes it"
        )
        return f"reads line {e.line[read[i]]} at cycle {c.t0[e.row[read[i]]]}: {when}"

    findings.add(2, e.row[read], text)


def _mistaken(
    findings: Findings, e: _Events, read: Int[np.ndarray, " reads"], made: Int[np.ndarray, " reads"]
) -> None:
    """A read of another value than meant: its own was there or is to come (rule 2), or never (rule 7)."""
    if not len(read):
        return
    c = findings.columns
    segment = e.key >> TIME_BITS + 1
    written = np.flatnonzero((e.key & 1 == 0) & np.isin(segment, segment[read]))
    names, index = np.unique(np.concatenate([e.tag[written], e.tag[read]]), return_inverse=True)
    place = np.concatenate([segment[written], segment[read]]) * len(names) + index
    meant = np.isin(place[len(written) :], place[: len(written)])

    def text(r: Any, m: Any) -> str:
        own = written[(segment[written] == segment[r]) & (e.tag[written] == e.tag[r])]
        have = f"line {e.line[r]} holds tag {tag(e.tag[m])} of {findings.place(e.row[m])}"
        if not len(own):
            return f"{have}, wants tag {tag(e.tag[r])}"
        when = f"committed at cycle {e.key[own[0]] >> 1 & CYCLE}"
        return f"{have} since cycle {c.t1[e.row[m]]}, wants tag {tag(e.tag[r])} {when}"

    late, other = np.flatnonzero(meant), np.flatnonzero(~meant)
    findings.add(2, e.row[read[late]], lambda i: text(read[late[i]], made[late[i]]))
    findings.add(7, e.row[read[other]], lambda i: text(read[other[i]], made[other[i]]))


def _outputs(findings: Findings, stated: Stated, writes: Accesses) -> Int[np.ndarray, " outputs"]:
    """The lines that the manifest calls logits and token are written by some row; what is left there."""
    chip, word = np.concatenate([stated.logits[:, :2], stated.token]).T
    real = (chip >= 0) & (chip < stated.chips) & (word >= 0) & (word < stated.words)
    there = np.zeros(stated.chips, bool)
    there[chip[real]] = True
    writes = writes.take(there[writes.chip])
    starts = np.sort(writes.chip * stated.words + writes.start)
    stops = np.sort(writes.chip * stated.words + writes.stop)
    key = chip * stated.words + word
    covered = np.searchsorted(starts, key, "right") > np.searchsorted(stops, key, "right")
    findings.note(
        2,
        np.flatnonzero(~(real & covered)),
        lambda i: (
            f"{'token' if i == len(chip) - 1 else f'logits line {i}'}: word {word[i]} of chip {chip[i]} "
            "is written by no row"
        ),
    )
    order = np.argsort(key, kind="stable")
    start, stop = (writes.chip * stated.words + end for end in (writes.start, writes.stop))
    low, high = np.searchsorted(key[order], start), np.searchsorted(key[order], stop)
    left, latest = np.full(len(key), -1), np.full(len(key), -1)
    for write in np.flatnonzero(low < high):
        some = order[low[write] : high[write]]
        some = some[latest[some] <= writes.time[write]]
        latest[some] = writes.time[write]
        into = (key[some] - start[write]) // stated.rows
        left[some] = writes.tag[write] + into if writes.tag[write] >= 0 else -1
    return left
