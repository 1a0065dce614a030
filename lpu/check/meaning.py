"""Rule 7 on what rows are about: counts, lines and chunks that cycles and addresses cannot tell.

A row may take the right value at the right cycle and still take too little of it, or its lines in another
order. Tags name value and line, so such rows contradict the rows whose results they take.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.instructions.attention import AttentionKernel, merged_lines, part_lines, score_lines
from compiler.program.instructions.vector import RstatKernel
from compiler.program.isa import (
    F32_LANES,
    OPCODES,
    TAG_SHIFT,
    TRANSIENT,
    Columns,
    Holds,
    Instruction,
    Op,
    by_opcode,
    is_transfer,
)
from compiler.program.ranges import ramp
from lpu.check.findings import Findings, tag
from lpu.check.rows import Alike, by_small
from lpu.check.stated import Stated
from lpu.check.vocabulary import vocabulary

_LINE = (1 << TAG_SHIFT) - 1
_SAME = ("op", "aux", "n", "src_tag", "src2_tag", "src3_tag", "src3")  # src3 is an address where src3_tag is


class _Made(NamedTuple):
    """Compute rows by the tag of their first result: sorted tags, a row of each."""

    tag: Int[np.ndarray, " made"]
    row: Int[np.ndarray, " made"]

    def find(self, wanted: Int[np.ndarray, "*wanted"]) -> Int[np.ndarray, "*wanted"]:
        """The row that makes each tag first of its result; -1 for none."""
        if not len(self.tag):
            return np.full(np.shape(wanted), -1)
        at = np.minimum(np.searchsorted(self.tag, wanted), len(self.tag) - 1)
        return np.where((self.tag[at] == wanted) & (wanted >= 0), self.row[at], -1)


def meaning(
    findings: Findings, stated: Stated, groups: list[Alike], left: Int[np.ndarray, " outputs"]
) -> None:
    """Check the counts of rows against those of the rows that made their operands.

    left: tags of what lies at the logits and, last, at the token when the step ends.
    """
    made = _copies(findings)
    _alike(findings, made)
    _counts(findings, stated, groups, made)
    for group in groups:
        if not isinstance(group.kernel, AttentionKernel):
            continue
        if group.op in (Op.AOUT, Op.ASUM):
            _chunks(findings, made, group.rows, group.kernel)
        if group.op == Op.AEND:
            _dealt(findings, made, group.rows, group.kernel)
    vocabulary(findings, stated, groups, left)


def tagged(findings: Findings, groups: list[Alike]) -> None:
    """Every result and operand of a whole program says what it is, RoPE's table excepted."""
    for group in groups:
        names = {operand.column for operand in group.operands if operand.tagged}
        if group.op == Op.MM:
            names |= {"dst"}  # the accumulator
        for name in sorted(names):
            bad = group.rows[getattr(findings.columns, name + "_tag")[group.rows] < 0]
            findings.add(7, bad, f"{name} has no tag")


def _copies(findings: Findings) -> _Made:
    """Rows that make one value on several chips must make it the same way."""
    c = findings.columns
    rows = np.flatnonzero(~is_transfer(c.op) & (c.op != Op.MM) & (c.op != Op.KVW) & (c.dst_tag >= 0))
    rows = rows[np.argsort(c.dst_tag[rows], kind="stable")]
    name = c.dst_tag[rows]
    first = np.ones(len(rows), bool)
    first[1:] = name[1:] != name[:-1]
    of = rows[first][np.cumsum(first) - 1] if len(rows) else rows
    same = np.ones(len(rows), bool)
    for field in _SAME:
        differs = getattr(c, field)[rows] != getattr(c, field)[of]
        same &= ~differs | ((c.src3_tag[rows] >= 0) if field == "src3" else False)
    bad = np.flatnonzero(~same)
    findings.add(
        7,
        rows[bad],
        lambda i: f"makes tag {tag(name[bad[i]])} in another way than {findings.place(of[bad[i]])}",
    )
    return _Made(name[first], rows[first])


def _alike(findings: Findings, made: _Made) -> None:
    """Rows of one opcode that make parts of one value take parts of the same values, in their order."""
    c = findings.columns
    tiles = np.flatnonzero((c.op == Op.MM) & (c.dst_tag >= 0))
    tiles = tiles[np.argsort(c.dst_tag[tiles], kind="stable")]
    rows = np.concatenate([made.row[by_small(c.op[made.row], OPCODES)], tiles])  # by opcode and tag
    op, value = c.op[rows].astype(np.int16), c.dst_tag[rows] >> TAG_SHIFT
    joined = (op[1:] == op[:-1]) & (value[1:] == value[:-1])
    before, after = rows[:-1][joined], rows[1:][joined]
    strange = np.zeros(len(after), bool)
    for name in ("src_tag", "src2_tag", "src3_tag"):
        values = getattr(c, name)
        both = (values[after] >= 0) & (values[before] >= 0)
        if name == "src3_tag":
            both &= c.op[after] != Op.WB  # the name of an accumulator: of every contract part another
        strange |= both & (values[after] >> TAG_SHIFT != values[before] >> TAG_SHIFT)
    for column in ("src", "src2"):
        values = getattr(c, column + "_tag")
        ordered = by_opcode([(op, _is_ordered(r, column)) for op, r in INSTRUCTIONS.items()], 0)
        both = (values[after] >= 0) & (values[before] >= 0)
        strange |= (ordered[c.op[after]] > 0) & both & (values[after] <= values[before])
    bad = np.flatnonzero(strange)
    findings.add(
        7,
        after[bad],
        lambda i: (
            f"makes tag {tag(c.dst_tag[after[bad[i]]])} of other values, or of others of their lines, "
            f"than {findings.place(before[bad[i]])} its neighbour"
        ),
    )
    tiles = np.flatnonzero((c.op == Op.MM) & (c.src_tag >= 0))
    matrix = c.src2_tag[tiles] >> TAG_SHIFT  # of every contract part another: parts may meet within a line
    order = np.lexsort((matrix, c.src_tag[tiles]))
    tiles, matrix = tiles[order], matrix[order]
    same = (c.src_tag[tiles][1:] == c.src_tag[tiles][:-1]) & (matrix[1:] == matrix[:-1])
    thin = np.flatnonzero(same & (c.aux[tiles][1:] != c.aux[tiles][:-1]))
    findings.add(
        7, tiles[thin + 1], lambda i: f"takes other lines of one k tile than {findings.place(tiles[thin[i]])}"
    )


def _is_ordered(record: Instruction, column: str) -> bool:
    """Whether line i of its results is made of line i of this operand: no weights, nor one line for all."""
    lines = [
        operand.column
        for operand in record.reads
        if operand.space == TRANSIENT and operand.holds != Holds.STAT
    ]
    return record.ordered and column in lines


def _counts(findings: Findings, stated: Stated, groups: list[Alike], made: _Made) -> None:
    """NORM and ROPE take all that the row before them made; their results lie where their inputs did."""
    c = findings.columns
    norm = np.flatnonzero((c.op == Op.NORM) & (c.src_tag >= 0) & (c.src2_tag >= 0) & (c.dst_tag >= 0))
    stat = made.find(c.src2_tag[norm])
    norm, stat = norm[stat >= 0], stat[stat >= 0]
    begin = c.src_tag[norm] - c.src_tag[stat]
    end = begin + c.n[norm]
    ends = (end == c.n[stat]) | (c.n[norm] % 2 == 0) & (end < c.n[stat])
    bad = np.flatnonzero((begin < 0) | ~ends | (begin != 2 * (c.dst_tag[norm] & _LINE)))
    findings.add(
        7,
        norm[bad],
        lambda i: (
            f"normalises lines {begin[bad[i]]} .. {end[bad[i]] - 1} into line "
            f"{c.dst_tag[norm[bad[i]]] & _LINE}, its statistic is over {c.n[stat[bad[i]]]} lines"
        ),
    )
    _prescaled(findings)
    for _, kernel, rows in groups:
        if isinstance(kernel, RstatKernel):
            _width(findings, rows, -(-kernel.width // F32_LANES))
    rope = np.flatnonzero((c.op == Op.ROPE) & (c.src_tag >= 0))
    head = made.find(c.src_tag[rope])
    size = np.array([getattr(kernel, "head_dim", 0) for kernel in stated.kernels])
    fits = (head < 0) | (c.op[head] != Op.HNORM)
    fits |= (c.n[head] == c.n[rope]) & (size[c.aux[head]] == size[c.aux[rope]])
    odd = np.flatnonzero(~fits)
    findings.add(
        7, rope[odd], lambda i: f"turns {c.n[rope[odd[i]]]} heads, {findings.place(head[odd[i]])} made others"
    )


def _prescaled(findings: Findings) -> None:
    """PRE takes lines to where products read them, whole tiles of a vector and the rest of it."""
    c = findings.columns
    stats, rows = (np.flatnonzero((c.op == op) & (c.src_tag >= 0)) for op in (Op.RSTAT, Op.PRE))
    rows = rows[c.dst_tag[rows] >= 0]
    whole = _Made(*_once(c.src_tag[stats] >> TAG_SHIFT, stats))
    stat = whole.find(c.src_tag[rows] >> TAG_SHIFT)
    begin, end = c.src_tag[rows] & _LINE, (c.src_tag[rows] & _LINE) + c.n[rows]
    ends = (c.n[rows] % 2 == 0) | (stat < 0) | (end == c.n[stat])
    bad = np.flatnonzero(~ends | (begin != 2 * (c.dst_tag[rows] & _LINE)) | (stat >= 0) & (end > c.n[stat]))
    findings.add(
        7,
        rows[bad],
        lambda i: (
            f"scales lines {begin[bad[i]]} .. {end[bad[i]] - 1} into line {c.dst_tag[rows[bad[i]]] & _LINE}"
        ),
    )


def _once(
    name: Int[np.ndarray, " rows"], row: Int[np.ndarray, " rows"]
) -> tuple[Int[np.ndarray, " names"], Int[np.ndarray, " names"]]:
    """The names in order, and a row of each."""
    names, first = np.unique(name, return_index=True)
    return names, row[first]


def _width(findings: Findings, rows: Int[np.ndarray, " rows"], lines: int) -> None:
    c = findings.columns
    cut = rows[c.n[rows] != lines]
    findings.add(7, cut, lambda i: f"is over {c.n[cut[i]]} lines, its width takes {lines}")


def _chunks(findings: Findings, made: _Made, rows: Int[np.ndarray, " rows"], kernel: AttentionKernel) -> None:
    """AOUT and ASUM add up every chunk that was scored, once, each with the weights of its own scores.

    Where a context is dealt over several regions, the maxima over the others are for `_dealt` to look at.
    """
    c = findings.columns
    rows = rows[(c.src_tag[rows] >= 0) & (c.src2_tag[rows] >= 0)]
    size = score_lines(kernel)
    of, piece = _pieces(c.n[rows])
    values = made.find(c.src_tag[rows[of]] + piece * part_lines(kernel))
    known = _every(len(rows), of, (values >= 0) & (c.op[values] == Op.PV))
    rows, values = rows[known], values[known[of]]  # rule 2 or the other tags have found the rest
    of, piece = _pieces(c.n[rows])
    weights = made.find(c.src_tag[values])
    scores = np.where(weights >= 0, made.find(c.src_tag[weights]), -1)
    good = (scores >= 0) & (c.op[weights] == Op.EXP) & (c.op[scores] == Op.QK)
    good &= c.dst_tag[weights] + size == c.src2_tag[rows[of]] + piece * (size + 1)
    good &= (c.src2_tag[values] == c.src2_tag[scores]) & (c.n[values] == c.n[scores])
    head = scores[np.flatnonzero(piece == 0)]
    good &= (c.src2_tag[scores] == c.src2_tag[head[of]]) & (c.src_tag[scores] == c.src_tag[head[of]])
    good &= c.n[values][np.lexsort((c.n[values], of))] == piece  # every chunk once
    right = _every(len(rows), of, good)
    right &= _scored(c, head) == c.n[rows]
    if kernel.stripes == 1:
        peaks = np.unique(np.stack([of, c.src2_tag[weights]]), axis=1)
        right &= _every(len(rows), peaks[0], _cover(c, made, peaks, kernel.chunks, of, scores, c.n[rows]))
    findings.add(7, rows[~right], "does not add up every chunk of its KV region once")


def _pieces(
    count: Int[np.ndarray, " rows"],
) -> tuple[Int[np.ndarray, " pieces"], Int[np.ndarray, " pieces"]]:
    """`count` pieces of each row: the index of the row, the number in it."""
    return np.repeat(np.arange(len(count)), count), ramp(count)


def _every(
    rows: int, of: Int[np.ndarray, " pieces"], good: Bool[np.ndarray, " pieces"]
) -> Bool[np.ndarray, " rows"]:
    """Of which rows all pieces are good."""
    return np.bincount(of[~good], minlength=rows) == 0


def _scored(c: Columns, queries: Int[np.ndarray, " queries"]) -> Int[np.ndarray, " queries"]:
    """How many chunks of their KV regions are scored at all."""
    some = np.flatnonzero((c.op == Op.QK) & (c.src_tag >= 0) & (c.src2_tag >= 0) & (c.dst_tag >= 0))
    regions, count = np.unique(c.src2_tag[some], return_counts=True)
    at = np.minimum(np.searchsorted(regions, c.src2_tag[queries]), max(len(regions) - 1, 0))
    if not len(regions):
        return np.zeros(len(queries), np.int64)
    return np.where(regions[at] == c.src2_tag[queries], count[at], 0)


def _cover(
    c: Columns,
    made: _Made,
    peaks: Int[np.ndarray, "2 peaks"],
    lines: int,
    of: Int[np.ndarray, " pieces"],
    scores: Int[np.ndarray, " pieces"],
    n: Int[np.ndarray, " adding"],
) -> Bool[np.ndarray, " peaks"]:
    """Whether the maxima of each (row, tag of the first line of maxima) are over all scores of the row."""
    maxima = made.find(peaks[1][:, None] + np.arange(lines))
    over = np.where(maxima >= 0, made.find(c.src_tag[maxima]), -1)
    good = ((maxima >= 0) & (c.op[maxima] == Op.SMAX)).all(axis=1)
    good &= c.n[maxima].sum(axis=1) == n[peaks[0]]
    good &= np.isin(peaks[0][:, None] * len(c) + over, (of * len(c) + scores)[scores >= 0]).all(axis=1)
    over = np.sort(over, axis=1)
    return good & (over >= 0).all(axis=1) & (over[:, 1:] != over[:, :-1]).all(axis=1)


def _dealt(findings: Findings, made: _Made, rows: Int[np.ndarray, " rows"], kernel: AttentionKernel) -> None:
    """AEND adds up every stripe of one head once, all weighted against the maximum over all of them."""
    c, count = findings.columns, kernel.stripes
    appends = np.flatnonzero((c.op == Op.KVW) & (c.dst_tag >= 0))
    order = np.argsort(c.dst_tag[appends], kind="stable")
    regions = _Made(c.dst_tag[appends][order], appends[order])
    bad: list[int] = []
    for row in rows[c.src_tag[rows] >= 0].tolist():
        sums = made.find(c.src_tag[row] + np.arange(int(c.n[row])) * merged_lines(kernel))
        if (sums < 0).any() or (c.op[sums] != Op.ASUM).any():
            continue  # rule 2 or the other tags have found it
        of, piece = _pieces(c.n[sums])
        values = made.find(c.src_tag[sums[of]] + piece * part_lines(kernel))
        weights = made.find(c.src_tag[values])
        scores = made.find(c.src_tag[weights])
        if min(values.min(), weights.min(), scores.min()) < 0:
            continue
        held = regions.find(np.unique(c.src2_tag[scores]))
        dealt = len(sums) == len(held) == count and np.array_equal(np.sort(c.src3[held]), np.arange(count))
        one = all(
            len(np.unique(values)) == 1 for values in (c.src_tag[held], c.src2_tag[held], c.src_tag[scores])
        )
        one &= len(np.unique(c.src2_tag[weights])) == 1
        peaks = made.find(c.src2_tag[weights[0]] + np.arange(kernel.chunks))  # of all of them
        if not (dealt and one and _covers(c, made, peaks, scores)):
            bad.append(row)
    findings.add(7, np.array(bad, np.int64), "does not add up every stripe of one KV head once")


def _covers(
    c: Columns, made: _Made, peaks: Int[np.ndarray, " peaks"], scores: Int[np.ndarray, " scores"]
) -> bool:
    """Whether these rows are the maxima over all these scores."""
    if (peaks < 0).any() or (c.op[peaks] != Op.SMAX).any() or c.n[peaks].sum() != len(scores):
        return False
    over = made.find(c.src_tag[peaks])
    return bool(np.isin(over, scores).all()) and len(np.unique(over)) == len(over)
