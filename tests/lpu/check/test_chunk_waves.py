"""Chunks of a prompt as waves: each computes what it does alone, and reads the KV of those before it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from models_named import of_model
from pairs import compiled_pair
from shapes import SMALL

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import COLUMNS, SHARED, TAGS, WEIGHTS, Columns, Op
from compiler.program.manifest import Step, WaveContext, Waves
from compiler.program.program import Program
from compiler.program.prompt import prompt_cycles, whole_prompt
from compiler.program.waves import expand_wave
from lpu.check.check import check, check_columns, require
from lpu.check.waves import check_waves
from lpu.link.link import link
from lpu.prove.prove import prove
from lpu.report.program import prefill_body, prefill_facts

CONTEXTS = (80, 160)


@pytest.fixture(scope="module")
def chunks() -> Program:
    return compiled_pair(SMALL, 16, rack="quad", tp=1, pp=3, contexts=CONTEXTS)[2]


def entry_of(program: Program, context: int = 160) -> WaveContext:
    assert program.manifest.waves is not None
    return program.manifest.waves.contexts[context]


def altered(program: Program, **changes: Any) -> Program:
    waves = program.manifest.waves
    assert isinstance(waves, Waves)
    entry = replace(waves.contexts[160], **changes)
    body = replace(waves, contexts={**waves.contexts, 160: entry})
    return replace(program, manifest=replace(program.manifest, body=body))


def test_chunks_follow_each_other_in_less_than_a_chunk_takes(chunks: Program) -> None:
    for context in CONTEXTS:
        require(check(chunks, context))
        entry = entry_of(chunks, context)
        assert entry.turn == 1
        assert entry.bound <= entry.interval < chunks.manifest.cycles[context]
    assert prove(of_model(chunks, SMALL)).ok


def test_chunks_stay_one_after_another_where_there_is_one_group_or_nobody_wants_waves() -> None:
    one_group = compiled_pair(SMALL, 16, rack="quad", tp=4)[2]
    not_wanted = compiled_pair(SMALL, 16, rack="quad", tp=1, pp=3, waves=False)[2]
    for program in (one_group, not_wanted):
        assert isinstance(program.manifest.body, Step)
        runs = whole_prompt(program.manifest, 80)
        assert sum(run.total for run in runs) == 5 * program.manifest.cycles[80]
        assert str(runs[0]) == f"5 x {program.manifest.cycles[80]:,}"


def test_overlapped_chunks_are_one_legal_program_in_which_each_computes_what_it_does_alone(
    chunks: Program,
) -> None:
    """KV regions are set apart here, as a program appends to each once; their order is tested below."""
    waves, count = chunks.manifest.waves, 5
    assert waves is not None
    apart = altered(replace(chunks, manifest=replace(chunks.manifest, body=replace(waves, users=count))),
                    turn=count)  # fmt: skip
    whole = joined([expand_wave(apart, 160, wave) for wave in range(count)])
    regions = tuple(
        one._replace(kv=one.kv._replace(words=count * one.kv.words), weights=one.weights._replace(base=at))
        for one, at in zip(
            chunks.manifest.regions,
            [one.weights.base + (count - 1) * one.kv.words for one in chunks.manifest.regions],
            strict=True,
        )
    )
    moved = np.array([(count - 1) * one.kv.words for one in chunks.manifest.regions])
    whole, loads = shifted(whole, moved), chunks.loads()
    loads = replace(loads, addr=loads.addr + moved[loads.chip])
    manifest = replace(chunks.manifest, body=Step(), regions=regions)
    report = check_columns(manifest, loads, whole)
    assert report.ok, str(report)
    alone = link(manifest, loads, shifted(chunks.expand(160), moved))
    together, size = link(manifest, loads, whole), len(alone.columns)
    for operand in range(len(alone.lines.first)):
        source = together.lines.row[together.lines.found[operand]].reshape(count, -1)
        meant = alone.lines.row[alone.lines.found[operand]]
        assert all(np.array_equal(source[i], meant + i * size) for i in range(count))


def test_each_chunk_finds_the_keys_of_all_chunks_before_it_and_of_none_after(chunks: Program) -> None:
    parts = [expand_wave(chunks, 160, wave) for wave in range(4)]
    wave = np.repeat(np.arange(4), [len(part) for part in parts])
    rows = joined(parts)
    appends = rows.op == Op.KVW
    reads = (rows.op == Op.QK) | (rows.op == Op.PV)
    for chip, word in {*zip(rows.chip[appends].tolist(), rows.dst[appends].tolist(), strict=True)}:
        made = appends & (rows.chip == chip) & (rows.dst == word)
        for one in np.flatnonzero(reads & (rows.chip == chip) & (rows.src2 == word)):
            assert set(wave[made & (rows.t1 <= rows.t0[one])].tolist()) == {*range(wave[one] + 1)}


def joined(parts: list[Columns]) -> Columns:
    return Columns(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in COLUMNS + TAGS})


def shifted(columns: Columns, by: np.ndarray) -> Columns:
    """The rows with the weights of each chip this many words further on."""
    out = {name: getattr(columns, name).copy() for name in COLUMNS + TAGS}
    for op, record in INSTRUCTIONS.items():
        for operand in record.operands:
            if operand.space in (WEIGHTS, SHARED):
                rows = columns.op == op
                out[operand.column][rows] += by[columns.chip[rows]]
    return Columns(**out)


def test_chunks_that_meet_on_a_chip_are_not_proved(chunks: Program) -> None:
    less = altered(chunks, interval=entry_of(chunks).interval // 2)
    found = prove(of_model(less, SMALL))
    assert "chunks follow each other every" in found.reason


def test_a_chunk_that_comes_to_keys_before_the_last_has_left_them_is_caught(chunks: Program) -> None:
    """The last row that reads keys, an interval later: its unit is as free as it was."""
    columns, interval = chunks.expand(160), entry_of(chunks).interval
    row = int(np.flatnonzero(columns.op == Op.QK)[-1])
    t0, t1 = columns.t0.copy(), columns.t1.copy()
    t0[row] += interval
    t1[row] += interval
    report = check_waves(chunks.manifest, replace(columns, t0=t0, t1=t1), 160)
    assert any("needs the KV region" in violation.message for violation in report.violations)
    assert not report.counts[1]


def test_tokens_of_a_decode_step_are_not_known_ahead(chunks: Program) -> None:
    manifest = replace(chunks.manifest, chunk=1)
    assert "before its last step has ended" in str(check_waves(manifest, chunks.expand(160), 160))


def test_a_prompt_takes_its_first_chunk_and_an_interval_for_each_of_the_others(chunks: Program) -> None:
    cycles, long, short = chunks.manifest.cycles, entry_of(chunks), entry_of(chunks, 80)
    assert prompt_cycles(chunks.manifest, (160,)) == cycles[160]
    assert prompt_cycles(chunks.manifest, (160,) * 8) == 7 * long.interval + cycles[160]
    both = 4 * short.interval + cycles[80] + 2 * long.interval + cycles[160]
    assert prompt_cycles(chunks.manifest, (80,) * 5 + (160,) * 3) == both
    assert sum(run.total for run in whole_prompt(chunks.manifest, 128)) == both
    assert prefill_body(chunks)["prompt"]["tokens"] == 160
    assert f"(5 - 1) x {short.interval:,} + {cycles[80]:,}" in str(prefill_facts(chunks))
