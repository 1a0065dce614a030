"""Rules 2 and 7 on what outlives a step: preloaded values and the KV cache.

A chip's preloaded values are checked by themselves, so those of a whole rack (millions) need never lie in
memory.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from compiler.program.instructions.attention import AttentionKernel
from compiler.program.isa import (
    F16_LANES,
    F32_LANES,
    GAIN,
    LOAD_NAMES,
    SHIFTED,
    STACKS,
    TABLE,
    TAG_SHIFT,
    TILE,
    TILE16,
    TILE_ROWS,
    Columns,
    Op,
)
from compiler.program.program import LOADS, Block, Loads, Program
from lpu.check.findings import Findings, tag
from lpu.check.follow.states import beside, is_beside
from lpu.check.operands import Accesses
from lpu.check.rows import CYCLE, TIME_BITS, by_small
from lpu.check.stated import Stated

_WORDS = np.array(
    [80, 1, 1, 0, 0, 1, 1, 0, 160, 0, 0]
)  # per preloaded value, by kind; tables and stacks have any number


class Preloads(NamedTuple):
    """Every preloaded value of some chips, and the number of each in the whole program."""

    number: Int[np.ndarray, " loads"]
    loads: Loads


def whole(loads: Loads) -> list[Preloads]:
    """All values as one piece."""
    return [Preloads(np.arange(len(loads)), loads)]


def by_chip(program: Program) -> Iterator[Preloads]:
    """The values of a program as it places them, one chip after another."""
    blocks = [_by_rank(block) for block in program.blocks]
    held: dict[int, list[tuple[int, int, Preloads]]] = {}  # per chip: call, first number, the call's values
    start = 0
    for index, call in enumerate(program.calls):
        for rank, piece in blocks[call.block].items():
            held.setdefault(call.chips[rank], []).append((index, start, piece))
        start += len(program.blocks[call.block].loads)
    for chip in sorted(held):
        numbers = [piece.number + first for _, first, piece in held[chip]]
        tables = [program.placed(program.calls[index], piece.loads) for index, _, piece in held[chip]]
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in LOADS}
        yield Preloads(np.concatenate(numbers), Loads(**columns))


def _by_rank(block: Block) -> dict[int, Preloads]:
    """The values of a block by rank."""
    loads = block.loads
    order = np.argsort(loads.chip, kind="stable")
    starts = np.flatnonzero(np.diff(loads.chip[order], prepend=-1))
    some = np.split(order, starts[1:]) if len(order) else []
    return {
        int(loads.chip[rows[0]]): Preloads(
            rows, Loads(**{name: getattr(loads, name)[rows] for name in LOADS})
        )
        for rows in some
    }


class PlacedValues(NamedTuple):
    """The preloaded values in order of chip and address; where each begins and ends in the rack's words."""

    number: Int[np.ndarray, " loads"]
    loads: Loads
    begin: Int[np.ndarray, " loads"]
    end: Int[np.ndarray, " loads"]


def place(findings: Findings, stated: Stated, preloads: Preloads) -> PlacedValues:
    """The well formed loads, all of them disjoint and inside the weight regions unless a finding says so."""
    number, loads = preloads
    known = (loads.chip >= 0) & (loads.chip < stated.chips)
    known &= (
        (loads.kind >= 0) & (loads.kind < len(LOAD_NAMES)) & (loads.words > 0) & (loads.words <= stated.words)
    )
    chip, kind = (loads.chip, loads.kind) if known.all() else (loads.chip * known, loads.kind * known)
    fixed = _WORDS[kind]
    known &= (loads.words == fixed) | (fixed == 0)
    base, words = stated.regions[:, 2].T
    low, high = np.maximum(base, 0), np.minimum(base + words, stated.words)
    within = (loads.addr >= low[chip]) & (loads.addr <= high[chip] - loads.words)
    findings.note(
        0,
        np.flatnonzero(~known),
        lambda i: f"load {number[i]}: chip {loads.chip[i]}, kind {loads.kind[i]}, {loads.words[i]} words",
    )
    findings.note(
        5,
        np.flatnonzero(known & ~within),
        lambda i: (
            f"load {number[i]}: words {loads.addr[i]} .. {loads.addr[i] + loads.words[i] - 1} "
            f"of chip {chip[i]}, its weights region is words {low[chip[i]]} .. {high[chip[i]] - 1}"
        ),
    )
    begin = loads.chip * stated.words + loads.addr
    fine = known & within
    if not fine.all() or (begin[1:] < begin[:-1]).any():
        order = np.flatnonzero(fine)
        order = order[np.argsort(begin[order], kind="stable")]
        number, begin = number[order], begin[order]
        loads = Loads(**{name: getattr(loads, name)[order] for name in LOADS})
    end = begin + loads.words
    findings.note(
        5,
        np.flatnonzero(end[:-1] > begin[1:]),
        lambda i: (
            f"loads {number[i]} and {number[i + 1]} share word {loads.addr[i + 1]} of chip "
            f"{loads.chip[i]}: the first ends at {end[i] - 1 - loads.chip[i] * stated.words}"
        ),
    )
    return PlacedValues(number, loads, begin, end)


def weights(findings: Findings, stated: Stated, reads: Accesses, pieces: Iterable[Preloads]) -> None:
    """Every weight read covers whole preloaded values of its kind, consecutive in place and in tag.

    pieces: the preloaded values; no chip has some in one piece and some in another.
    """
    order = by_small(reads.chip, stated.chips)
    begins = np.searchsorted(reads.chip[order], np.arange(stated.chips + 1))
    left = np.ones(stated.chips, bool)  # chips whose values no piece has brought
    for preloads in pieces:
        chip = preloads.loads.chip
        here = np.zeros(stated.chips, bool)
        here[chip[(chip >= 0) & (chip < stated.chips)]] = True
        left &= ~here
        chips = np.flatnonzero(here)
        some = [order[begins[chip] : begins[chip + 1]] for chip in chips.tolist()]
        if some:
            _preloaded(findings, stated, reads.take(np.concatenate(some)), preloads)
        else:
            place(findings, stated, preloads)
    bare = np.flatnonzero(left[reads.chip])
    findings.add(2, reads.row[bare], lambda i: f"reads word {reads.start[bare[i]]}: nothing is preloaded")


def _preloaded(findings: Findings, stated: Stated, reads: Accesses, preloads: Preloads) -> None:
    number, loads, begin, end = place(findings, stated, preloads)
    kind, name = loads.kind, loads.tag
    if not len(number):
        findings.add(2, reads.row, lambda i: f"reads word {reads.start[i]}: nothing is preloaded")
        return
    along = np.argsort(reads.chip * stated.words + reads.start)
    a = reads.take(along)
    want = a.chip * stated.words + a.start
    size = a.stop - a.start
    first = np.maximum(np.searchsorted(begin, want, "right") - 1, 0)
    each = _WORDS[a.kind]
    count = np.where(each > 0, size // np.maximum(each, 1), 1)
    last = np.minimum(first + count - 1, len(number) - 1)
    breaks = _changes((begin[1:] != end[:-1]) | (kind[1:] != kind[:-1]))
    covered = (begin[first] == want) & (end[last] == want + size) & (breaks[first] == breaks[last])
    bad = np.flatnonzero(~covered | (kind[first] != a.kind))

    def text(i: int) -> str:
        b, load = bad[i], first[bad[i]]
        needs = f"{count[b]} {LOAD_NAMES[a.kind[b]]} value(s) in words {a.start[b]} .. {a.stop[b] - 1}"
        has = (
            f"chip {loads.chip[load]} words {loads.addr[load]} .. {loads.addr[load] + loads.words[load] - 1}"
        )
        return f"needs {needs} of chip {a.chip[b]}; the preloaded {LOAD_NAMES[loads.kind[load]]} is in {has}"

    findings.add(2, a.row[bad], text)
    lines, n = loads.lines[first], findings.columns.n[a.row]
    cut = np.flatnonzero(np.isin(a.kind, (TABLE, *STACKS)) & covered & (lines != n))
    findings.add(
        2,
        a.row[cut],
        lambda i: f"reads {n[cut[i]]} lines of a {LOAD_NAMES[a.kind[cut[i]]].lower()} of {lines[cut[i]]}",
    )
    jumps = _changes(name[1:] != name[:-1] + 1)
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

    if good.all():
        _position(findings, stated, a, loads, first, last)
    else:
        _position(findings, stated, a.take(good), loads, first[good], last[good])


def _position(
    findings: Findings,
    stated: Stated,
    a: Accesses,
    loads: Loads,
    first: Int[np.ndarray, " reads"],
    last: Int[np.ndarray, " reads"],
) -> None:
    """What a row reads is for the rows and columns that its tags name: k0 and n0 of the preloaded values."""
    mine = is_beside(findings.columns.op[a.row])
    if mine.any():
        beside(findings, a.take(mine), loads, first[mine])
    mine |= findings.columns.op[a.row] == Op.FETCHX  # products name what it fetches
    if mine.any():
        a, first, last = a.take(~mine), first[~mine], last[~mine]
    c, line = findings.columns, (1 << TAG_SHIFT) - 1
    a, first, last = _halves(stated, c, a, first, last)
    k0, n0 = loads.k0, loads.n0
    down = np.where(loads.kind[1:] == TILE16, TILE_ROWS, 0)  # of a router all rows of one line of columns
    across = np.where(loads.kind[1:] == TILE16, 0, F32_LANES)
    jumps = _changes((n0[1:] != n0[:-1] + across) | (k0[1:] != k0[:-1] + down))
    source = c.src_tag[a.row]
    target = np.where(c.op[a.row] == Op.WB, c.src3_tag[a.row], c.dst_tag[a.row])  # the columns of a sum
    lanewise = (a.kind == GAIN) | (a.kind == SHIFTED) | (c.op[a.row] == Op.RANK)  # the operand, lane by lane
    column = np.where(lanewise, source & line, target & line) * F32_LANES
    column = np.where(c.op[a.row] == Op.HNORM, 0, column)
    column = np.where(c.op[a.row] == Op.WGLU, column * _biases(stated, c, a.row), column)
    column = np.where(c.op[a.row] == Op.AOUT, _kv_head(stated, c, a.row) * F32_LANES, column)
    depth = np.where(np.isin(a.kind, (TILE, *STACKS, TILE16)), (source & line) * F16_LANES, 0)
    tagged = (source >= 0) & (target >= 0)
    wrong = np.flatnonzero(
        tagged & ((n0[first] != column) | (k0[first] != depth) | (jumps[first] != jumps[last]))
    )
    findings.add(
        7,
        a.row[wrong],
        lambda i: (
            f"needs {LOAD_NAMES[a.kind[wrong[i]]]} values of row {depth[wrong[i]]} and column "
            f"{column[wrong[i]]} onwards, finds row {k0[first[wrong[i]]]}, column {n0[first[wrong[i]]]}"
        ),
    )


def _halves(
    stated: Stated,
    c: Columns,
    a: Accesses,
    first: Int[np.ndarray, " reads"],
    last: Int[np.ndarray, " reads"],
) -> tuple[Accesses, Int[np.ndarray, " parts"], Int[np.ndarray, " parts"]]:
    """The reads, that of scales and as many biases of a router as two."""
    biased = np.array([getattr(kernel, "has_bias", False) for kernel in stated.kernels], bool)
    rows = np.flatnonzero(c.op[a.row] == Op.RANK)
    rows = rows[biased[c.aux[a.row[rows]]]]
    if not len(rows):
        return a, first, last
    middle = (first[rows] + last[rows] + 1) // 2
    ends = last.copy()
    ends[rows] = middle - 1
    a = a.take(np.concatenate([np.arange(len(first)), rows]))
    return a, np.concatenate([first, middle]), np.concatenate([ends, last[rows]])


def _biases(stated: Stated, c: Columns, rows: Int[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
    """Words that lie beside each line of WGLU rows."""
    return np.array([getattr(kernel, "biases", 1) for kernel in stated.kernels])[c.aux[rows]]


def _kv_head(stated: Stated, c: Columns, rows: Int[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
    """Which KV head's query heads AOUT rows make, by the line that they begin."""
    size = [
        -(-k.group * k.head_dim // F16_LANES) if isinstance(k, AttentionKernel) else 1 for k in stated.kernels
    ]
    return (c.dst_tag[rows] & ((1 << TAG_SHIFT) - 1)) // np.array(size)[c.aux[rows]]


def _changes(differs: Bool[np.ndarray, " gaps"]) -> Int[np.ndarray, " gaps+1"]:
    """How often neighbours differed up to each entry."""
    return np.concatenate([np.zeros(1, np.int32), np.cumsum(differs, dtype=np.int32)])


def cache(findings: Findings, stated: Stated, reads: Accesses, writes: Accesses) -> None:
    """K and V are read after the step's own are appended; regions of two heads do not overlap."""
    a = Accesses(*(np.concatenate(columns) for columns in zip(writes, reads, strict=True)))
    if not len(a.row):
        return
    start = a.chip * stated.words + a.start
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
    inside = findings.columns.op[reads.row] != Op.KVOUT  # what an egress reads, other steps have left
    early = np.flatnonzero(inside & ((made[asked] < 0) | (reads.time < made[asked])))
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
