import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fabric.rack import load_rack
from lpu.inputs.files import (
    FileError,
    ModelFile,
    read_json,
    read_model,
    read_rack,
)
from lpu.inputs.open import default_weights

Write = Callable[..., Path]
RACK = """\
name: mine
chip: tiny
forward_ns: 50
levels:
  - {name: tray, kind: all-to-all, size: 2, lanes: 4, hop_ns: 100}
  - name: rack
    kind: ring
    size: 3
    lanes: 2
    hop_ns: 200
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def complaint(read: Callable[[Path], object], path: Path) -> str:
    """What the FileError says, without the folder."""
    with pytest.raises(FileError) as caught:
        read(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_a_rack_file_becomes_a_rack_whose_numbers_are_assumed_from_it(write: Write) -> None:
    path = write(RACK)
    rack = read_rack(path)
    assert (rack.name, rack.chips, rack.chip.name) == ("mine", 6, "tiny")
    assert rack.groups("tray") == ((0, 1), (2, 3), (4, 5))
    assert {(s.confidence, s.source) for s in rack.sources} == {("assumed", f"stated in {path}")}
    assert [s.field for s in rack.sources][:2] == ["forward_ns", "tray.size"]


def test_a_rack_may_list_its_links_and_say_a_source(write: Write) -> None:
    text = "name: odd\nchip: lp30\nforward_ns: 0\nchips: 3\nlinks: [[0, 1, 4, 350], [1, 2, 8, 350]]\n"
    rack = read_rack(write(text + "sources:\n  - {field: links, confidence: B, source: my notes}\n"))
    assert rack.links.lanes.tolist() == [4, 4, 8, 8]
    assert [(s.field, s.confidence) for s in rack.sources] == [("links", "B"), ("forward_ns", "assumed")]


def test_a_rack_file_may_change_numbers_of_a_catalog_chip(write: Write) -> None:
    chip = "chip:\n  base: lp30\n  name: slow\n  weight_install_frac: 0.25\n"
    rack = read_rack(write(RACK.replace("chip: tiny\n", chip)))
    assert (rack.chip.name, rack.chip.plane_bytes_per_cycle) == ("slow", 6400)
    sources = {s.field: s.confidence for s in rack.chip.sources}
    assert (sources["weight_install_frac"], sources["lanes"]) == ("assumed", "A")


def test_a_rack_is_found_by_its_catalog_name(tmp_path: Path) -> None:
    assert read_rack("lpx-tray").chips == 8
    with pytest.raises(FileError, match=r"'lpx-tary' is not in the catalog. Did you mean lpx-tray\?.*\.yaml"):
        read_rack("lpx-tary")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("lanes: 2", "lane: 2"),
            "mine.yaml:9:5: levels[1].lane: is no key here. Did you mean lanes? Keys: ",
        ),
        (("lanes: 2", "lane: 2"), "mine.yaml:6:5: levels[1].lanes: is required"),
        (
            ("chip: tiny", "chip: tiny\nchipps: 6"),
            "mine.yaml:3:1: chipps: is no key here. Did you mean chips?",
        ),
        (("forward_ns: 50\n", ""), "mine.yaml:1:1: forward_ns: is required"),
        (
            ("hop_ns: 200", "hop_ns: 2e3"),
            "mine.yaml:10:5: levels[1].hop_ns: input should be a valid integer, got '2e3': "
            "YAML reads it as text, write 2_000",
        ),
        (("hop_ns: 200", "hop_ns: 0.5"), "mine.yaml:10:5: levels[1].hop_ns: input should be a valid integer"),
        (
            ("size: 3", "size: yes"),
            "mine.yaml:8:5: levels[1].size: input should be a valid integer, got True",
        ),
        (
            ("kind: ring", "kind: star"),
            "mine.yaml:7:5: levels[1].kind: input should be 'all-to-all', 'dragonfly'",
        ),
        (("size: 3", "size: 0"), "mine.yaml:8:5: levels[1].size: level rack has 0, needs at least 1"),
        (
            ("lanes: 4", "lanes: 99"),
            "mine.yaml:4:1: levels: rack mine: chip 0: its links take 103 lanes, a tiny has",
        ),
        (("lanes: 2", "lanes: 2\n    lanes: 3"), "mine.yaml:10:5: lanes: is there twice"),
        (
            ("chip: tiny", "chip: tinny"),
            "mine.yaml:2:1: chip: 'tinny' is not in the catalog. Did you mean tiny?",
        ),
        (("chip: tiny", "chip: 7"), "mine.yaml:2:1: chip: needs a name of the chip catalog"),
        (("chip: tiny\n", ""), "mine.yaml:1:1: chip: needs a name of the chip catalog"),
        (
            ("chip: tiny", "chip: {base: tiny, plane: 3}"),
            "mine.yaml:2:20: plane: is no key here. Did you mean planes?",
        ),
        (("chip: tiny", "chip: {base: tiny, planes: 0}"), "mine.yaml:2:20: planes: chip tiny has 0, needs"),
        (("chip: tiny", "chip: {base: tiny, planes: 1e1}"), "write 10"),
        (("chip: tiny", "chip: {base: tiny, clock_hz: 9e8}"), "write 900_000_000"),
        (("chip: tiny", "chip: {base: tiny, weight_install_frac: 5e-1}"), "write 0.5"),
        (("chip: tiny", "chip: {base: nix}"), "mine.yaml:2:8: chip.base: 'nix' is not in the catalog"),
        (("forward_ns: 50", "forward_ns: -5"), "mine.yaml:3:1: forward_ns: is -5, needs 0 to 1_000_000_000"),
        (("size: 3", f"size: {10**9}"), "mine.yaml:1:1: chips: the rack has 2000000000, at most 4096"),
        (("hop_ns: 200", f"hop_ns: {10**30}"), "mine.yaml:10:5: levels[1].hop_ns: level rack has 1000"),
        (("size: 3", "size: *x"), "mine.yaml:8:11: found undefined alias 'x'"),
        (("size: 3", "size: &x 3\n    reach: *x"), "mine.yaml:8:11: an alias (*name) is not allowed"),
        (("size: 3", "size: [3"), "mine.yaml:9:"),
        (
            ("name: mine", "name: !!python/object:os.system x"),
            "mine.yaml:1:7: could not determine a constructor",
        ),
        (("name: mine", "name: 2024-13-45"), "mine.yaml:1:7: month must be in 1..12"),
        (("name: mine", "? [a]\n: 1\nname: mine"), "mine.yaml:1:3: ?: is no key here"),
        (("name: mine", "name: \x07"), "mine.yaml:1:1: unacceptable character"),
        (("name: mine", 'name: "a\\u202eb"'), "mine.yaml:1:7: the text holds the control character U+202E"),
        (("name: mine", 'name: "a\\eb"'), "mine.yaml:1:7: the text holds the control character U+001B"),
    ],
)
def test_a_wrong_rack_file_is_answered_with_line_column_key_and_remedy(
    write: Write, change: tuple[str, str], said: str
) -> None:
    assert said in complaint(read_rack, write(RACK.replace(*change)))


def test_every_problem_of_a_file_is_named_at_once(write: Write) -> None:
    text = RACK.replace("lanes: 4", "lanes: x").replace("size: 3", "size: 3.5")
    assert complaint(read_rack, write(text)).splitlines() == [
        "mine.yaml:5:45: levels[0].lanes: input should be a valid integer, got 'x'",
        "mine.yaml:8:5: levels[1].size: input should be a valid integer, got 3.5",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "mine.yaml:1:1: is empty, needs keys with values"),
        ("- 1\n", "mine.yaml:1:1: holds a list, needs keys with values"),
        ("a: b: c\n", "mine.yaml:1:5: mapping values are not allowed here"),
        ("[" * 3000, "mine.yaml:1:1: is nested too deeply"),
        ("a: 1\n---\nb: 2\n", "mine.yaml:2:1: but found another document"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(write: Write, text: str, said: str) -> None:
    assert complaint(read_rack, write(text)) == said
    assert complaint(read_model, write(text)) == said


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    assert complaint(read_rack, tmp_path / "none.yaml") == "none.yaml: No such file or directory"
    (tmp_path / "folder.yaml").mkdir()
    assert complaint(read_model, tmp_path / "folder.yaml") == "folder.yaml: Is a directory"
    (tmp_path / "binary.yaml").write_bytes(b"name: \xff\xfe")
    assert complaint(read_rack, tmp_path / "binary.yaml").startswith("binary.yaml: is not UTF-8 text")


def test_a_model_file_becomes_a_record_with_one_or_several_contexts(write: Write) -> None:
    assert read_model(write("model: llama-tiny\ncontext: 512\n")) == ModelFile(
        model="llama-tiny", context=(512,)
    )
    text = "model: llama-tiny\nweights: seed:7\nbatch: 4\ncontext: [1024, 8192]\nkv: fp8\n"
    assert read_model(write(text)) == ModelFile(
        model="llama-tiny", weights="seed:7", batch=4, context=(1024, 8192), kv="fp8"
    )
    assert read_model(write('{"model": "llama-tiny", "batch": 2}', "mine.json")).batch == 2


def test_a_model_is_found_by_catalog_name_or_factory() -> None:
    assert read_model("llama-3.1-8b") == ModelFile(model="llama-3.1-8b")
    assert read_model("my.package:build") == ModelFile(model="my.package:build")
    with pytest.raises(
        FileError, match=r"'llama-3\.1-8' is not in the catalog\. Did you mean llama-3\.1-8b\?"
    ):
        read_model("llama-3.1-8")
    with pytest.raises(FileError, match="model: needs a catalog name"):
        read_model("")


def test_a_hugging_face_folder_brings_its_own_weights(tmp_path: Path) -> None:
    home = tmp_path / "hf"
    home.mkdir()
    with pytest.raises(FileError, match="is an empty folder"):
        read_model(home)
    (home / "config.json").write_text("{}")
    assert read_model(home) == ModelFile(model=str(home))
    assert default_weights(str(home)) == "none"
    (home / "model.safetensors").write_bytes(b"")
    assert default_weights(str(home)) == "safetensors"
    (tmp_path / "m.yaml").write_text("model: hf\n")
    assert read_model(tmp_path / "m.yaml") == ModelFile(model=str(home))
    (tmp_path / "m.yaml").write_text("model: hf\nweights: seed:3\n")
    assert read_model(tmp_path / "m.yaml") == ModelFile(model=str(home), weights="seed:3")


def test_paths_of_weights_are_meant_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "m.yaml").write_text("model: llama-tiny\nweights: orbax:w\n")
    assert read_model(tmp_path / "m.yaml").weights == f"orbax:{tmp_path / 'w'}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("batch: 0", "mine.yaml:2:1: batch: is 0, needs 1 to 65536"),
        ("batch: '4'", "mine.yaml:2:1: batch: input should be a valid integer, got '4'"),
        (
            "batch: 1e3",
            "mine.yaml:2:1: batch: input should be a valid integer, got '1e3': YAML reads it as text",
        ),
        ("context: 8e3", "write 8_000"),
        ("context: []", "mine.yaml:2:1: context: is [], needs ascending numbers"),
        ("context: [8, 4]", "mine.yaml:2:1: context: is [8, 4], needs ascending numbers of at least 1"),
        ("context: [8, 8]", "mine.yaml:2:1: context: is [8, 8]"),
        ("context: [8, x]", "mine.yaml:2:14: context[1]: input should be a valid integer, got 'x'"),
        ("kv: fp4", "mine.yaml:2:1: kv: input should be 'fp16' or 'fp8', got 'fp4'"),
        ("weights: seed:x", "mine.yaml:2:1: weights: 'seed:x' is none of seed:N, safetensors"),
        (
            "weights: safetensors",
            "mine.yaml:2:1: weights: model llama-tiny is not a folder. Write safetensors:PATH.",
        ),
        ("weights: orbax:nowhere", "mine.yaml:2:1: weights: nowhere: is not there"),
        (
            "batchsize: 3",
            "mine.yaml:2:1: batchsize: is no key here. Did you mean batch? Keys: model, weights,",
        ),
        ("rack: lpx", "mine.yaml:2:1: rack: is no key here."),
    ],
)
def test_a_wrong_model_file_is_answered_with_line_column_key_and_remedy(
    write: Write, line: str, said: str
) -> None:
    assert said in complaint(read_model, write(f"model: llama-tiny\n{line}\n"))


def test_an_unknown_model_in_a_file_has_its_place(write: Write) -> None:
    said = complaint(read_model, write("batch: 1\nmodel: lama-tiny\n"))
    assert said.startswith(
        "mine.yaml:2:1: model: 'lama-tiny' is not in the catalog. Did you mean llama-tiny?"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,\n "b": }', "mine.json:2:7: Expecting value"),
        ('{"a": 1, "a": 2}', "mine.json:1:1: a: is there twice"),
    ],
)
def test_wrong_json_is_answered_with_line_and_column(write: Write, text: str, said: str) -> None:
    assert complaint(read_json, write(text, "mine.json")) == said


def test_a_catalog_rack_written_down_as_json_reads_the_same(tmp_path: Path) -> None:
    numbers = {"name": "quad", "chip": "lp30", "forward_ns": 50}
    level = {"name": "tray", "kind": "all-to-all", "size": 4, "lanes": 8, "hop_ns": 350}
    (tmp_path / "quad.json").write_text(json.dumps(numbers | {"levels": [level]}))
    mine, theirs = read_rack(tmp_path / "quad.json").to_json(), load_rack("quad").to_json()
    assert mine | {"sources": None} == theirs | {"sources": None}


def test_reading_files_does_not_load_jax() -> None:
    code = "import sys, lpu.inputs.files; lpu.inputs.files.read_rack('pair'); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_whose_name_steers_a_screen_is_refused_before_a_program_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "a\x1b[31m\u202eb"
    folder.mkdir()
    with pytest.raises(FileError, match="holds control characters, which no program may"):
        read_model(folder)
