"""States of fixed size: a row reads its own as the last step left it, and leaves it anew, once a step.

So no two rows renew words that they share, nothing else touches them, and what lies beside a line of
channels, taps or decays, is that line's.
"""

import numpy as np
from jaxtyping import Bool, Int

from compiler.program.instructions.recurrent import DeltaKernel, SsmKernel, StateKernel
from compiler.program.isa import F32_LANES, TAG_SHIFT, Op, ceil_div
from compiler.program.program import Loads
from lpu.check.findings import Findings
from lpu.check.operands import Accesses
from lpu.check.rows import Alike
from lpu.check.stated import Stated

_LINE = (1 << TAG_SHIFT) - 1


def states(findings: Findings, stated: Stated, renewed: Accesses, others: tuple[Accesses, ...]) -> None:
    """Rules 3 and 5: each state is renewed once a step, and nothing else lies in its words."""
    if not len(renewed.row):
        return
    begin = renewed.chip * stated.words + renewed.start
    order = np.argsort(begin, kind="stable")
    end = (begin + renewed.stop - renewed.start)[order]
    twice = np.flatnonzero(end[:-1] > begin[order][1:])
    late = order[twice + 1]
    findings.add(
        3,
        renewed.row[late],
        lambda i: (
            f"renews the state at word {renewed.start[late[i]]}, of which "
            f"{findings.place(int(renewed.row[order[twice[i]]]))} renews words in the same step"
        ),
    )
    for a in others:
        first = a.chip * stated.words + a.start
        at = np.searchsorted(begin[order], first + a.stop - a.start, "left") - 1
        bad = np.flatnonzero((at >= 0) & (end[np.maximum(at, 0)] > first))
        findings.add(
            5,
            a.row[bad],
            lambda i, a=a, bad=bad, at=at: (
                f"has KV in words {a.start[bad[i]]} .. {a.stop[bad[i]] - 1}, where "
                f"{findings.place(int(renewed.row[order[at[bad[i]]]]))} keeps a state"
            ),
        )


def is_beside(op: Int[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """Of which rows the preloaded words are several vectors beside the lines that they make."""
    return (op == Op.CONV) | (op == Op.STEP) | (op == Op.DECAY) | (op == Op.LNORM)


def beside(findings: Findings, a: Accesses, loads: Loads, first: Int[np.ndarray, " reads"]) -> None:
    """Rule 7: vector after vector, the words of the lines that a row makes. first: its first value."""
    c = findings.columns
    by_line = (c.op[a.row] == Op.CONV) | (c.op[a.row] == Op.LNORM)
    lines = np.where(by_line, c.n[a.row], 1)
    line = np.where(by_line, c.dst_tag[a.row] & _LINE, c.n[a.row])
    count = a.stop - a.start
    row = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    found = loads.n0[np.minimum(first[row] + number, len(loads.n0) - 1)]
    wrong = (found != (line[row] + number % lines[row]) * F32_LANES) & (c.dst_tag[a.row[row]] >= 0)
    bad = np.unique(row[wrong])
    findings.add(
        7, a.row[bad], lambda i: f"finds words of other lines beside line {line[bad[i]]} of its channels"
    )


def wrong_state(kernel: StateKernel, stated: Stated) -> str:
    """What is wrong with the kernel of a state, or nothing."""
    if (kernel.rows, kernel.sequences * stated.chunk, kernel.cached) != (
        stated.rows,
        stated.rows,
        stated.sequences,
    ):
        return (
            f"its kernel has {kernel.rows} rows of {kernel.sequences} of {kernel.cached} sequences, "
            f"the program "
            f"{stated.rows} in chunks of {stated.chunk} of {stated.sequences}"
        )
    if isinstance(kernel, DeltaKernel) and (kernel.channels % kernel.heads or kernel.heads % kernel.groups):
        return f"its kernel has {kernel.channels} channels, {kernel.heads} heads, {kernel.groups} groups"
    if not isinstance(kernel, SsmKernel):
        return ""
    if kernel.channels % kernel.steps or kernel.channels % kernel.groups:
        return f"its kernel has {kernel.channels} channels, {kernel.steps} steps and {kernel.groups} groups"
    if kernel.decays not in (1, kernel.kept) or kernel.apart != (kernel.steps == kernel.channels):
        return f"its kernel has {kernel.decays} decays of {kernel.kept} states, apart: {kernel.apart}"
    if not 0 <= kernel.low <= kernel.high:
        return f"its kernel clamps time steps to {kernel.low} .. {kernel.high}"
    return ""


def stepped(findings: Findings, groups: list[Alike]) -> None:
    """Rule 7: a row takes a line with its own time steps or decays, and all of B and C, or keys."""
    c = findings.columns
    for _, kernel, rows in groups:
        if not isinstance(kernel, SsmKernel | DeltaKernel):
            continue
        lines = int(ceil_div(kernel.channels, F32_LANES))
        out = rows[c.n[rows] >= lines]
        findings.add(
            7, out, lambda i, out=out, lines=lines: f"line {c.n[out[i]]} of {lines} lines of channels"
        )
    for pair in ((Op.STEP, Op.SSM), (Op.DECAY, Op.DELTA)):
        _paired(findings, *pair)


def _paired(findings: Findings, before: int, after: int) -> None:
    """What a line is made beside is of that line. before, after: the opcodes."""
    c = findings.columns
    step, ssm = (np.flatnonzero((c.op == op) & (c.dst_tag >= 0)) for op in (before, after))
    made = {int(c.dst_tag[row]): int(row) for row in step}
    other = [int(row) for row in ssm if c.n[made.get(int(c.src_tag[row]), row)] != c.n[row]]
    findings.add(
        7,
        np.array(other, np.int64),
        lambda i: (
            f"is line {c.n[other[i]]}, its time steps are of {findings.place(made[int(c.src_tag[other[i]])])}"
        ),
    )
    late = ssm[(c.dst_tag[ssm] & _LINE) != c.n[ssm]]
    findings.add(7, late, lambda i: f"makes line {c.dst_tag[late[i]] & _LINE}, it is of line {c.n[late[i]]}")
    cut = ssm[(c.src2_tag[ssm] >= 0) & (c.src2_tag[ssm] & _LINE > 0)]
    findings.add(
        7, cut, lambda i: f"begins at line {c.src2_tag[cut[i]] & _LINE} of what all lines share, it takes all"
    )
