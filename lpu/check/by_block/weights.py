"""The rules of preloaded values, looked at once per block: calls of a block differ in their bases alone.

A call reads the values of its own block at the same distances as the first call of that block does. So where
the first call finds what it needs, and no two calls' values share a word, all do. Whatever is found wrong, or
is not of this form, is left to `weights`, which looks at every chip and says what is wrong there.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import OPERANDS, SHARED, SPACE_SHIFT, WEIGHTS, Columns, by_opcode
from compiler.program.program import LOADS, Call, Loads, Program
from lpu.check.findings import Findings
from lpu.check.operands import Accesses
from lpu.check.stated import Stated
from lpu.check.weights import by_chip, weights, whole

_MOST_TAG = 1 << 31  # of a call: tags of its values stay positive


class _Extents(NamedTuple):
    """Words [first, end) of a chip, all of which may be preloaded."""

    chip: Int[np.ndarray, " extents"]
    first: Int[np.ndarray, " extents"]
    end: Int[np.ndarray, " extents"]


def program_weights(
    findings: Findings, stated: Stated, reads: Accesses, program: Program, context: int
) -> None:
    """Rules 2, 5 and 7 on the weight reads of a program's expanded columns and on its preloaded values."""
    if sum(findings.counts) or not _settled(findings.columns, stated, reads, program, context):
        weights(findings, stated, reads, by_chip(program))


def _settled(columns: Columns, stated: Stated, reads: Accesses, program: Program, context: int) -> bool:
    """Whether nothing is wrong; False, too, where only `weights` can say."""
    scratch = Findings(columns)
    first = {call.block: call for call in reversed(program.calls)}
    apart = np.zeros(len(columns), bool)  # rows that read values which are no block's own
    looked = np.full(len(columns), -1, np.int32)  # of the rows of first calls their block
    others = {block: _reads_others(program.blocks[block].columns[context]) for block in first}
    stop = 0
    for call in program.calls:
        start, stop = stop, stop + len(others[call.block])
        apart[start:stop] = others[call.block]
        if call is first[call.block]:
            looked[start:stop] = call.block
    own = {block: program.blocks[block].loads.addr >> SPACE_SHIFT == WEIGHTS for block in first}
    tags = [int(program.blocks[block].loads.tag.min(initial=0)) for block in first]
    if min([*tags, *(call.tag for call in program.calls)], default=0) < 0:
        return False
    if max((call.tag for call in program.calls), default=0) >= _MOST_TAG:
        return False
    seen = reads.take((looked[reads.row] >= 0) & ~apart[reads.row])
    for block, call in first.items():
        loads = _some(program.blocks[block].loads, own[block])
        mine = seen.take(looked[seen.row] == block)
        weights(scratch, stated, mine, whole(program.placed(call, loads)))
    shared = _joined(program.placed(call, loads) for call, loads in _shared(program, own))
    weights(scratch, stated, reads.take(apart[reads.row]), whole(shared))
    return not sum(scratch.counts) and _disjoint(stated, [*_extents(program, own), _words(shared)])


def _reads_others(rows: Columns) -> Bool[np.ndarray, " rows"]:
    """Which rows name a weight operand outside the weight space of their call."""
    out = np.zeros(len(rows), bool)
    for name in OPERANDS:
        reads = [
            (op, any(o.column == name and o.space in (WEIGHTS, SHARED) for o in record.reads))
            for op, record in INSTRUCTIONS.items()
        ]
        out |= (by_opcode(reads, 0)[rows.op] > 0) & (getattr(rows, name) >> SPACE_SHIFT != WEIGHTS)
    return out


def _shared(program: Program, own: dict[int, Bool[np.ndarray, " loads"]]) -> Iterator[tuple[Call, Loads]]:
    """The values of each call that are not in the weight space of the call."""
    for call in program.calls:
        if not own[call.block].all():
            yield call, _some(program.blocks[call.block].loads, ~own[call.block])


def _extents(program: Program, own: dict[int, Bool[np.ndarray, " loads"]]) -> Iterator[_Extents]:
    """From the first to the last value of each call on each of its chips."""
    reach: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for block, mine in own.items():
        loads = _some(program.blocks[block].loads, mine)
        ranks = np.unique(loads.chip)
        at, words = np.searchsorted(ranks, loads.chip), loads.addr & ((1 << SPACE_SHIFT) - 1)
        low, high = np.full(len(ranks), 1 << SPACE_SHIFT), np.zeros(len(ranks), np.int64)
        np.minimum.at(low, at, words)
        np.maximum.at(high, at, words + loads.words)
        reach[block] = ranks, low, high
    for call in program.calls:
        ranks, low, high = reach[call.block]
        base = np.array(call.weight_base, np.int64)[ranks]
        yield _Extents(np.array(call.chips, np.int64)[ranks], base + low, base + high)


def _words(loads: Loads) -> _Extents:
    return _Extents(loads.chip, loads.addr, loads.addr + loads.words)


def _disjoint(stated: Stated, parts: list[_Extents]) -> bool:
    """Whether all extents lie in the weight regions of their chips, apart from each other."""
    a = _Extents(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    if not ((a.chip >= 0) & (a.chip < stated.chips)).all():
        return False
    base, words = stated.regions[a.chip, 2].T
    inside = (a.first >= np.maximum(base, 0)) & (a.end <= np.minimum(base + words, stated.words))
    order = np.lexsort((a.first, a.chip))
    chip, first, end = (column[order] for column in a)
    return bool(inside.all() and ((chip[1:] != chip[:-1]) | (first[1:] >= end[:-1])).all())


def _some(loads: Loads, which: Bool[np.ndarray, " loads"]) -> Loads:
    return Loads(**{name: getattr(loads, name)[which] for name in LOADS})


def _joined(parts: Iterator[Loads]) -> Loads:
    every = [Loads(**{name: np.zeros(0, np.int64) for name in LOADS}), *parts]
    return Loads(**{name: np.concatenate([getattr(one, name) for one in every]) for name in LOADS})
