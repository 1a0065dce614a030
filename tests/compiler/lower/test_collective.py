"""Partial sums added at the owner, tray by tray, or by every reader: the same bits, no partial missed."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from beside import assert_same, compiled
from handmade import change
from shapes import SMALL
from slow import slow_but

import compiler.lower.collective as collective
from compiler.lower.collective import Partials
from compiler.lower.context import Lowering
from compiler.program.instructions.matmul import ReduceKernel
from compiler.program.isa import Columns, Op
from compiler.program.program import Program
from lpu.check.check import check, check_columns, require
from lpu.link.link import link

DEEP = replace(SMALL, layers=1, hidden=1280, heads=8, kv_heads=2, head_dim=160, ffn=1280, vocab=160)
Choose = Callable[[Lowering, Partials, np.ndarray | None], str]


def always(way: str) -> Choose:
    def choose(low: Lowering, made: Partials, readers: np.ndarray | None) -> str:
        trays = {len(np.unique(row)) for row in made.tray}
        fits = {"every": readers is not None, "levels": len(trays) == 1 < max(trays), "owner": True}
        return way if fits[way] else "owner"

    return choose


def opcodes(program: Program, context: int = 80) -> tuple[int, int, int]:
    """(reductions, wide ones among them, residual adds) of a program."""
    c, kernels = program.expand(context), program.manifest.kernels
    red = np.flatnonzero(c.op == Op.RED)
    partial = sum(isinstance(k, ReduceKernel) and k.wide for k in (kernels[aux] for aux in c.aux[red]))
    return len(red), partial, int((c.op == Op.ADD).sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rack", "layout"),
    slow_but(
        [("torus-4x4", "row"), ("quad", "2d")],
        [("quad", "row"), ("quad", "2d"), ("lpx", "row"), ("lpx-16x16", "row"), ("torus-4x4", "row")],
    ),
)
@pytest.mark.parametrize("way", ["levels", "every"])
def test_every_way_to_add_has_the_same_bits(
    way: str, rack: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collective, "choose", always(way))
    tp = {"quad": 4, "lpx-16x16": 32}.get(rack, 16)
    step, program = compiled(DEEP, rack, tp=tp, pp=1, layout=layout)
    partial = opcodes(program)[1]
    assert (partial > 0) == (way == "levels" and rack.startswith("lpx"))
    require(check(program, 80))
    assert_same(step, program, [[0], [1], [79]])


@pytest.mark.slow
@pytest.mark.parametrize("batch", [8, 64])
@pytest.mark.parametrize("way", ["levels", "every"])
def test_batches_have_the_same_bits(way: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collective, "choose", always(way))
    step, program = compiled(DEEP, "lpx", batch=batch, tp=16, pp=1, layout="row")
    require(check(program, 80))
    assert_same(step, program, [list(range(batch)), list(range(1, batch + 1))])


def test_few_bytes_are_added_by_every_reader() -> None:
    """One exchange instead of two: the residual is added on all chips."""
    adds = opcodes(compiled(SMALL, "quad", tp=4, pp=1, layout="row")[1])[2]
    assert adds == 4 * opcodes(compiled(SMALL, "quad", tp=4, pp=1, layout="column")[1])[2]


def test_ranks_of_several_trays_add_theirs_first_where_many_bytes_cross() -> None:
    deep = replace(DEEP, hidden=5120, ffn=5120)
    _, partial, _ = opcodes(compiled(deep, "lpx", batch=4, tp=16, pp=1, layout="row")[1])
    assert partial > 0


def test_the_choice_is_the_shortest_schedule_of_a_small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def cycles(way: str | None) -> int:
        with monkeypatch.context() as patch:
            if way:
                patch.setattr(collective, "choose", always(way))
            return compiled(SMALL, "quad", tp=4, pp=1, layout="row")[1].manifest.cycles[80]

    assert cycles(None) == min(cycles("owner"), cycles("every")) < cycles("owner")


@pytest.fixture(scope="module")
def two_steps() -> Program:
    """Sums in two steps, of four chips in two trays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collective, "choose", always("levels"))
        return compiled(DEEP, "lpx", tp=16, pp=1, layout="row")[1]


def wide_rows(program: Program, c: Columns) -> np.ndarray:
    kernels = program.manifest.kernels
    found: list[int] = []
    for row in np.flatnonzero(c.op == Op.RED).tolist():
        kernel = kernels[c.aux[row]]
        if isinstance(kernel, ReduceKernel) and kernel.wide:
            found.append(row)
    return np.array(found)


def test_a_sum_without_its_transfer_is_found(two_steps: Program) -> None:
    c = two_steps.expand(80)
    sent = np.isin(c.src_tag, c.dst_tag[wide_rows(two_steps, c)]) & (c.op == Op.SEND)
    assert sent.any()
    wrong = c.take(np.arange(len(c)) != np.flatnonzero(sent)[0])
    assert check_columns(two_steps.manifest, two_steps.loads(), wrong).counts[2] > 0


def test_a_partial_added_twice_and_another_never_is_found(two_steps: Program) -> None:
    """The second half sum takes the partials of the first: right cycles, right kinds, wrong bits."""
    c = two_steps.expand(80)
    rows = wide_rows(two_steps, c)
    pairs = [
        (a, b)
        for a in rows
        for b in rows
        if c.chip[a] == c.chip[b]
        and c.aux[a] == c.aux[b]
        and c.n[a] == c.n[b]
        and c.src_tag[a] < c.src_tag[b]
    ]
    a, b = next((a, b) for a, b in pairs if c.t0[a] <= c.t0[b])
    wrong = change(c, int(b), src=int(c.src[a]), src_tag=int(c.src_tag[a]))
    assert check_columns(two_steps.manifest, two_steps.loads(), c).ok
    report = check_columns(two_steps.manifest, two_steps.loads(), wrong)
    assert report.counts[7] > 0 or report.counts[2] > 0


def test_a_sum_of_too_few_partials_is_found_though_it_links(two_steps: Program) -> None:
    """A tray's sum over one partial less, in the cycles that this takes."""
    c, manifest = two_steps.expand(80), two_steps.manifest
    row = int(wide_rows(two_steps, c)[0])
    kernel = manifest.kernels[c.aux[row]]
    assert isinstance(kernel, ReduceKernel)
    manifest = replace(manifest, kernels=(*manifest.kernels, replace(kernel, parts=kernel.parts - 1)))
    wrong = change(c, row, aux=len(manifest.kernels) - 1)
    late = check_columns(manifest, two_steps.loads(), wrong)
    cycles = 0 if not late.counts[6] else 1
    for shorter in range(1, 64) if cycles else ():
        trial = change(wrong, row, t1=int(c.t1[row]) - shorter)
        if not check_columns(manifest, two_steps.loads(), trial).counts[6]:
            wrong = trial
            break
    link(manifest, two_steps.loads(), wrong)
    report = check_columns(manifest, two_steps.loads(), wrong)
    assert report.counts[7] > 0


@pytest.mark.slow
def test_where_an_owner_reads_no_result_the_owners_add() -> None:
    """Few ranks of sixteen multiply the next block's input, the residual lies elsewhere: owners add then."""
    narrow = replace(SMALL, layers=1, heads=8, kv_heads=8, ffn=8, vocab=80)
    step, program = compiled(narrow, "torus-4x4", contexts=(97,), tp=16, pp=1, layout="2d")
    require(check(program, 97))
    assert_same(step, program, [[0], [96]])
