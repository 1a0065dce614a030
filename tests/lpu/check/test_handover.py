"""The checker on programs that move KV: every rule that they can break has a case that breaks it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beside import compiled
from handmade import change
from shapes import SMALL

from compiler.moves.handover import compile_egress, compile_ingest
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.isa import TAG_SHIFT, Columns, Op
from compiler.program.manifest import Move, Place, Slot, Step
from compiler.program.program import Program
from compiler.program.store import digest
from fabric.catalog import bridge_spec
from lpu.check.check import check, check_columns, require
from lpu.check.memory_image import check_handover
from lpu.cli.app import main
from lpu.folder import load_handover, load_program, save_program

BRIDGE = bridge_spec("spectrum-x")
CONTEXT = 400
Change = Callable[[Program], Program]


@pytest.fixture(scope="module")
def decode() -> Program:
    """Two heads, each over two of four chips."""
    small = replace(SMALL, attention_block=80)
    return compiled(small, "quad", contexts=(100, CONTEXT), batch=3, tp=4, pp=1, cp=2)[1]


@pytest.fixture(scope="module")
def ingest(decode: Program) -> Program:
    return compile_ingest(decode, 100, BRIDGE)


@pytest.fixture(scope="module")
def egress(decode: Program) -> Program:
    return compile_egress(decode, 100, BRIDGE)


def edited(made: Program, /, **fields: Any) -> Program:
    return replace(made, manifest=replace(made.manifest, **fields))


def moving(made: Program, /, **fields: Any) -> Program:
    """The program with other fields of what it moves."""
    assert isinstance(made.manifest.body, Move)
    return edited(made, body=replace(made.manifest.body, **fields))


def step_of(made: Program) -> Program:
    """The program, calling itself one that computes."""
    return edited(made, body=Step(), token=Place(0, 0))


def kernels(program: Program, **fields: Any) -> Program:
    return edited(program, kernels=tuple(replace(k, **fields) for k in program.manifest.kernels))


def attention(program: Program) -> Program:
    """The program with kernels of attention in place of its own."""
    of_attention = AttentionKernel(
        head_dim=32, kv="fp16", kv_words=1, kv_stride=400, capacity=400, cached=3, stripes=2, run=80,
        group=2, block=80, chunk=80, chunks=2, rows=3, sequences=3,
    )  # fmt: skip
    return edited(program, kernels=tuple(of_attention for _ in program.manifest.kernels))


def rows_of(program: Program, edit: Callable[[Columns], Columns]) -> Program:
    """The program with other rows in its one block."""
    (block,) = program.blocks
    return replace(program, blocks=(replace(block, columns={CONTEXT: edit(block.columns[CONTEXT])}),))


def call_of(program: Program, which: int, **fields: Any) -> Program:
    calls = list(program.calls)
    calls[which] = replace(calls[which], **fields)
    return replace(program, calls=tuple(calls))


def row(which: int, **fields: int) -> Change:
    return lambda p: rows_of(p, lambda c: change(c, which, **fields))


def without(which: int) -> Change:
    return lambda p: rows_of(p, lambda c: c.take(np.arange(len(c)) != which))


def swapped(*names: str) -> Change:
    """Two rows with each other's values of some columns."""

    def edit(c: Columns) -> Columns:
        one = {name: int(getattr(c, name)[0]) for name in names}
        other = {name: int(getattr(c, name)[1]) for name in names}
        return change(change(c, 0, **other), 1, **one)

    return lambda p: rows_of(p, edit)


def test_programs_that_move_kv_break_no_rule(decode: Program, ingest: Program, egress: Program) -> None:
    for program in (ingest, egress, compile_egress(decode, 7, BRIDGE, overlap=True)):
        require(check(program, CONTEXT))
    require(check_handover(decode, ingest))
    require(check_handover(decode, ingest, egress))
    late = compile_ingest(decode, 100, BRIDGE, arrivals=[0, 10**6])
    require(check_handover(decode, late))
    require(check(late, CONTEXT))


ALONE: dict[str, tuple[Change, int, str]] = {
    "a lane held by two rows": (row(1, chip=0), 1, "needs unit 12, held until cycle 3040"),
    "the lane of the other direction": (row(0, unit=13), 1, "on unit 13, units 12 .. 12 do this"),
    "a row too short": (row(0, t1=3039), 6, "takes 3039 cycles, must take 3040"),
    "a slot of another bridge": (
        lambda p: rows_of(kernels(p, host_slot=37), lambda c: replace(c, t1=0 * c.t1 + 80 * 37)),
        6,
        "a word takes 37 cycles, over the bridge it takes 38",
    ),
    "a bridge of another rate": (
        lambda p: moving(p, bridge=replace(BRIDGE, lpu_bytes_per_second=10**9)),
        6,
        "a word takes 38 cycles, over the bridge it takes",
    ),
    "tokens that stay behind": (
        lambda p: rows_of(p, lambda c: change(c, 0, n=79, t1=79 * 38)),
        7,
        "moves 79 tokens, of 100 at most 80 lie here",
    ),
    "a region beyond its chip's KV": (row(2, dst=1 << 40 | 1 << 39), 5, "chip 2 has its kv region in"),
    "KV where transients lie": (lambda p: call_of(p, 0, kv_base=(0,) * 4), 5, "kv region in words"),
    "two layers in one region": (
        lambda p: call_of(p, 1, kv_base=p.calls[0].kv_base),
        7,
        "moves the KV region of row 0",
    ),
    "half a region moved": (
        lambda p: call_of(p, 1, kv_base=tuple(b + 80 for b in p.calls[0].kv_base)),
        5,
        "overlaps another one",
    ),
    "a row of a step": (row(0, op=int(Op.KVW)), 0, "is no row of a program of kind 'ingest'"),
    "a row of the other direction": (row(0, op=int(Op.KVOUT)), 0, "is no row of a program of kind"),
    "a program that calls itself a step": (
        step_of,
        0,
        "is no row of a program of kind 'step'",
    ),
    "a kernel of attention": (attention, 0, "its kernel is for attention, must be for handover"),
    "a kernel without a slot": (lambda p: kernels(p, host_slot=0), 0, "has host_slot 0, not a count"),
    "another number of words": (lambda p: kernels(p, kv_words=2), 0, "has kv_words 2, fp16 heads take"),
    "another number of sequences": (lambda p: kernels(p, cached=2), 0, "has 2 cached sequences, the program"),
    "another length": (lambda p: edited(p, cycles={CONTEXT: 5}), 6, "manifest: cycles is 5"),
    "a region without a tag": (row(0, dst_tag=-1 - (1 << TAG_SHIFT)), 7, "dst has no tag"),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_hand_over_that_breaks_a_rule_is_found(ingest: Program, name: str) -> None:
    edit, rule, message = ALONE[name]
    found = check(edit(ingest), CONTEXT)
    assert found.counts[rule] >= 1, str(found)
    assert any(message in v.message for v in found.violations if v.rule == rule), str(found)


def test_a_step_cannot_read_what_the_host_lane_does_not_bring(egress: Program) -> None:
    """The exemption of rule 2 is KVOUT's alone: the same rows as a step are refused."""
    found = check(step_of(egress), CONTEXT)
    assert found.counts[0] == len(egress.expand(CONTEXT))


def test_an_egress_row_is_checked_as_one_of_an_ingest(egress: Program) -> None:
    columns = egress.expand(CONTEXT)
    ok = check_columns(egress.manifest, egress.loads(), columns)
    assert ok.ok
    for edit, rule in (({"unit": 12}, 1), ({"t1": 5}, 6), ({"n": 3}, 7), ({"src2": 0}, 5)):
        assert check_columns(egress.manifest, egress.loads(), change(columns, 0, **edit)).counts[rule] >= 1


def slots_of(program: Program) -> tuple[Slot, ...]:
    assert isinstance(program.manifest.body, Move)
    return program.manifest.body.slots


def bases(program: Program) -> Program:
    """The layers' addresses exchanged: every region once, but with another layer's tokens."""
    first, second = program.calls
    return call_of(call_of(program, 0, kv_base=second.kv_base), 1, kv_base=first.kv_base)


def later(program: Program) -> Program:
    """The second layer a cycle early, in the rows and in its slot."""
    first, second = slots_of(program)
    early = second._replace(base=second.base - 1)
    return moving(call_of(program, 1, base={CONTEXT: early.base}), slots=(first, early))


BESIDE: dict[str, tuple[Change, int, str]] = {
    "a region left out": (without(2), 7, "no row moves what is kept at word"),
    "a region of no layer": (row(0, dst=1 << 40 | 1), 7, "is no KV or state of the layer"),
    "two rows for one region": (
        lambda p: rows_of(p, lambda c: c.take(np.array([0, 1, 2, 3, 3]))),
        7,
        "is moved twice",
    ),
    "lines exchanged": (swapped("src3"), 7, "moves (1, 2, 32, 'fp16'"),
    "addresses exchanged": (swapped("chip"), 7, "moves (0, 2"),
    "layers exchanged": (bases, 7, "is no KV or state of the layer"),
    "a layer left out": (lambda p: replace(p, calls=p.calls[:1]), 7, "[1, 2, 2] calls, slots and layers"),
    "a kernel of another cache": (lambda p: kernels(p, capacity=80), 7, "the layer keeps (0, 2, 32, 'fp16'"),
    "a format of another": (lambda p: kernels(p, kv="fp8"), 7, "'fp8'"),
    "one stripe instead of two": (lambda p: kernels(p, stripes=1), 7, "moves (0, 1,"),
    "a slot that is not the rows'": (
        lambda p: moving(p, slots=(Slot("a", 0, 3039), slots_of(p)[1])),
        6,
        "rows from cycle 0 for 3040 cycles, its slot from cycle 0 for 3039",
    ),
    "a slot before the last one ends": (later, 1, "begins at cycle 3039, its slot may not before 3040"),
    "a slot before its layer is there": (
        lambda p: moving(p, ready=(0, 5000)),
        1,
        "begins at cycle 3040, its slot may not before 5000",
    ),
    "arrivals of other layers": (lambda p: moving(p, ready=(0,)), 7, "[2, 2, 2, 1] calls"),
    "another rack": (lambda p: edited(p, rack="lpx"), 0, "rack differs"),
    "another decode program": (lambda p: moving(p, program="0" * 64), 0, "is of program 0000000000000000"),
    "the other direction": (lambda p: moving(p, kind="egress"), 0, "kind is 'egress', must be 'ingest'"),
    "other regions": (
        lambda p: edited(p, regions=()),
        5,
        "of 4 chips of the decode program, 0 of",
    ),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_hand_over_of_another_memory_image_is_found(decode: Program, ingest: Program, name: str) -> None:
    edit, rule, message = BESIDE[name]
    found = check_handover(decode, edit(ingest))
    assert found.counts[rule] >= 1, str(found)
    assert any(message in v.message for v in found.violations), str(found)


@pytest.mark.parametrize("name", ["a region left out", "lines exchanged", "layers exchanged"])
def test_the_egress_is_held_to_the_same(decode: Program, ingest: Program, egress: Program, name: str) -> None:
    found = check_handover(decode, ingest, BESIDE[name][0](egress))
    assert found.counts[7] >= 1
    assert all(v.message.startswith("rule 7: egress of layer") for v in found.violations)


def test_both_lie_beside_the_decode_program(
    decode: Program, ingest: Program, egress: Program, tmp_path: Path
) -> None:
    save_program(decode, tmp_path / "p", ingest=ingest, egress=egress)
    loaded = load_program(tmp_path / "p")
    found, back = load_handover(tmp_path / "p")
    assert found is not None
    assert back is not None
    require(check_handover(loaded, found, back))
    assert [digest(p) for p in (ingest, egress)] == [p.manifest.digest for p in (found, back)]
    save_program(decode, tmp_path / "p", ingest=ingest)
    assert load_handover(tmp_path / "p")[1] is None


def test_the_command_line_checks_them_too_and_computes_nothing_with_them(
    decode: Program, ingest: Program, egress: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_program(decode, tmp_path / "p", ingest=ingest, egress=egress)
    assert main(["check", str(tmp_path / "p")]) == 0
    assert capsys.readouterr().out.count("8 rows, all 8 rules hold (hand-over of KV)") == 3
    for verb in ("run", "report", "bounds"):
        assert main([verb, str(tmp_path / "p" / "ingest")]) == 2
        assert "moves KV (ingest) and computes no step. Give the program folder" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "p" / "egress")]) == 0
    broken = without(2)(ingest)
    save_program(decode, tmp_path / "q", ingest=edited(broken, digest=digest(broken)))
    capsys.readouterr()
    assert main(["check", str(tmp_path / "q")]) == 4
    assert "no row moves what is kept" in capsys.readouterr().out
