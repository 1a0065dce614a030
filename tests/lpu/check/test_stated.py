"""What a program claims besides its rows is held against the program."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.program.manifest import Step
from compiler.program.program import Program
from compiler.program.store import ProgramError, digest, load, save, sealed
from lpu.check.check import check
from lpu.check.stated import machine


def described(program: Program, **changes: Any) -> Program:
    return replace(program, manifest=replace(program.manifest, **changes))


def with_call(program: Program, **changes: Any) -> Program:
    *calls, last = program.calls
    return replace(program, calls=(*calls, replace(last, **changes)))


def with_map(program: Program, entries: list[int]) -> Program:
    *blocks, last = program.blocks
    return replace(program, blocks=(*blocks, replace(last, maps=(np.array(entries), *last.maps[1:]))))


def broken(program: Program) -> dict[str, Program]:
    last = program.calls[-1]
    return {
        "schema is 'other'": described(program, schema="other"),
        "contexts are []": described(program, contexts=()),
        "contexts are [80, 80]": described(program, contexts=(80, 80)),
        "cycles are stated for []": described(program, cycles={}),
        "block 99 of": with_call(program, block=99),
        "no cycle for context 80": with_call(program, base={}),
        "names a chip twice": with_call(program, chips=(last.chips[0],) * len(last.chips)),
        "bases of other than": with_call(program, kv_base=()),
        "1 tensors for": with_call(program, tensors=last.tensors[:1]),
        "its block names ranks": with_call(
            program, chips=(0,), weight_base=(0,), kv_base=(0,), shared_base=(0,)
        ),
        "names an index twice": with_map(program, [3, 3]),
        "a slot names map 99": replace(
            program,
            blocks=(*program.blocks[:-1], replace(program.blocks[-1], slots=((99, -1),) * len(last.tensors))),
        ),
    }


def test_every_claim_that_does_not_hold_is_a_violation_of_rule_0(pair_program: Program) -> None:
    assert check(pair_program, 80).ok
    for words, program in broken(pair_program).items():
        report = check(program, 80)
        assert report.counts[0] >= 1, words
        assert any(words in found.message for found in report.violations), (words, str(report))


def test_the_digest_covers_every_key_of_the_manifest_but_versions(pair_program: Program) -> None:
    manifest, before = pair_program.manifest, digest(pair_program)
    others: dict[str, Any] = {
        "rack": "other",
        "cycles": {80: 1},
        "prefill": 8,
        "forward_cycles": manifest.forward_cycles + 1,
        "groups": (),
        "levels": (),
        "sources": (),
        "model": replace(manifest.model, name="other"),
        "options": replace(manifest.options, seed=7),
        "chip": replace(manifest.chip, clock_hz=1),
        "chips": 3,
        "inputs": "other",
        "schema": "other",
    }
    for name, value in others.items():
        assert digest(described(pair_program, **{name: value})) != before, name
    assert digest(described(pair_program, versions={}, digest="")) == before
    assert isinstance(manifest.body, Step)


def test_a_saved_program_without_contexts_or_cycles_is_refused(pair_program: Program, tmp_path: Path) -> None:
    for name, changes in {"contexts": {"contexts": (), "cycles": {}}, "cycles": {"cycles": {}}}.items():
        (tmp_path / name).mkdir()
        save(sealed(described(pair_program, **changes)), tmp_path / name)
        with pytest.raises(ProgramError, match="a program has some, and cycles for each"):
            load(tmp_path / name)


def test_a_machine_is_the_catalogs_or_named_as_its_own(pair_program: Program) -> None:
    assert machine(pair_program.manifest) == "pair of the catalog"
    chip = replace(pair_program.manifest.chip, clock_hz=10)
    assert "differs from the catalog's pair in chip)" in machine(replace(pair_program.manifest, chip=chip))
    links = pair_program.manifest.links[:1]
    assert "in links), sha256 " in machine(replace(pair_program.manifest, links=links))
    assert "none of that name" in machine(replace(pair_program.manifest, rack="mine"))
