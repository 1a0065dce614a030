"""Rule 7 on what rows are about: counts and lines that cycles and addresses cannot tell.

A row may take the right value at the right cycle and still take too little of it, or its lines in another
order. Tags name value and line, so such rows contradict the rows whose results they take.
"""

import numpy as np
from jaxtyping import Int

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.instructions.norms import LayerNormKernel, MomentsKernel, NormKernel, RstatKernel
from compiler.program.isa import (
    OPCODES,
    PRODUCTS,
    TAG_SHIFT,
    TRANSIENT,
    Holds,
    Instruction,
    Kernel,
    Op,
    by_opcode,
    is_transfer,
)
from lpu.check.findings import Findings, tag
from lpu.check.follow.contexts import MadeRows, contexts
from lpu.check.follow.experts import experts
from lpu.check.follow.vocabulary import vocabulary
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
    vocabulary(findings, stated, groups, left)
    experts(findings, groups, made)


def tagged(findings: Findings, groups: list[Alike]) -> None:
    """Every result and operand of a whole program says what it is, RoPE's table excepted."""
    for group in groups:
        names = {operand.column for operand in group.operands if operand.tagged}
        if group.op in PRODUCTS:
            names |= {"dst"}  # the accumulator
        for name in sorted(names):
            bad = group.rows[getattr(findings.columns, name + "_tag")[group.rows] < 0]
            findings.add(7, bad, f"{name} has no tag")


def _copies(findings: Findings) -> MadeRows:
    """Rows that make one value on several chips must make it the same way."""
    c = findings.columns
    rows = np.flatnonzero(~is_transfer(c.op) & ~np.isin(c.op, PRODUCTS) & (c.op != Op.KVW) & (c.dst_tag >= 0))
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
    return MadeRows(name[first], rows[first])


def _alike(findings: Findings, made: MadeRows) -> None:
    """Rows of one opcode that make parts of one value take parts of the same values, in their order.

    All but those that make nodes of attention, which are followed block by block (`contexts`), and those that
    fetch tiles of experts (`cold`).
    """
    c = findings.columns
    tiles = np.flatnonzero((c.op == Op.MM) & (c.dst_tag >= 0))
    tiles = tiles[np.argsort(c.dst_tag[tiles], kind="stable")]
    vectors = made.row[by_small(c.op[made.row], OPCODES)]  # by opcode and tag
    rows = np.concatenate([vectors[~np.isin(c.op[vectors], (Op.PV, Op.PVF, Op.NODE, Op.FETCHX))], tiles])
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
        if operand.space == TRANSIENT and operand.holds not in (Holds.STAT, Holds.SLOT)
    ]
    return record.ordered and column in lines


def _counts(findings: Findings, stated: Stated, groups: list[Alike], made: MadeRows) -> None:
    """NORM and ROPE take all that the row before them made; their results lie where their inputs did."""
    c = findings.columns
    normed = (c.op == Op.NORM) | (c.op == Op.LNORM)
    norm = np.flatnonzero(normed & (c.src_tag >= 0) & (c.src2_tag >= 0) & (c.dst_tag >= 0))
    stat = made.find(c.src2_tag[norm])
    norm, stat = norm[stat >= 0], stat[stat >= 0]
    begin = c.src_tag[norm] - c.src_tag[stat]
    end = begin + c.n[norm]
    piece = np.array([k.piece if isinstance(k, RstatKernel) else 0 for k in stated.kernels])[c.aux[stat]]
    single = np.array([_leaves_f32(k) for k in stated.kernels])[c.aux[norm]]
    whole = np.where(piece > 0, c.n[norm] == piece, single | (c.n[norm] % 2 == 0))
    ends = (end == c.n[stat]) | whole & (end < c.n[stat])
    size = np.maximum(piece, 1)
    into = np.where(piece > 0, begin // size * -(-size // 2), np.where(single, begin, begin // 2))
    starts = begin % np.where(piece > 0, size, np.where(single, 1, 2)) == 0
    bad = np.flatnonzero((begin < 0) | ~ends | ~starts | (into != c.dst_tag[norm] & _LINE))
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
        if isinstance(kernel, RstatKernel | MomentsKernel):
            _width(findings, rows, kernel.lines)
    rope = np.flatnonzero((c.op == Op.ROPE) & (c.src_tag >= 0))
    head = made.find(c.src_tag[rope])
    size = np.array([getattr(kernel, "head_dim", 0) for kernel in stated.kernels])
    fits = (head < 0) | (c.op[head] != Op.HNORM)
    fits |= (c.n[head] == c.n[rope]) & (size[c.aux[head]] == size[c.aux[rope]])
    odd = np.flatnonzero(~fits)
    findings.add(
        7, rope[odd], lambda i: f"turns {c.n[rope[odd[i]]]} heads, {findings.place(head[odd[i]])} made others"
    )


def _leaves_f32(kernel: Kernel) -> bool:
    """Whether rows of a norm leave a line for each that they take."""
    return isinstance(kernel, LayerNormKernel) or (isinstance(kernel, NormKernel) and kernel.f32)


def _prescaled(findings: Findings) -> None:
    """PRE takes lines to where products read them, whole tiles of a vector and the rest of it."""
    c = findings.columns
    stats, rows = (np.flatnonzero((c.op == op) & (c.src_tag >= 0)) for op in (Op.RSTAT, Op.PRE))
    rows = rows[c.dst_tag[rows] >= 0]
    whole = MadeRows(*_once(c.src_tag[stats] >> TAG_SHIFT, stats))
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
