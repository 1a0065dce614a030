"""Rule 7 on the last rows of a step: the largest logit is looked for among all of the vocabulary, once."""

import numpy as np
from jaxtyping import Int

from compiler.program.instructions.vector import ArgmaxKernel
from compiler.program.isa import F32_LANES, TAG_SHIFT, Op
from lpu.check.findings import Findings, tag
from lpu.check.rows import Alike
from lpu.check.stated import Stated

_LINE = (1 << TAG_SHIFT) - 1


def vocabulary(
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
