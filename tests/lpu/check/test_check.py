import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import handmade as hand
import numpy as np
import pytest
from handmade import CONTEXT, change, change_load, extend, tag

from compiler.program.instructions.vector import EmbedKernel
from compiler.program.isa import COLUMNS, TABLE, TAGS, Columns, Kernel, Op
from compiler.program.manifest import Link, Place, Region, Regions
from compiler.program.program import Loads, Program
from lpu.check.check import RULES, HazardError, Report, check, check_columns, require

Change = Callable[[Columns], Columns]


def rules(report: Report) -> set[int]:
    return {rule for rule, count in enumerate(report.counts) if count}


def mutated(program: Program, fault: Change | None = None, **manifest: Any) -> Report:
    """The report on the expanded columns of a program after a change of them, or of the manifest."""
    columns = program.expand(CONTEXT)
    stated = replace(program.manifest, **manifest)
    return check_columns(stated, program.loads(), fault(columns) if fault else columns)


def without(row: int) -> Change:
    return lambda c: c.take(np.arange(len(c)) != row)


def moved(row: int, cycles: int) -> Change:
    return lambda c: change(c, row, t0=c.t0[row] + cycles, t1=c.t1[row] + cycles)


def regions(transient: Region, weights: Region) -> dict[str, Any]:
    return {"regions": (Regions(transient, Region(1000, 200), weights),) * 2}


SEND_AGAIN = {"op": Op.SEND, "chip": 1, "peer": 0, "n": 1, "aux": 1, "lane": 1, "t0": 54, "t1": 78} | {
    "dst": 20, "src": hand.BEST + 1, "src_tag": tag(hand.T_BEST, 1), "dst_tag": tag(hand.T_BEST, 1)
}  # fmt: skip
SEND_BACK = {"op": Op.SEND, "chip": 0, "peer": 1, "n": 1, "aux": 1, "lane": 0, "t0": 78, "t1": 102} | {
    "dst": 20, "src": hand.BEST + 1, "src_tag": tag(hand.T_BEST, 1), "dst_tag": tag(hand.T_BEST, 1)
}  # fmt: skip
OVERWRITE = {"op": Op.CAST, "chip": 0, "unit": hand.VXM, "n": 2, "aux": 1, "t0": 9, "t1": 15} | {
    "dst": hand.H + 2, "dst_tag": tag(50), "src": hand.X, "src_tag": tag(hand.T_X)
}  # fmt: skip
SECOND_HEAD = {"op": Op.KVW, "chip": 0, "unit": hand.VXM, "n": 1, "aux": 2, "t0": 21, "t1": 27} | {
    "dst": 1020, "src": 9, "src2": 10
}  # fmt: skip


def test_the_programs_written_by_hand_are_legal() -> None:
    for program in (hand.matmul(), hand.attention()):
        report = require(check(program, CONTEXT))
        assert report.ok
        assert str(report) == f"check: {report.rows} rows, all {len(RULES)} rules hold"


def _swap(first: int, second: int, *names: str) -> Change:
    def swap(c: Columns) -> Columns:
        one = change(c, first, **{name: getattr(c, name)[second] for name in names})
        return change(one, second, **{name: getattr(c, name)[first] for name in names})

    return swap


MATMUL_FAULTS: dict[str, tuple[int, Change, str]] = {
    "an unknown opcode": (0, lambda c: change(c, hand.WB, op=99), "row 4 op 99 chip 0 cycle 30: no instr"),
    "an unknown kernel": (0, lambda c: change(c, hand.WB, aux=77), "kernel 77, kernels are 0 .. 5"),
    "another opcode's kernel": (0, lambda c: change(c, hand.WB, aux=0), "its kernel is for embed"),
    "an unknown chip": (0, lambda c: change(c, hand.WB, chip=2), "chip 2, chips are 0 .. 1"),
    "an unknown peer": (0, lambda c: change(c, hand.SEND, peer=-1), "peer -1, chips are 0 .. 1"),
    "a row before the first cycle": (0, moved(hand.EMBED, -1), "from cycle -1 to cycle 6"),
    "a row that ends before it begins": (0, lambda c: change(c, hand.ARGRED, t1=77), "cycle 78 to cycle 77"),
    "a row of nothing": (0, lambda c: change(c, hand.MM0, n=0), "n is 0, at least 1"),
    "a matmul wider than a plane": (0, lambda c: change(c, hand.MM0, n=5), "at most 4"),
    "a transfer without lanes": (0, lambda c: change(c, hand.SEND, aux=0), "uses 0 lanes"),
    "a unit that does not do this": (1, lambda c: change(c, hand.CAST, unit=1), "on unit 1, units 4 .. 4"),
    "a lane that is busy": (
        1,
        lambda c: extend(c, SEND_AGAIN | {"lane": 0, "t0": 57, "t1": 81}),
        "needs lanes 0 .. 0 to chip 0, held until cycle 58",
    ),
    "one of two lanes that is busy": (
        1,
        lambda c: extend(c, SEND_AGAIN | {"lane": 0, "aux": 2, "t0": 57, "t1": 81}),
        "needs lanes 0 .. 1 to chip 0, held until cycle 58",
    ),
    "a read before the commit": (2, moved(hand.CAST, -1), "at cycle 6: the first commit is at cycle 7"),
    "a dropped transfer": (2, without(hand.SEND), "reads line 15 at cycle 78: no row writes it"),
    "an overwritten line": (
        2,
        lambda c: extend(c, OVERWRITE),
        "since cycle 15, wants tag 2.2 committed at cycle 14",
    ),
    "a drain before the last addition": (2, moved(hand.WB, -1), "closes 1 MMs by its cycle, its kernel says"),
    "a drain of another accumulator": (2, lambda c: change(c, hand.WB, src3=1), "closes 0 MMs by its cycle"),
    "an accumulator that is never read": (2, without(hand.WB), "no later WB reads its accumulator"),
    "an accumulator too many": (2, lambda c: change(c, hand.MM0, dst=2), "accumulator 2, a plane has 2"),
    "a matmul narrower than its drain": (2, lambda c: change(c, hand.MM0, n=1, t1=18), "adds 1 lines"),
    "a weight read off its tile": (2, lambda c: change(c, hand.MM0, src2=1265), "needs 2 TILE value(s)"),
    "two commits of one word": (3, lambda c: extend(c, SEND_AGAIN | {"dst": hand.BEST + 1}), "78, so does"),
    "a lane outside the link": (4, lambda c: change(c, hand.SEND, lane=2), "lanes 2 .. 2, the link has 2"),
    "a transfer faster than the wire": (4, lambda c: change(c, hand.SEND, t1=77), "23 cycles, must take 24"),
    "a relay that is no FORWARD": (4, lambda c: extend(c, SEND_BACK), "its opcode must be FORWARD"),
    "a slow instruction": (6, lambda c: change(c, hand.ARGRED, t1=92), "takes 14 cycles, must take 13"),
    "swapped weights": (7, _swap(hand.MM0, hand.MM1, "src2"), "holds tags 7.4 .. 7.5, wants 7.0 .. 7.1"),
    "an argmax of other lines": (7, lambda c: change(c, hand.ARGMAX, src3=2), "but reads line 0"),
    "swapped activations": (7, _swap(hand.MM0, hand.MM1, "src"), "wants tag 2.0"),
    "another value's addition": (7, lambda c: change(c, hand.MM0, dst_tag=tag(50)), "adds tag 50.0"),
    "a transfer that renames": (7, lambda c: change(c, hand.SEND, dst_tag=tag(50)), "delivers 50.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", MATMUL_FAULTS)
def test_a_fault_in_the_matmul_is_found_by_its_rule_alone(name: str) -> None:
    rule, fault, words = MATMUL_FAULTS[name]
    report = mutated(hand.matmul(), fault)
    assert rules(report) == {rule}
    assert any(words in violation.message for violation in report.violations), str(report)


ATTENTION_FAULTS: dict[str, tuple[int, Change, str]] = {
    "a busy unit": (1, moved(hand.A_EXP1, -1), "unit 4, held until cycle 49 by row 7 EXP chip 0"),
    "K read before it is appended": (2, moved(hand.A_QK0, -1), "at cycle 19: KVW commits at cycle 20"),
    "K never appended": (2, without(hand.A_KVW), "no KVW writes it"),
    "two heads in one KV region": (5, lambda c: extend(c, SECOND_HEAD), "1020 .. 1179 overlaps another one"),
    "a block outside the KV region": (5, lambda c: change(c, hand.A_PV1, n=2), "its KV region has 160"),
    "a slow result": (6, lambda c: change(c, hand.A_AOUT, t1=79), "takes 8 cycles, must take 7"),
    "another head's K": (7, lambda c: change(c, hand.A_QK1, src2_tag=tag(10)), "wants tag 10.0"),
    "nodes of other blocks": (7, lambda c: change(c, hand.A_AOUT, src_tag=tag(6, 3)), "wants tag 6.3"),
    "maxima of another block": (7, lambda c: change(c, hand.A_EXP1, src2=20, src2_tag=tag(4)), "its own sc"),
    "scores of another block": (7, lambda c: change(c, hand.A_SMAX1, src=16, src_tag=tag(3)), "its own sc"),
    "values of another block": (7, lambda c: change(c, hand.A_PV1, n=0), "its own scores"),
    "half a context": (7, lambda c: change(c, hand.A_AOUT, n=1, t1=77), "divides blocks 0 .. 0, not all 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTION_FAULTS)
def test_a_fault_in_attention_is_found_by_its_rule_alone(name: str) -> None:
    rule, fault, words = ATTENTION_FAULTS[name]
    report = mutated(hand.attention(), fault)
    assert rules(report) == {rule}
    assert any(words in violation.message for violation in report.violations), str(report)


KERNEL_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no number": ({"chunk": None}, "its kernel has chunk None, not a count"),
    "a number below one": ({"kv_stride": 0}, "its kernel has kv_stride 0, not a count"),
    "a number beyond 31 bits": ({"capacity": 1 << 31}, "its kernel has capacity 2147483648, not a count"),
    "a truth in place of a number": ({"stripes": True}, "its kernel has stripes True, not a count"),
    "another batch": ({"rows": 2}, "its kernel has 2 rows, the program 1"),
    "an unknown format": ({"kv": "bf16"}, "its kernel has kv 'bf16'"),
    "blocks that are not taken whole": ({"block": 100}, "its kernel has 80 tokens of 2 blocks of 100"),
    "more than a block": ({"block": 79}, "its kernel has 80 tokens of 2 blocks of 79"),
    "sequences that are not the batch": ({"sequences": 2}, "2 sequences of 1 rows, the program 1"),
    "another cache": ({"cached": 2}, "takes 1 of 2 cached sequences, the program has 1"),
    "runs of half blocks": ({"stripes": 2, "run": 120}, "its kernel has runs of 120 tokens, blocks of 80"),
    "another number of words": ({"kv_words": 2}, "kv_words 2, fp16 heads take another number"),
}


def unchecked(kernel: Kernel, **fields: Any) -> Kernel:
    """A copy of a kernel with values that its constructor would not have taken."""
    out = copy.copy(kernel)
    for name, value in fields.items():
        object.__setattr__(out, name, value)
    return out


@pytest.mark.parametrize("name", KERNEL_FAULTS)
def test_a_kernel_that_means_nothing_is_found(name: str) -> None:
    changes, words = KERNEL_FAULTS[name]
    program = hand.attention()
    kernels = program.manifest.kernels
    report = mutated(program, kernels=(*kernels[:2], unchecked(kernels[2], **changes)))
    assert rules(report) == {0}
    assert words in report.violations[-1].message


MANIFEST_FAULTS: dict[str, tuple[int, dict[str, Any], str]] = {
    "no regions": (0, {"regions": ()}, "manifest: chips is 2, there are regions of 0"),
    "a link of no chip": (0, {"links": (Link(1, 2, 2, 20, 4),)}, "manifest: links: an end is no chip"),
    "a group of no chip": (0, {"groups": ((0, 2),)}, "manifest: groups: chip 2, chips are 0 .. 1"),
    "chains without end": (
        0,
        {"chip": replace(hand.CHIP, vxm_chains=1 << 30)},
        "manifest: vxm_chains is 1073741824, must be at most 65536",
    ),
    "no token": (0, {"token": None}, "manifest: token: is None, the program is of kind 'step'"),
    "a batch of nothing": (0, {"rows": 0}, "rows is 0, must be a whole number of at least 1"),
    "an output nobody writes": (2, {"token": Place(0, 999)}, "token: word 999 of chip 0 is written by no"),
    "too few ports": (3, {"chip": replace(hand.CHIP, activation_ports=5)}, "moves 6.0 words, it has 5 ports"),
    "no such link": (4, {"links": (Link(0, 1, 2, 20, 4),)}, "no link from chip 1 to chip 0"),
    "a longer link": (4, {"links": (Link(1, 0, 2, 21, 4),)}, "takes 24 cycles, must take 25"),
    "regions that overlap": (5, regions(Region(0, 1001), Region(1200, 800)), "words 1000 .. 1000"),
    "a region outside the chip": (5, regions(Region(0, 1000), Region(1200, 801)), "has 2000"),
    "operands outside their region": (5, regions(Region(8, 992), Region(1200, 800)), "8 .. 999"),
    "slower drains": (6, {"chip": replace(hand.CHIP, mxm_fill_cycles=11)}, "takes 11 cycles, must take 12"),
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFEST_FAULTS)
def test_a_machine_that_the_rows_do_not_fit_is_found(name: str) -> None:
    rule, changes, words = MANIFEST_FAULTS[name]
    report = mutated(hand.matmul(), **changes)
    assert rules(report) == {rule}
    assert any(words in violation.message for violation in report.violations), str(report)


LOAD_FAULTS: dict[str, tuple[int, Callable[[Loads], Loads], str]] = {
    "a table of fewer lines": (2, lambda w: change_load(w, 0, lines=5), "reads 6 lines of a table of 5"),
    "an unknown kind": (0, lambda w: change_load(w, 1, kind=99), "load 1: chip 0, kind 99"),
    "a value of another kind": (2, lambda w: change_load(w, 0, kind=4), "is in chip 0 words 1200 .. 1247"),
    "a table of another size": (2, lambda w: change_load(w, 0, words=40), "needs 1 TABLE value(s)"),
    "two values in one word": (5, lambda w: change_load(w, 1, addr=1247), "loads 0 and 1 share word 1247"),
    "a value outside the region": (5, lambda w: change_load(w, 1, addr=2000), "load 1: words 2000 .. 2000"),
    "another table": (7, lambda w: change_load(w, 0, tag=tag(22)), "wants 20.0 .. 20.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOAD_FAULTS)
def test_a_wrong_weight_image_is_found(name: str) -> None:
    rule, fault, words = LOAD_FAULTS[name]
    program = hand.attention()
    report = check_columns(program.manifest, fault(program.loads()), program.expand(CONTEXT))
    assert rules(report) == {rule}
    assert any(words in violation.message for violation in report.violations), str(report)


def test_swapped_tiles_of_one_matmul_are_found_although_the_first_is_right() -> None:
    program = hand.matmul()
    loads = program.loads()
    second, third = loads.tag[2], loads.tag[3]
    swapped = change_load(change_load(loads, 2, tag=int(third)), 3, tag=int(second))
    assert rules(check_columns(program.manifest, swapped, program.expand(CONTEXT))) == {7}


@pytest.mark.parametrize(
    ("make", "slack"),
    [
        (hand.matmul, {hand.ARGMAX, hand.ARGRED}),
        (hand.attention, {hand.A_QK1, hand.A_SMAX1, hand.A_PV0, hand.A_AOUT}),
    ],
)
def test_every_row_counts(make: Callable[[], Program], slack: set[int]) -> None:
    """A row dropped or early breaks a rule, and so does a late one, but for those that nothing awaits."""
    program = make()
    for row in range(len(program.expand(CONTEXT))):
        assert not mutated(program, without(row)).ok, f"row {row} dropped"
        assert not mutated(program, moved(row, -1)).ok, f"row {row} early"
        assert mutated(program, moved(row, 1)).ok == (row in slack), f"row {row} late"


def test_a_forward_pays_the_forwarding_latency() -> None:
    forward = SEND_BACK | {"op": Op.FORWARD}
    assert rules(mutated(hand.matmul(), lambda c: extend(c, forward))) == {4}
    assert mutated(hand.matmul(), lambda c: extend(c, forward | {"t1": 105})).ok


def test_a_second_lane_is_free() -> None:
    assert mutated(hand.matmul(), lambda c: extend(c, SEND_AGAIN)).ok


def test_rows_without_tags_are_not_compared() -> None:
    def fault(c: Columns) -> Columns:
        swapped = _swap(hand.MM0, hand.MM1, "src")(c)
        return change(change(swapped, hand.MM0, src_tag=-1), hand.MM1, src_tag=-1)

    assert mutated(hand.matmul(), fault).ok


def test_lines_of_a_batch_begin_at_multiples_of_it() -> None:
    row = {"op": Op.EMBED, "chip": 0, "unit": hand.VXM, "t0": 0, "t1": 9, "aux": 0, "n": 8, "src": 1200}
    kernels = (EmbedKernel(vocab=16, stride=4),)
    loads = hand.loads([{"chip": 0, "addr": 1200, "words": 64, "kind": TABLE}])
    for dst, found in ((2, set[int]()), (3, {5})):
        manifest = hand.manifest(rows=2, kernels=kernels, token=Place(0, dst))
        report = check_columns(manifest, loads, hand.columns([row | {"dst": dst}]))
        assert rules(report) - {2} == found


def test_columns_of_another_type_are_refused() -> None:
    def narrow(c: Columns) -> Columns:
        return replace(c, t0=c.t0.astype(np.int32))

    report = mutated(hand.matmul(), narrow)
    assert rules(report) == {0}
    assert "column t0 is int32 (14,), must be int64 (14,)" in str(report)


def test_any_number_in_any_column_gives_a_report_and_no_crash() -> None:
    program = hand.attention()
    random = np.random.default_rng(1)
    for name in COLUMNS + TAGS:
        for value in (-(1 << 63), -2, 1 << 20, 1 << 40, (1 << 62) + 1, (1 << 63) - 1):
            row = int(random.integers(11))
            assert str(mutated(program, lambda c, r=row, n=name, v=value: change(c, r, **{n: v})))


def test_an_empty_program_writes_no_output() -> None:
    report = mutated(hand.matmul(), lambda c: c.take(np.zeros(0, np.int64)))
    assert rules(report) == {2}
    assert report.total == 5


def test_a_report_fits_a_screen_and_counts_everything() -> None:
    manifest, loads, columns = hand.tiled(hand.matmul(), 4, 50)
    late = replace(columns, t1=columns.t1 + (columns.op == Op.ARGRED))
    report = check_columns(manifest, loads, late)
    assert report.counts[6] == 200
    assert len(report.violations) == 20
    assert len(str(report).splitlines()) < 30
    assert [v.row for v in report.violations[:4]] == [50 * 14 * pair + hand.ARGRED for pair in range(4)]


def test_require_raises_what_the_command_line_calls_exit_code_four() -> None:
    report = mutated(hand.matmul(), moved(hand.CAST, -1))
    with pytest.raises(HazardError, match=r"check: rule 2: row 1 CAST chip 0 cycle 6: .* cycle 7") as caught:
        require(report)
    assert caught.value.report is report
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


def test_two_hundred_thousand_rows_are_checked_at_once() -> None:
    manifest, loads, columns = hand.tiled(hand.matmul(), 128, 112)
    assert len(columns) == 200_704
    assert require(check_columns(manifest, loads, columns)).rows == len(columns)
    row = 123 * 14 * 112 + 77 * 14 + hand.MM1
    assert rules(check_columns(manifest, loads, change(columns, row, src=hand.H))) == {7}
