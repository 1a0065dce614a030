"""Rules 2 and 7 on what outlives a step: preloaded values and the KV cache."""

import numpy as np

from compiler.program import Loads
from lpu.check_findings import Findings, tag
from lpu.check_operands import KIND_NAMES, KIND_WORDS, Accesses
from lpu.check_rows import CYCLE, TIME_BITS, Machine


def weights(findings: Findings, machine: Machine, reads: Accesses, loads: Loads, order: np.ndarray) -> None:
    """Every weight read covers whole preloaded values of its kind, consecutive in place and in tag."""
    if not len(order):
        findings.add(2, reads.row, lambda i: f"reads word {reads.start[i]}: nothing is preloaded")
        return
    begin = loads.chip[order] * machine.words + loads.addr[order]
    end, kind, name = begin + loads.words[order], loads.kind[order], loads.tag[order]
    along = np.argsort(reads.chip * machine.words + reads.start)
    a = reads.take(along)
    want = a.chip * machine.words + a.start
    size = a.stop - a.start
    first = np.maximum(np.searchsorted(begin, want, "right") - 1, 0)
    each = KIND_WORDS[a.kind]
    count = np.where(each > 0, size // np.maximum(each, 1), 1)
    last = np.minimum(first + count - 1, len(order) - 1)
    breaks = np.zeros(len(order), np.int64)
    breaks[1:] = np.cumsum((begin[1:] != end[:-1]) | (kind[1:] != kind[:-1]))
    covered = (begin[first] == want) & (end[last] == want + size) & (breaks[first] == breaks[last])
    bad = np.flatnonzero(~covered | (kind[first] != a.kind))

    def text(i: int) -> str:
        b, load = bad[i], order[first[bad[i]]]
        needs = f"{count[b]} {KIND_NAMES[a.kind[b]]} value(s) in words {a.start[b]} .. {a.stop[b] - 1}"
        has = (
            f"chip {loads.chip[load]} words {loads.addr[load]} .. {loads.addr[load] + loads.words[load] - 1}"
        )
        return f"needs {needs} of chip {a.chip[b]}; the preloaded {KIND_NAMES[loads.kind[load]]} is in {has}"

    findings.add(2, a.row[bad], text)
    jumps = np.zeros(len(order), np.int64)
    jumps[1:] = np.cumsum(name[1:] != name[:-1] + 1)
    good = covered & (kind[first] == a.kind) & (a.tag >= 0) & (name[first] >= 0)
    wrong = np.flatnonzero(good & ((name[first] != a.tag) | (jumps[first] != jumps[last])))
    findings.add(
        7,
        a.row[wrong],
        lambda i: (
            f"word {a.start[wrong[i]]} holds tags {tag(name[first[wrong[i]]])} .. {tag(name[last[wrong[i]]])}"
            f", wants {tag(a.tag[wrong[i]])} .. {tag(a.tag[wrong[i]] + count[wrong[i]] - 1)}"
        ),
    )


def cache(findings: Findings, machine: Machine, reads: Accesses, writes: Accesses) -> None:
    """K and V are read after the step's own are appended; regions of two heads do not overlap."""
    a = Accesses(*(np.concatenate(columns) for columns in zip(writes, reads, strict=True)))
    if not len(a.row):
        return
    start = a.chip * machine.words + a.start
    places, which = np.unique(start, return_inverse=True)
    stop = np.zeros(len(places), np.int64)
    np.maximum.at(stop, which, start + a.stop - a.start)
    clash = np.flatnonzero(stop[:-1] > places[1:])
    overlap = np.flatnonzero(np.isin(which, clash + 1) | (start + a.stop - a.start != stop[which]))
    findings.add(
        5,
        a.row[overlap],
        lambda i: (
            f"KV region of words {a.start[overlap[i]]} .. {a.stop[overlap[i]] - 1} overlaps another one"
        ),
    )
    made, name = np.full(len(places), -1), np.full(len(places), -1)
    appended, asked = which[: len(writes.row)], which[len(writes.row) :]
    np.maximum.at(made, appended, writes.time)
    in_time = np.argsort(writes.time, kind="stable")
    name[appended[in_time]] = writes.tag[in_time]
    early = np.flatnonzero((made[asked] < 0) | (reads.time < made[asked]))
    findings.add(
        2,
        reads.row[early],
        lambda i: (
            f"reads the KV region at word {reads.start[early[i]]} at cycle {reads.time[early[i]]}: "
            + (
                f"KVW commits at cycle {made[asked[early[i]]]}"
                if made[asked[early[i]]] >= 0
                else "no KVW writes it"
            )
        ),
    )
    order = np.argsort(appended << TIME_BITS | writes.time)
    key = (appended << TIME_BITS | writes.time)[order]
    twice = np.flatnonzero(key[1:] == key[:-1])
    findings.add(
        3,
        writes.row[order[twice + 1]],
        lambda i: (
            f"appends at cycle {key[twice[i]] & CYCLE}, so does {findings.place(writes.row[order[twice[i]]])}"
        ),
    )
    wrong = np.flatnonzero((reads.tag >= 0) & (name[asked] >= 0) & (reads.tag != name[asked]))
    findings.add(
        7,
        reads.row[wrong],
        lambda i: f"KV region holds tag {tag(name[asked[wrong[i]]])}, wants tag {tag(reads.tag[wrong[i]])}",
    )
