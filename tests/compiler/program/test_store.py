"""A program's folder: written equal, read whole, refused when altered or of another release."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from steps import llama

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.isa import COLUMNS, TAGS, Columns
from compiler.program.program import LOADS, Program
from compiler.program.store import ProgramError, digest, load, manifest_json, manifest_of, save
from fabric.rack import load_rack

TRAY = load_rack("lpx-tray")


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_program(llama(), TRAY, CompileOptions(tp=2))


def test_a_saved_program_loads_equal_and_saves_to_equal_bytes(program: Program, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    save(program, one)
    again = load(one)
    save(again, two)
    for name in ("manifest.json", "columns.npz"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    for name in COLUMNS + TAGS:
        assert np.array_equal(getattr(program.expand(160), name), getattr(again.expand(160), name))


def test_an_altered_column_is_found_by_its_digest(program: Program, tmp_path: Path) -> None:
    block = program.blocks[2]
    columns = replace(block.columns[160], t0=block.columns[160].t0 + 1)
    altered = replace(block, columns={160: columns})
    save(replace(program, blocks=(*program.blocks[:2], altered, *program.blocks[3:])), tmp_path)
    with pytest.raises(ProgramError, match="digest"):
        load(tmp_path)


@pytest.mark.parametrize("name", COLUMNS + TAGS + LOADS)
def test_every_column_is_in_the_digest(program: Program, name: str) -> None:
    block = program.blocks[2]
    table = block.columns[160] if name in COLUMNS + TAGS else block.loads
    values = getattr(table, name).copy()
    values[np.argmax(values)] ^= 1
    changed = replace(table, **{name: values})
    other = (
        replace(block, columns={160: changed})
        if isinstance(changed, Columns)
        else replace(block, loads=changed)
    )
    blocks = (*program.blocks[:2], other, *program.blocks[3:])
    assert digest(replace(program, blocks=blocks)) != program.manifest.digest == digest(program)


def test_an_altered_manifest_is_found_by_its_seal(program: Program, tmp_path: Path) -> None:
    save(program, tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"rows": 1', '"rows": 2'))
    with pytest.raises(ProgramError, match="seal"):
        load(tmp_path)


def test_a_truncated_or_missing_file_is_one_clear_error(program: Program, tmp_path: Path) -> None:
    save(program, tmp_path)
    path = tmp_path / "columns.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ProgramError, match="not a whole program"):
        load(tmp_path)
    path.unlink()
    with pytest.raises(ProgramError, match="not a whole program"):
        load(tmp_path)


def test_what_is_no_program_is_named_for_what_it_is(program: Program, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text('{"name": "a web page"}')
    (tmp_path / "site" / "columns.npz").touch()
    for name, words in {
        "file": "it is a file",
        "empty": "it has no manifest.json",
        "none": "there is no such folder",
        "site": "lacks 'seal'",
    }.items():
        with pytest.raises(ProgramError, match=f"{name}: not a whole program folder \\(.*{words}"):
            load(tmp_path / name)


def test_a_manifest_goes_through_json_and_back(program: Program) -> None:
    assert manifest_of(json.loads(json.dumps(manifest_json(program.manifest)))) == program.manifest


@pytest.mark.parametrize("body", ["[]", "{}", '{"manifest":{},"blocks":[],"calls":[{"base":{}}]}'])
def test_a_sealed_folder_of_something_else_is_no_program(body: str, tmp_path: Path) -> None:
    seal = hashlib.sha256(body.encode()).hexdigest()
    (tmp_path / "manifest.json").write_text(f'{{"seal": "{seal}"}}\n{body}\n')
    np.savez(tmp_path / "columns.npz")
    with pytest.raises(ProgramError, match="not a whole program folder"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        (lambda rows: rows.astype(complex), "must be one row of integers"),
        (lambda rows: rows.astype(float), "must be one row of integers"),
        (lambda rows: rows.astype(bool), "must be one row of integers"),
        (lambda rows: rows.astype(str), "must be one row of integers"),
        (lambda rows: rows.astype(object), "not a whole program folder"),
        (lambda rows: rows.astype(np.uint64), "must be one row of integers"),
        (lambda rows: rows[None], "must be one row of integers"),
        (lambda rows: np.int64(3), "must be one row of integers"),
        (lambda rows: rows[:-1], "are not of one length"),
        (lambda rows: rows + (1 << 60), "must be below 2\\^60"),
        (lambda rows: np.full(len(rows), -(1 << 63)), "must be below 2\\^60"),
    ],
)
def test_columns_are_rows_of_integers_of_one_length(
    program: Program, tmp_path: Path, spoiled: Any, words: str
) -> None:
    save(program, tmp_path)
    with np.load(tmp_path / "columns.npz") as held:
        arrays: dict[str, Any] = dict(held)
    arrays["2.160.src"] = spoiled(arrays["2.160.src"].astype(np.int64))
    np.savez(tmp_path / "columns.npz", **arrays)
    with pytest.raises(ProgramError, match=words):
        load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("rows", 10**30, "a number of more than 64 bits"),
        ("rows", float("nan"), "a number is nan"),
        ("rack", "\x1b[31mquad", "text with control characters"),
        ("rack", "two\nlines", "text with control characters"),
        ("rack", "\ud800", "text with control characters"),
    ],
)
def test_a_manifest_holds_numbers_of_64_bits_and_text_that_a_screen_shows(
    program: Program, tmp_path: Path, key: str, value: Any, words: str
) -> None:
    save(program, tmp_path)
    path = tmp_path / "manifest.json"
    body = json.loads(path.read_text())
    body["manifest"][key] = value
    path.write_text(json.dumps(body))
    with pytest.raises(ProgramError, match=words):
        load(tmp_path)
