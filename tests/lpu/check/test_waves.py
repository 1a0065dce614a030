"""Waves: steps of several users overlapped are legal, and each computes what the first does."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from steps import llama

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.isa import COLUMNS, TAGS, Columns, Op
from compiler.program.manifest import Manifest, Step, Waves
from compiler.program.program import Program
from compiler.program.store import load, save
from compiler.program.waves import expand_wave
from fabric.rack import load_rack
from lpu.check.check import check, check_columns
from lpu.check.waves import check_waves
from lpu.link.link import link

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "columns in two groups": ("quad", {"tp": 2}, {}),
    "a chip a stage, batch 2": ("quad", {"tp": 1}, {"batch": 2}),
    "2d, one group": ("quad", {"tp": 4, "layout": "2d"}, {}),
    "a ring at random": ("ring-8", {"tp": 2, "placement": "random"}, {}),
    "slack": ("ring-8", {"tp": 2, "interval_slack": 1.5}, {}),
}


def waves(rack: str, options: dict[str, Any], model: dict[str, Any]) -> Program:
    return compile_program(llama(**model), load_rack(rack), CompileOptions(objective="throughput", **options))


def waves_of(program: Program) -> Waves:
    assert program.manifest.waves is not None
    return program.manifest.waves


def joined(parts: list[Columns]) -> Columns:
    return Columns(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in COLUMNS + TAGS})


@pytest.fixture(scope="module")
def subject() -> Program:
    return waves("quad", {"tp": 2, "users": 200}, {})


@pytest.mark.parametrize("case", CASES)
def test_waves_are_legal(case: str) -> None:
    rack, options, model = CASES[case]
    program = waves(rack, options, model)
    report = check(program, 160)
    assert report.ok, str(report)
    entry = waves_of(program).contexts[160]
    assert entry.bound <= entry.interval < program.manifest.cycles[160]


@pytest.mark.parametrize("case", CASES)
def test_overlapped_waves_are_one_legal_program_in_which_each_computes_what_the_first_does(case: str) -> None:
    rack, options, model = CASES[case]
    program = waves(rack, options, model)
    stated, loads = waves_of(program), program.loads()
    turn = stated.contexts[160].turn
    several = [w for w in (*range(7), max(stated.arenas)) if w % turn < stated.users]
    whole = joined([expand_wave(program, 160, wave) for wave in several])
    manifest = replace(program.manifest, body=Step())
    assert check_columns(manifest, loads, whole).ok, str(check_columns(manifest, loads, whole))
    alone, together = (link(manifest, loads, columns) for columns in (program.expand(160), whole))
    size = len(alone.columns)
    for operand in range(len(alone.lines.first)):
        one = np.diff(alone.lines.first[operand])
        counts = np.diff(together.lines.first[operand])
        assert np.array_equal(counts, np.tile(one, len(several)))
        source = together.lines.row[together.lines.found[operand]].reshape(len(several), -1)
        meant = alone.lines.row[alone.lines.found[operand]]
        for i in range(len(several)):
            assert np.array_equal(source[i], meant + i * size)
    assert np.array_equal(together.load, np.tile(alone.load, len(several)))
    drain = np.where(alone.drain < 0, -1, alone.drain)
    for i in range(len(several)):
        mine = together.drain[i * size : (i + 1) * size]
        assert np.array_equal(mine, np.where(drain < 0, -1, drain + i * size))


def test_users_keep_kv_of_their_own(subject: Program) -> None:
    flow = [expand_wave(subject, 160, wave) for wave in (0, 1)]
    regions = [set(zip(f.chip[f.op == Op.KVW], f.dst[f.op == Op.KVW], strict=True)) for f in flow]
    assert not regions[0] & regions[1]


def test_a_wave_of_a_user_that_there_is_no_room_for_is_refused() -> None:
    program = waves("quad", {"tp": 2, "users": 1, "interval_slack": 1.0}, {})
    with pytest.raises(ValueError, match="there are 1"):
        expand_wave(program, 160, 1)


def test_a_program_with_waves_is_read_back_as_it_was(subject: Program, tmp_path: Any) -> None:
    save(subject, tmp_path)
    assert load(tmp_path).manifest == subject.manifest


def altered(program: Program, **changes: Any) -> Manifest:
    waves = waves_of(program)
    of_context = {name: changes.pop(name) for name in ("interval", "turn") if name in changes}
    entry = replace(waves.contexts[160], **of_context)
    return replace(program.manifest, body=replace(waves, contexts={160: entry}, **changes))


def found(program: Program, **changes: Any) -> str:
    report = check_waves(altered(program, **changes), program.expand(160), 160)
    assert not report.ok
    return str(report)


def test_an_interval_of_one_cycle_less_is_caught(subject: Program) -> None:
    entry = waves_of(subject).contexts[160]
    assert "modulo" in found(subject, interval=entry.interval - 1, turn=10 * entry.turn)


def test_one_copy_of_the_transients_less_is_caught(subject: Program) -> None:
    known = waves_of(subject).arenas
    for chip, count in enumerate(known):
        found(subject, arenas=(*known[:chip], count - 1, *known[chip + 1 :]))


def test_copies_that_do_not_fit_their_region_are_caught(subject: Program) -> None:
    words = waves_of(subject).arena_words
    assert "transient region" in found(subject, arena_words=tuple(2 * count for count in words))
    assert "what the wave" in found(subject, arena_words=tuple(0 * count for count in words))


def test_two_users_on_one_kv_region_are_caught(subject: Program) -> None:
    words = waves_of(subject).user_words
    assert "KV" in found(subject, users=10 * waves_of(subject).users, turn=100_000)
    assert "ends at word" in found(subject, user_words=tuple(count // 2 for count in words))


def test_a_user_that_steps_before_its_last_step_ended_is_caught(subject: Program) -> None:
    assert "before its last step has ended" in found(subject, turn=1, users=1)


def test_values_of_two_waves_with_one_name_are_caught(subject: Program) -> None:
    assert "names value" in found(subject, tags=3)


def test_manifests_that_make_no_sense_are_caught(subject: Program) -> None:
    for changes in ({"interval": 0}, {"users": -1}, {"arenas": (1,)}):
        assert "waves:" in found(subject, **changes)


def test_a_row_moved_onto_a_cycle_of_another_wave_is_caught(subject: Program) -> None:
    columns, random = subject.expand(160), np.random.default_rng(0)
    interval = waves_of(subject).contexts[160].interval
    units = np.flatnonzero(columns.unit >= 0)
    place = columns.chip[units] * 64 + columns.unit[units]
    for _ in range(20):
        one = int(random.choice(units))
        others = units[(place == columns.chip[one] * 64 + columns.unit[one]) & (units != one)]
        if not len(others):
            continue
        other = int(random.choice(others))
        t0, t1 = columns.t0.copy(), columns.t1.copy()
        t0[one] = columns.t0[other] + interval * int(random.integers(-1, 3))
        t1[one] = t0[one] + columns.t1[one] - columns.t0[one]
        report = check_waves(subject.manifest, replace(columns, t0=t0, t1=t1), 160)
        assert report.counts[1], str(report)


def test_a_row_one_cycle_off_is_caught_or_another_legal_schedule(subject: Program) -> None:
    """What both checks let pass must give every wave the dataflow that it had."""
    columns, random = subject.expand(160), np.random.default_rng(1)
    manifest, loads = subject.manifest, subject.loads()
    reference = link(manifest, loads, columns)
    caught = 0
    for _ in range(40):
        row, by = int(random.integers(len(columns))), int(random.choice([-1, 1]))
        t0, t1 = columns.t0.copy(), columns.t1.copy()
        t0[row] += by
        t1[row] += by
        moved = replace(columns, t0=t0, t1=t1)
        if not check_columns(manifest, loads, moved).ok or not check_waves(manifest, moved, 160).ok:
            caught += 1
            continue
        flow = link(manifest, loads, moved)
        assert np.array_equal(
            flow.lines.row[flow.lines.found[0]], reference.lines.row[reference.lines.found[0]]
        )
    assert caught


def moved(columns: Columns, row: int, by: int) -> Columns:
    t0, t1 = columns.t0.copy(), columns.t1.copy()
    t0[row] += by
    t1[row] += by
    return replace(columns, t0=t0, t1=t1)


def test_a_transfer_on_a_lane_that_another_wave_holds_is_caught(subject: Program) -> None:
    columns = subject.expand(160)
    interval = waves_of(subject).contexts[160].interval
    sends = np.flatnonzero(columns.lane >= 0)
    link = columns.chip[sends] << 40 | columns.peer[sends] << 20 | columns.lane[sends]
    one, other = next((a, b) for i, a in enumerate(sends) for b in sends[i + 1 :][link[i + 1 :] == link[i]])
    late = moved(columns, int(one), int(columns.t0[other] - columns.t0[one]) + interval)
    report = check_waves(subject.manifest, late, 160)
    assert report.counts[1], str(report)


def test_a_write_back_a_whole_interval_late_meets_the_next_wave_in_its_accumulator(subject: Program) -> None:
    columns = subject.expand(160)
    interval = waves_of(subject).contexts[160].interval
    row = int(np.flatnonzero(columns.op == Op.WB)[0])
    report = check_waves(subject.manifest, moved(columns, row, interval), 160)
    assert "accumulator" in str(report)
    assert report.counts[2]


def test_waves_that_move_more_words_together_than_a_chip_has_ports_are_caught(subject: Program) -> None:
    chip = replace(subject.manifest.chip, activation_ports=1)
    report = check_waves(replace(subject.manifest, chip=chip), subject.expand(160), 160)
    assert report.counts[3]
    assert "for all waves" in str(report)
