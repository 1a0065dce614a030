"""Early KV in DDR5: the bits of a context in SRAM, exact cycles, and every fault of the lanes is found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapes
from beside import assert_same, bits, compiled, made_up
from handmade import change
from models_named import of_model

from compiler.analyse.bounds import bounds
from compiler.analyse.early import lane_bytes
from compiler.errors import CapacityError, CompileError, OptionError
from compiler.moves.early import rest_cycles, section_out
from compiler.options import AUTO
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.isa import WORD_BYTES, Columns, Op
from compiler.program.program import Program
from compiler.program.store import load, save, sealed
from fabric.rack import load_rack
from lpu.check.check import check, require
from lpu.check.memory_image import check_handover
from lpu.link.link import LinkError, link
from lpu.prove.prove import prove
from lpu.report.program import program_facts
from lpu.run.error import MachineError
from lpu.run.machine import prepare
from models.step import Step

SMALL = replace(shapes.SMALL, attention_block=80)
SECTION, SLOT = 80, 38  # tokens in SRAM, and cycles of a word of lp30 over its lane: 320 bytes at 12.5 GB/s
LONG = 3 * SECTION


@pytest.fixture(scope="module")
def spilled() -> tuple[Step, Program]:
    step, program = compiled(SMALL, "quad", contexts=(LONG,), tp=2, pp=1, spill=SECTION)
    return step, of_model(program, replace(SMALL, max_context=LONG))


def test_the_bits_are_those_of_one_device(spilled: tuple[Step, Program]) -> None:
    step, program = spilled
    assert program.manifest.contexts == (80, 160, 240)
    assert_same(step, program, [[0], [1], [79], [80], [81], [159], [160], [239]])


@pytest.mark.slow
def test_stripes_batches_and_fp8_have_the_bits_too() -> None:
    step, program = compiled(SMALL, "quad", contexts=(320,), tp=4, pp=1, cp=2, spill=160, batch=2, kv="fp8")
    for context in program.manifest.contexts:
        require(check(program, context))
    assert_same(step, program, [[0, 0], [1, 90], [159, 158], [160, 161], [200, 319]])


def test_it_is_checked_and_proved_and_read_from_a_folder(
    spilled: tuple[Step, Program], tmp_path: Path
) -> None:
    _, program = spilled
    for context in program.manifest.contexts:
        require(check(program, context))
    assert prove(program).ok
    save(sealed(program), tmp_path)
    assert load(tmp_path).manifest == sealed(program).manifest
    assert load(tmp_path).manifest.options.spill == SECTION


def test_a_step_is_longer_by_just_what_the_lanes_take(spilled: tuple[Step, Program]) -> None:
    """Layers come one after another, and a section of K and V of a head is 80 words: 2 x 80 x 38 cycles."""
    _, program = spilled
    cycles = program.manifest.cycles
    assert cycles[240] - cycles[160] == SMALL.layers * SECTION * SLOT
    assert lane_bytes(program) == 2 * SMALL.layers * SECTION * WORD_BYTES


def test_a_part_goes_out_between_steps_as_a_program_that_is_checked(spilled: tuple[Step, Program]) -> None:
    _, program = spilled
    out = section_out(program)
    require(check(out, out.manifest.longest))
    assert out.manifest.cycles[LONG] == SMALL.layers * SECTION * SLOT  # both layers are on the same chips
    ingest = section_out(program)
    assert not check_handover(program, ingest, out).ok  # it is no ingest
    assert "egress" in str(out)
    assert rest_cycles(program) == out.manifest.cycles[LONG]


def fault(op: Op, number: int = 0, **fields: int) -> Callable[[Columns], Columns]:
    return lambda c: change(c, int(np.flatnonzero(c.op == op)[number]), **fields)


def dropped(c: Columns) -> Columns:
    return c.take(np.arange(len(c)) != np.flatnonzero(c.op == Op.FETCH)[-1])


def sooner(c: Columns) -> Columns:
    """The second block over a lane while the first is still on it."""
    mine = np.flatnonzero(c.op == Op.FETCH)
    row = next(
        r for r in mine.tolist() if (c.chip[mine] == c.chip[r]).sum() > 1 and c.t0[r] > c.t0[mine].min()
    )
    return change(c, row, t0=int(c.t0[row]) - 100, t1=int(c.t1[row]) - 100)


def faster(c: Columns) -> Columns:
    row = int(np.flatnonzero(c.op == Op.FETCH)[0])
    return change(c, row, t1=int(c.t1[row]) - 1)


def all_faster(c: Columns) -> Columns:
    return replace(c, t1=np.where(c.op == Op.FETCH, c.t0 + SECTION * (SLOT - 1), c.t1))


FAULTS: dict[str, tuple[Callable[[Columns], Columns], int]] = {
    "a block that is never fetched": (dropped, 2),
    "two blocks on one lane at once": (sooner, 1),
    "a lane that is faster than it is": (faster, 6),
    "another block fetched": (fault(Op.FETCH, n=1), 7),
    "a block that DDR5 does not keep": (fault(Op.FETCH, n=2), 5),
    "scores of a block that was not fetched": (fault(Op.QKF, n=1), 7),
    "values of a block that was not fetched": (fault(Op.PVF, n=1), 7),
}


def changed(program: Program, change_of: Callable[[Columns], Columns]) -> Program:
    """The program with the rows of its first block with copies changed."""
    at = next(i for i, one in enumerate(program.blocks) if (one.columns[LONG].op == Op.FETCH).any())
    block = program.blocks[at]
    columns = {**block.columns, LONG: change_of(block.columns[LONG])}
    blocks = (*program.blocks[:at], replace(block, columns=columns), *program.blocks[at + 1 :])
    return replace(program, blocks=blocks)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_of_the_lanes_is_found(spilled: tuple[Step, Program], name: str) -> None:
    how, rule = FAULTS[name]
    wrong = changed(spilled[1], how)
    assert check(wrong, LONG).counts[rule] > 0


@pytest.mark.parametrize("name", [name for name, (_, rule) in FAULTS.items() if rule not in (1, 6)])
def test_the_proof_refuses_what_is_not_the_model(spilled: tuple[Step, Program], name: str) -> None:
    assert not prove(changed(spilled[1], FAULTS[name][0])).ok


def kernels(program: Program, **fields: int) -> Program:
    new = tuple(
        replace(k, **fields) if isinstance(k, AttentionKernel) and k.early else k
        for k in program.manifest.kernels
    )
    return replace(program, manifest=replace(program.manifest, kernels=new))


def test_the_checker_knows_lane_ddr5_and_what_a_step_appends_to(spilled: tuple[Step, Program]) -> None:
    _, program = spilled
    quick = changed(kernels(program, host_slot=SLOT - 1), all_faster)
    assert "a word takes 37 cycles, lane and DDR5 give one in 38" in str(check(quick, LONG))
    report = str(check(kernels(program, reservoir=1_000_000_000), LONG))
    assert "bytes, their DDR5 256000000000" in report
    later = replace(program.manifest, contexts=(80, 240), cycles={80: 1, 240: program.manifest.cycles[240]})
    assert "160 early tokens in 1 stripes, the bucket before has 80" in str(
        check(replace(program, manifest=later), LONG)
    )


def test_other_copies_give_other_bits_and_none_do_not_link(spilled: tuple[Step, Program]) -> None:
    step, program = spilled
    weights, manifest = made_up(step), program.manifest
    good, bad = (prepare(one, weights) for one in (program, changed(program, fault(Op.FETCH, n=1))))
    state = [machine.start() for machine in (good, bad)]
    out: list[list[int]] = []
    for at in (*range(0, 160, 20), 200):
        taken = [
            m.step(s, np.array([5 + at % 7]), np.array([at])) for m, s in zip((good, bad), state, strict=True)
        ]
        state, out = [one.state for one in taken], [bits(one.logits) for one in taken]
    assert out[0] != out[1]
    with pytest.raises(LinkError, match=r"nothing has written yet|not one whole result|wrote"):
        link(manifest, program.loads(), changed(program, dropped).expand(LONG))


def test_a_batch_is_of_one_part_of_the_context() -> None:
    step, program = compiled(SMALL, "quad", contexts=(160,), tp=2, pp=1, spill=SECTION, batch=2)
    machine = prepare(program, made_up(step))
    with pytest.raises(MachineError, match="position 3 stands beside 90: tokens before 80 lie in DDR5"):
        machine.step(machine.start(), np.array([1, 2]), np.array([3, 90]))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no whole blocks": ({"spill": 70}, "in blocks of 80, are cut into sections of 70. Give a multiple of 80"),
    "no whole sections": (
        {"spill": 160},
        "contexts of 240 tokens, in blocks of 80, are cut into sections of 160",
    ),
    "nothing": ({"spill": -1}, "--spill: is -1, must be at least 1"),
    "waves": ({"spill": 80, "objective": "throughput"}, "goes with --objective latency, not throughput"),
    "a limit of nothing": ({"step_limit": 5.0}, "--step-limit: is of a step with --spill"),
    "stripes that are not even": (
        {"spill": 80, "tp": 4, "cp": 2},
        "deals 160 tokens at a time, SRAM keeps 80",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_line_with_both_numbers(name: str) -> None:
    bad, text = BAD[name]
    options: dict[str, Any] = {"tp": 2, "pp": 1, **bad}
    with pytest.raises(OptionError) as refused:
        compiled(SMALL, "quad", contexts=(LONG,), **options)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (
            10.0,
            r"takes 13\.\d us, the limit is 10; .* 102400 bytes .* need 22\.\d+ GB/s .* which gives 12\.5",
        ),
        (2.0, r"takes 13\.\d us, the limit is 2; all but its fetches takes 5\.5"),
    ],
)
def test_a_step_that_lanes_cannot_keep_up_with_is_refused_with_both_rates(limit: float, text: str) -> None:
    with pytest.raises(CompileError, match=text):
        compiled(SMALL, "quad", contexts=(LONG,), tp=2, pp=1, spill=SECTION, step_limit=limit)


def test_the_report_says_what_a_step_fetches_and_what_goes_out(spilled: tuple[Step, Program]) -> None:
    facts = dict(program_facts(spilled[1]))
    assert facts["spill"].startswith(
        "80 of 240 tokens in SRAM, earlier KV in DDR5; 102.4 kB of it over lanes a step"
    )
    assert facts["between"].startswith("6,080 cycles every 80 tokens")
    assert "reservoir.lane" in {one.field for one in spilled[1].manifest.sources}


def test_auto_keeps_as_much_in_sram_as_fits() -> None:
    """A chip that has room for the program of sections of 80 tokens and for no word more."""
    rack = load_rack("pair")
    program = compiled(SMALL, rack, contexts=(LONG,), tp=2, pp=1, spill=SECTION)[1]
    words = max(chip.weights.base + chip.weights.words for chip in program.manifest.regions)
    small = replace(rack, chip=replace(rack.chip, sram_bytes=words * WORD_BYTES))
    kept = [
        compiled(SMALL, machine, contexts=(LONG,), tp=2, pp=1, spill=AUTO)[1].manifest.options.spill
        for machine in (rack, small)
    ]
    assert kept == [None, SECTION]
    smaller = replace(small, chip=replace(small.chip, sram_bytes=(words - 1) * WORD_BYTES))
    with pytest.raises(CapacityError):
        compiled(SMALL, smaller, contexts=(LONG,), tp=2, pp=1, spill=AUTO)


def test_no_bound_is_above_the_schedule_and_the_lanes_bound_it(spilled: tuple[Step, Program]) -> None:
    _, program = spilled
    for context, cycles in program.manifest.cycles.items():
        best = max(one.cycles for one in bounds(program, context))
        assert best <= cycles
        assert context == SECTION or best > 0.9 * cycles  # one lane brings one block after another
