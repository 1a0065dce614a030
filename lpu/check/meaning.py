"""Rule 7 on what rows are about: counts and lines that cycles and addresses cannot tell.

A row may take the right value at the right cycle and still take too little of it, or its lines in another
order. Tags name value and line, so such rows contradict the rows whose results they take.
"""

import numpy as np
from jaxtyping import Int

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.instructions.vector import ArgmaxKernel, RstatKernel
from compiler.program.isa import (
    F32_LANES,
    OPCODES,
    TAG_SHIFT,
    TRANSIENT,
    Instruction,
    Op,
    by_opcode,
    is_transfer,
)
from lpu.check.contexts import Made, contexts
from lpu.check.findings import Findings, tag
from lpu.check.rows import Alike, by_small
from lpu.check.stated import Stated

_LINE = (1 << TAG_SHIFT) - 1
_SAME = ("op", "aux", "n", "src_tag", "src2_tag", "src3_tag", "src3")  # src3 is an address where src3_tag is


def meaning(
    findings: Findings, stated: Stated, groups: list[Alike], left: Int[np.ndarray, " outputs"]
) -> None:
    """Check the counts of rows against those of the rows that made their operands.

    left: tags of what lies at the logits and, last, at the token when the step ends.
    """
    made = _copies(findings)
    _alike(findings, made)
    _counts(findings, stated, groups, made)
    contexts(findings, groups, made)
    _vocabulary(findings, stated, groups, left)


def tagged(findings: Findings, groups: list[Alike]) -> None:
    """Every result and operand of a whole program says what it is, RoPE's table excepted."""
    for group in groups:
        names = {operand.column for operand in group.operands if operand.tagged}
        if group.op == Op.MM:
            names |= {"dst"}  # the accumulator
        for name in sorted(names):
            bad = group.rows[getattr(findings.columns, name + "_tag")[group.rows] < 0]
            findings.add(7, bad, f"{name} has no tag")


def _copies(findings: Findings) -> Made:
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
    return Made(name[first], rows[first])


def _alike(findings: Findings, made: Made) -> None:
    """Rows of one opcode that make parts of one value take parts of the same values, in their order.

    All but those that make nodes of attention, which are followed block by block (`contexts`).
    """
    c = findings.columns
    tiles = np.flatnonzero((c.op == Op.MM) & (c.dst_tag >= 0))
    tiles = tiles[np.argsort(c.dst_tag[tiles], kind="stable")]
    vectors = made.row[by_small(c.op[made.row], OPCODES)]  # by opcode and tag
    rows = np.concatenate([vectors[~np.isin(c.op[vectors], (Op.PV, Op.NODE))], tiles])
    op, value = c.op[rows].astype(np.int16), c.dst_tag[rows] >> TAG_SHIFT
    joined = (op[1:] == op[:-1]) & (value[1:] == value[:-1])
    before, after = rows[:-1][joined], rows[1:][joined]
    strange = np.zeros(len(after), bool)
    for name in ("src_tag", "src2_tag", "src3_tag"):
        values = getattr(c, name)
        both = (values[after] >= 0) & (values[before] >= 0)
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
    tiles = tiles[np.argsort(c.src_tag[tiles], kind="stable")]
    same = c.src_tag[tiles][1:] == c.src_tag[tiles][:-1]
    thin = np.flatnonzero(same & (c.aux[tiles][1:] != c.aux[tiles][:-1]))
    findings.add(
        7, tiles[thin + 1], lambda i: f"takes other lines of one k tile than {findings.place(tiles[thin[i]])}"
    )


def _is_ordered(record: Instruction, column: str) -> bool:
    """Whether line i of its results is made of line i of this operand; weights are no lines."""
    lines = [operand.column for operand in record.reads if operand.space == TRANSIENT]
    return record.ordered and column in lines


def _counts(findings: Findings, stated: Stated, groups: list[Alike], made: Made) -> None:
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


def _width(findings: Findings, rows: Int[np.ndarray, " rows"], lines: int) -> None:
    c = findings.columns
    cut = rows[c.n[rows] != lines]
    findings.add(7, cut, lambda i: f"is over {c.n[cut[i]]} lines, its width takes {lines}")


def _vocabulary(
    findings: Findings, stated: Stated, groups: list[Alike], left: Int[np.ndarray, " outputs"]
) -> None:
    """The rows that look for the largest logit look at every line of the vocabulary once, as the logits."""
    c = findings.columns
    vocab = [g.kernel.vocab for g in groups if isinstance(g.kernel, ArgmaxKernel)]
    rows = np.flatnonzero((c.op == Op.ARGMAX) & (c.src_tag >= 0) & (c.dst_tag >= 0))
    if not vocab or not len(stated.logits):
        return
    lines = -(-max(vocab) // F32_LANES)
    _candidates(findings, rows)
    value = c.src_tag[rows] - c.src3[rows]  # tag of its line 0
    order = np.lexsort((c.src3[rows], value))
    rows, value = rows[order], value[order]
    again = (value[1:] == value[:-1]) & (c.src3[rows[1:]] == c.src3[rows[:-1]])
    again &= c.n[rows[1:]] == c.n[rows[:-1]]  # the same lines on another chip
    rows, value = np.delete(rows, 1 + np.flatnonzero(again)), np.delete(value, 1 + np.flatnonzero(again))
    begin, end = c.src3[rows], c.src3[rows] + c.n[rows]
    fresh = np.diff(value, prepend=-2) != 0
    wanted = np.where(fresh, 0, np.roll(end, 1))
    gap = np.flatnonzero(begin != wanted)
    findings.add(7, rows[gap], lambda i: f"begins at line {begin[gap[i]]}, not {wanted[gap[i]]}")
    short = np.flatnonzero(np.roll(fresh, -1) & (end != lines))
    findings.add(7, rows[short], lambda i: f"ends at line {end[short[i]]} of a vocabulary of {lines} lines")
    named = np.sort(stated.logits[:, 2])
    zero = c.src_tag[rows[:1]] - c.src3[rows[:1]]  # of each line its logits line is this many tags further
    wrong = np.flatnonzero(np.isin(left[:-1] - stated.logits[:, 2], value, invert=True) & (left[:-1] >= 0))
    findings.note(
        7,
        wrong if len(zero) else wrong[:0],
        lambda i: (
            f"manifest: logits line {stated.logits[i, 2]} is where tag {tag(left[i])} is left, "
            f"not {tag(zero[0] + stated.logits[i, 2])}"
        ),
    )
    tokens = c.dst_tag[(c.op == Op.ARGRED) & (c.dst_tag >= 0)]
    if left[-1] >= 0 and len(tokens) and left[-1] not in tokens:
        findings.tell(7, f"manifest: the token is where tag {tag(left[-1])} is left")
    if not np.array_equal(named, np.arange(lines)):
        findings.tell(7, f"manifest: logits name {len(named)} lines, not {lines} once")


def _candidates(findings: Findings, rows: Int[np.ndarray, " rows"]) -> None:
    """ARGRED picks among all that the ARGMAX rows of one vocabulary found."""
    c = findings.columns
    found, count = np.unique(np.unique(c.dst_tag[rows]) >> TAG_SHIFT, return_counts=True)
    last = np.flatnonzero((c.op == Op.ARGRED) & np.isin(c.src_tag >> TAG_SHIFT, found))
    wanted = count[np.searchsorted(found, c.src_tag[last] >> TAG_SHIFT)]
    bad = np.flatnonzero((c.n[last] != wanted) | (c.src_tag[last] & _LINE != 0))
    findings.add(7, last[bad], lambda i: f"picks among {c.n[last[bad[i]]]} of {wanted[bad[i]]} candidates")
