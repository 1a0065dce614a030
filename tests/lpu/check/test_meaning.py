"""What only the meaning of rows tells: faults with the right cycles, addresses and kinds, and wrong bits."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from beside import compiled
from handmade import change
from shapes import SMALL

from compiler.program.isa import TAGS, Columns, Op
from compiler.program.program import Program
from compiler.timing import timing
from lpu.check.check import Report, check, check_columns
from lpu.link.link import link

CONTEXT = 1420  # 18 blocks of 80 tokens, the last not full, too many for AOUT alone: nodes of 8, 8 and 2


@cache
def made() -> Program:
    config = replace(SMALL, qk_norm=True, hidden=480, heads=8, kv_heads=2, vocab=400, attention_block=80)
    return compiled(config, "pair", contexts=(CONTEXT,), batch=8, tp=2, pp=1)[1]


@pytest.fixture
def program() -> Program:
    return made()


def row(c: Columns, op: Op, number: int = 0) -> int:
    return int(np.flatnonzero(c.op == op)[number])


def counted(op: Op, by: int, number: int = 0) -> Callable[[Columns], Columns]:
    """One row with another count, and the cycles that it then takes."""

    def fault(c: Columns) -> Columns:
        m, at = made().manifest, row(c, op, number)
        n = int(c.n[at]) + by
        took, takes = (int(timing(op, k, m.kernels[c.aux[at]], m.chip, m.rows)[1]) for k in (c.n[at], n))
        return change(c, at, n=n, t1=int(c.t1[at]) + takes - took)

    return fault


def other_gains(c: Columns, at: int) -> Columns:
    """A head norm with the gains of the next one on its chip that has others."""
    others = (c.op == Op.HNORM) & (c.chip == c.chip[at]) & (c.src3 != c.src3[at])
    other = int(np.flatnonzero(others)[0])
    return change(c, at, src3=int(c.src3[other]), src3_tag=int(c.src3_tag[other]))


def exchanged(op: Op, names: tuple[str, ...], one: int, other: int) -> Callable[[Columns], Columns]:
    """Two rows of one opcode with these operands exchanged, tags and all."""

    def fault(c: Columns) -> Columns:
        a, b = row(c, op, one), row(c, op, other)
        for name in names:
            values = getattr(c, name)
            c = change(change(c, a, **{name: int(values[b])}), b, **{name: int(values[a])})
        return c

    return fault


FAULTS: dict[str, Callable[[Columns], Columns]] = {
    "a block scored twice": counted(Op.QK, 1),
    "values of another block": counted(Op.PV, 1),
    "values weighted by another block": exchanged(Op.PV, ("src", "src_tag"), 1, 3),
    "the maximum of another block": lambda c: change(
        c, row(c, Op.SMAX, 1), src=int(c.src[row(c, Op.SMAX, 3)]), src_tag=int(c.src_tag[row(c, Op.SMAX, 3)])
    ),
    "the weights of another maximum": exchanged(Op.EXP, ("src2", "src2_tag"), 1, 3),
    "blocks in another order": exchanged(Op.PV, ("dst", "dst_tag"), 1, 5),
    "a node of fewer blocks": counted(Op.NODE, -1),
    "nodes in another order": exchanged(Op.NODE, ("dst", "dst_tag"), 1, 5),
    "half a context": counted(Op.AOUT, -1),
    "half a glu": counted(Op.GLU, -1),
    "half a normalisation": counted(Op.PRE, -1),
    "a candidate left out": counted(Op.ARGRED, -1),
    "logits left out": counted(Op.ARGMAX, -1),
    "the residual of other lines": lambda c: change(
        c,
        row(c, Op.ADD, 1),
        src=int(c.src[row(c, Op.ADD)]),
        src_tag=int(c.src_tag[row(c, Op.ADD)]),
    ),
    "a tile beside other lines": exchanged(Op.MM, ("src2", "src2_tag"), 0, -1),
    "gains of another norm": lambda c: other_gains(c, row(c, Op.HNORM)),
    "an accumulator of other lines": exchanged(Op.WB, ("dst", "dst_tag"), 0, 1),
}


def found(program: Program, fault: Callable[[Columns], Columns], **manifest: Any) -> Report:
    stated = replace(program.manifest, **manifest)
    return check_columns(stated, program.loads(), fault(program.expand(CONTEXT)))


@pytest.mark.parametrize("name", FAULTS)
def test_a_row_that_means_something_else_is_found(program: Program, name: str) -> None:
    report = found(program, FAULTS[name])
    assert report.counts[7] > 0, str(report)


def test_logits_named_in_another_order_are_found_although_they_link(program: Program) -> None:
    first, second, *rest = program.manifest.logits
    logits = (first._replace(line=second.line), second._replace(line=first.line), *rest)
    link(replace(program.manifest, logits=logits), program.loads(), program.expand(CONTEXT))
    assert found(program, lambda c: c, logits=logits).counts[7] > 0


def test_a_length_that_is_not_the_programs_is_found(program: Program) -> None:
    stated = program.manifest.cycles[CONTEXT]
    shorter = replace(program.manifest, cycles={CONTEXT: stated - 1})
    report = check(replace(program, manifest=shorter), CONTEXT)
    assert report.counts[6] == report.total == 1
    assert f"cycles is {stated - 1}, the last result comes at cycle {stated}" in str(report)


@pytest.mark.parametrize("column", TAGS[:3])
def test_a_program_without_tags_is_refused(program: Program, column: str) -> None:
    block = program.blocks[-1]
    bare = replace(block.columns[CONTEXT], **{column: np.full(len(block.columns[CONTEXT]), -1)})
    blocks = (*program.blocks[:-1], replace(block, columns={CONTEXT: bare}))
    assert check(replace(program, blocks=blocks), CONTEXT).counts[7] > 0


def test_a_preload_of_other_columns_under_the_same_tag_is_found(program: Program) -> None:
    loads = program.loads()
    n0 = loads.n0.copy()
    a, b = np.flatnonzero(loads.kind == 0)[:2]
    n0[[a, b]] = n0[[b, a]]
    report = check_columns(program.manifest, replace(loads, n0=n0), program.expand(CONTEXT))
    assert report.counts[7] == report.total > 0
