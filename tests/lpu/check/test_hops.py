"""The checker on programs of hops: legal ones pass, and each fault is found by its rule."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from faults import FAULTS as FAULTS_OF_ROWS
from faults import same
from handmade import change
from hopped import BRIDGE, checked, hopped
from shapes import SMALL

from compiler.program.isa import TAG_SHIFT, TAGS, Columns, Op
from compiler.program.manifest import HOPS, Hops, Manifest, Place, Step
from compiler.program.program import Program
from compiler.program.store import hop_alone
from lpu.check.check import Report, check, check_columns, require
from lpu.link.link import LinkError, link
from models.config import TransformerConfig

WIDE = replace(SMALL, name="wide", hidden=640, ffn=960)
EIGHT = replace(SMALL, name="eight", hidden=400, ffn=720, ffn_down="fp8", ffn_up="fp16")


@pytest.fixture(scope="module")
def program() -> Program:
    """The hops of WIDE on both chips of `pair`, two rows: each chip takes two lines and gives four."""
    return hopped(WIDE, "pair", 2, tp=2)[1]


@pytest.mark.parametrize("config", [WIDE, EIGHT], ids=lambda config: config.name)
@pytest.mark.parametrize("layout", ["column", "row", "2d"])
@pytest.mark.parametrize("rows", [1, 4])
def test_programs_of_hops_are_legal_whole_and_hop_by_hop(
    config: TransformerConfig, layout: str, rows: int
) -> None:
    made = hopped(config, "quad", rows, tp=4, layout=layout, placement="random")[1]
    report = require(check(made, HOPS))
    alone = [require(check(hop_alone(made, i), HOPS)) for i in range(config.layers)]
    assert report.rows == sum(one.rows for one in alone)


def rules(report: Report) -> set[int]:
    return {rule for rule, count in enumerate(report.counts) if count}


def rows_of(columns: Columns, op: Op) -> np.ndarray:
    return np.flatnonzero(columns.op == op)


def moved(columns: Columns, row: int, cycles: int) -> Columns:
    return change(columns, row, t0=columns.t0[row] + cycles, t1=columns.t1[row] + cycles)


def take_late(columns: Columns) -> Columns:
    """The last TAKE, committed a cycle after its first reader looks."""
    row = int(rows_of(columns, Op.TAKE)[-1])
    readers = columns.t0[(columns.src_tag == columns.dst_tag[row]) & (columns.chip == columns.chip[row])]
    return moved(columns, row, int(readers.min()) + 1 - int(columns.t1[row]))


def take_early(columns: Columns) -> Columns:
    """A TAKE that does not wait for the one before it on the lane."""
    takes = rows_of(columns, Op.TAKE)
    return moved(columns, int(takes[columns.t0[takes] > 0][0]), -1)


def give_early(columns: Columns) -> Columns:
    """A GIVE that reads a cycle before its line is there."""
    row = int(rows_of(columns, Op.GIVE)[0])
    made = columns.t1[(columns.dst_tag == columns.src_tag[row]) & (columns.op != Op.SEND)].max()
    return moved(columns, row, int(made) - 1 - int(columns.t0[row]))


def dropped(op: Op) -> Callable[[Columns], Columns]:
    return lambda c: c.take(np.arange(len(c)) != rows_of(c, op)[0])


def gives_at_once(columns: Columns) -> Columns:
    """Two GIVE rows of one chip in the same cycles."""
    gives = rows_of(columns, Op.GIVE)
    mine = gives[columns.chip[gives] == columns.chip[gives[0]]]
    first, second = sorted(mine[:2].tolist(), key=lambda row: int(columns.t0[row]))
    return moved(columns, first, int(columns.t0[second] - columns.t0[first]))


def swapped(op: Op, *names: str) -> Callable[[Columns], Columns]:
    """Fields of the first two rows of an opcode and chip exchanged."""

    def fault(columns: Columns) -> Columns:
        rows = rows_of(columns, op)
        one, other = rows[columns.chip[rows] == columns.chip[rows[0]]][:2].tolist()
        first = change(columns, one, **{name: int(getattr(columns, name)[other]) for name in names})
        return change(first, other, **{name: int(getattr(columns, name)[one]) for name in names})

    return fault


def field(op: Op, **fields: int) -> Callable[[Columns], Columns]:
    return lambda c: change(c, int(rows_of(c, op)[0]), **fields)


FAULTS: dict[str, tuple[set[int], Callable[[Columns], Columns], str]] = {
    "a line taken after its reader looks": ({2}, take_late, "the first commit is at cycle"),
    "a line taken before the lane is free": ({1}, take_early, "needs unit"),
    "a line given before it is there": ({2}, give_early, "committed at cycle"),
    "a line that is not taken": ({2, 7}, dropped(Op.TAKE), "of the inputs of hop 0 is taken by no row"),
    "a line that is not given": ({7}, dropped(Op.GIVE), "of the outputs of hop 0 is given by no row"),
    "two lines given at once": ({1}, gives_at_once, "needs unit"),
    "a line taken for another": ({7}, swapped(Op.TAKE, "src3"), "on the wire is tag"),
    "a line given for another": ({7}, swapped(Op.GIVE, "src3"), "on the wire is tag"),
    "another line given": ({7}, swapped(Op.GIVE, "src", "src_tag"), "on the wire is tag"),
    "a line beyond the message": ({7}, field(Op.TAKE, src3=4), "the inputs of its hop have 4"),
    "a line beyond the answer": ({7}, field(Op.GIVE, src3=8), "the outputs of its hop have 8"),
    "a lane that takes on the way out": ({1}, field(Op.TAKE, unit=1), "do this"),
    "swapped weights": ({7}, swapped(Op.MM, "src2"), "holds tags"),
    "another operand's weights": ({7}, swapped(Op.MM, "src2", "src2_tag"), "values of row"),
    "a value of another hop": ({7}, field(Op.TAKE, dst_tag=1 << TAG_SHIFT + 10), "wants tag"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_by_its_rule(program: Program, name: str) -> None:
    wanted, fault, words = FAULTS[name]
    alone = hop_alone(program, 0)
    report = checked(alone, fault(alone.expand(HOPS)))
    assert wanted <= rules(report), str(report)
    assert any(words in violation.message for violation in report.violations), str(report)


def test_a_line_that_is_given_twice_is_found(program: Program) -> None:
    columns = program.expand(HOPS)
    gives = rows_of(columns, Op.GIVE)
    one, other = gives[columns.chip[gives] == columns.chip[gives[0]]][:2].tolist()
    again = change(columns, other, **{n: int(getattr(columns, n)[one]) for n in ("src", "src_tag", "src3")})
    report = checked(program, again)
    assert rules(report) == {7}
    assert any("which another row gives too" in v.message for v in report.violations), str(report)


def kernels(program: Program, family: str, **changes: Any) -> Manifest:
    """The manifest with other kernels of a family."""
    stated = program.manifest
    edited = tuple(replace(k, **changes) if k.family == family else k for k in stated.kernels)
    return replace(stated, kernels=edited)


def body(program: Program, **changes: Any) -> Manifest:
    """The manifest with other fields of its hops."""
    hops = program.manifest.body
    assert isinstance(hops, Hops)
    return replace(program.manifest, body=replace(hops, **changes))


def test_a_word_takes_the_cycles_that_the_bridge_gives(program: Program) -> None:
    columns = program.expand(HOPS)
    for op, n in ((Op.TAKE, 1), (Op.GIVE, 2)):
        report = checked(program, columns, kernels(program, op.name.lower(), host_slot=37))
        assert rules(report) == {6}
        slots = 2 * n
        assert any(
            f"takes {38 * slots} cycles, must take {37 * slots}" in v.message for v in report.violations
        )
    takes = columns.op == Op.TAKE
    faster = replace(columns, t1=np.where(takes, columns.t0 + 74, columns.t1))
    report = checked(program, faster, kernels(program, "take", host_slot=37))
    assert rules(report) == {6}
    assert any("37 cycles, over the bridge it takes 38" in v.message for v in report.violations)
    slower = replace(BRIDGE, lpu_bytes_per_second=6_250_000_000)
    report = checked(program, columns, body(program, bridge=slower))
    assert rules(report) == {6}
    assert any("host_slot is 38, the rates of its bridge give 75" in v.message for v in report.violations)


def test_rows_move_the_format_that_the_manifest_states(program: Program) -> None:
    hops = tuple(replace(hop, inputs=replace(hop.inputs, wire="fp8")) for hop in program.manifest.hops)
    report = checked(program, program.expand(HOPS), body(program, hops=hops))
    assert rules(report) == {7}
    assert any("moves fp16, the inputs of its hop are fp8" in v.message for v in report.violations)
    report = checked(program, program.expand(HOPS), kernels(program, "give", wire="fp16"))
    assert 7 in rules(report)


def test_every_hop_ends_when_the_manifest_says(program: Program) -> None:
    one, two = program.manifest.hops
    late = replace(one, cycles=one.cycles + 1), replace(two, base=two.base + 1)
    report = checked(program, program.expand(HOPS), body(program, hops=late))
    assert 6 in rules(report)
    assert any("hop 0 ends at cycle" in v.message for v in report.violations)


def test_hops_share_no_value(program: Program) -> None:
    """A value that the first hop left, named by the second: alone it would find nothing."""
    columns = program.expand(HOPS)
    names = {n: getattr(columns, n).copy() for n in TAGS}
    takes = rows_of(columns, Op.TAKE)
    base = program.manifest.hops[1].base
    first = int(columns.dst_tag[takes[0]]) >> TAG_SHIFT
    second = int(columns.dst_tag[takes[columns.t0[takes] >= base][0]]) >> TAG_SHIFT
    for name, tags in names.items():
        same = (tags >= 0) & (tags >> TAG_SHIFT == second)
        names[name] = np.where(same, tags + (first - second << TAG_SHIFT), tags)
    report = checked(program, replace(columns, **names))
    assert rules(report) == {7}
    assert any(f"names value {first}, which another hop names too" in v.message for v in report.violations)


def test_a_manifest_without_sense_is_a_finding(program: Program) -> None:
    one, two = program.manifest.hops
    for manifest in (
        body(program, hops=()),
        body(program, hops=(replace(one, inputs=replace(one.inputs, rows=3)), two)),
        body(program, hops=(replace(one, outputs=replace(one.outputs, width=0)), two)),
        body(program, hops=(one, replace(two, base=two.base + 1))),
        replace(program.manifest, contexts=(1, 2)),
        replace(program.manifest, token=Place(0, 0)),
    ):
        assert 0 in rules(checked(program, program.expand(HOPS), manifest))


def test_a_step_takes_and_gives_nothing(program: Program) -> None:
    step = replace(program.manifest, body=Step(), token=Place(0, 0))
    report = checked(program, program.expand(HOPS), step)
    assert 0 in rules(report)
    assert any("names no hop" in v.message for v in report.violations)


@pytest.mark.parametrize("name", FAULTS_OF_ROWS)
def test_every_seeded_fault_in_a_hop_is_caught_or_provably_harmless(name: str) -> None:
    made = hop_alone(hopped(replace(WIDE, hidden=1280), "quad", 2, tp=4, layout="2d")[1], 1)
    columns, loads = made.expand(HOPS), made.loads()
    flow, caught = link(made.manifest, loads, columns), 0
    for seed in range(10):
        faulty = FAULTS_OF_ROWS[name](columns, made.manifest, np.random.default_rng(seed))
        if not check_columns(faulty.manifest, loads, faulty.columns).ok:
            caught += 1
            continue
        try:
            again = link(faulty.manifest, loads, faulty.columns)
        except LinkError:
            caught += 1
            continue
        assert same(again, flow), f"seed {seed}: unnoticed, and the dataflow differs"
    assert caught >= 3
