"""check, report, bounds and trace as functions, and how results show themselves."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lpu import api
from lpu.inputs.document import FileError
from lpu.screen import COLUMNS, LINES, OnScreen, on_screen


@pytest.fixture(scope="module")
def made() -> api.Compiled:
    return api.compile("llama-tiny", rack="quad", tp=2, context=32)


def test_what_compile_gives_a_program_and_a_folder_are_asked_alike(
    made: api.Compiled, tmp_path: Path
) -> None:
    api.save_program(made.program, tmp_path / "p")
    for source in (made, made.program, tmp_path / "p", str(tmp_path / "p")):
        checked, found, bounds = api.check(source), api.report(source), api.bounds(source)
        assert checked.ok
        assert (
            checked.digest == bounds.digest == found.program.manifest.digest == made.program.manifest.digest
        )
        assert found.occupancy[0].cycles == bounds.cycles[32] == made.program.manifest.cycles[32]
        assert max(one.cycles for one in bounds.bounds[32]) <= bounds.cycles[32]
        for body in (checked.to_json(), found.to_json(), bounds.to_json()):
            assert json.loads(json.dumps(body))["program_sha256"] == made.program.manifest.digest
    done = api.trace(made, tmp_path / "t.json", chips=[0])
    assert json.loads((tmp_path / "t.json").read_text())["otherData"]["context"] == done.context == 32
    with pytest.raises(FileError, match="--context 64: the program has 32"):
        api.trace(made, tmp_path / "u.json", context=64)


def test_a_broken_program_is_told_not_raised(made: api.Compiled) -> None:
    clock = replace(made.program.manifest, cycles={32: made.program.manifest.cycles[32] - 1})
    found = api.check(replace(made.program, manifest=clock))
    assert not found.ok
    assert "verdict     broken" in str(found)


def test_a_result_shows_a_screen_at_most(made: api.Compiled) -> None:
    for one in (made, made.model, api.check(made), api.report(made), api.bounds(made)):
        assert len(repr(one).splitlines()) <= LINES
        assert max(map(len, repr(one).splitlines())) <= COLUMNS
    assert len(repr(made.program)) < 300
    assert "llama-tiny" in repr(made)
    assert "projection, exact for the stated machine" in repr(made)


class Loud(OnScreen):
    def __str__(self) -> str:
        return "<script>alert('&')</script>"


def test_text_is_cut_to_the_screen_and_escaped_in_a_notebook() -> None:
    shown = on_screen("\n".join(["x" * 500] * 100))
    assert len(shown.splitlines()) == LINES
    assert shown.splitlines()[0] == "x" * (COLUMNS - 3) + "..."
    assert shown.endswith(f"... and {100 - LINES + 1} more lines")
    html = Loud()._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert html == "<pre>&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;</pre>"


def test_a_manifest_is_one_json_document(made: api.Compiled, tmp_path: Path) -> None:
    api.save_program(made.program, tmp_path / "p")
    assert isinstance(json.loads((tmp_path / "p" / "manifest.json").read_text()), dict)
