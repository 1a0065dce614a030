import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lpu.inputs.document import FileError
from lpu.inputs.files import read_json
from lpu.outputs import exchange, workspace
from lpu.outputs.ours import LIST
from lpu.outputs.write import atomic_folder, check_folder, write_file, write_json

MINE = "which lpu did not write"


def write(out: Path, text: str = "1") -> None:
    with atomic_folder(out) as part:
        (part / "manifest.json").write_text(text)
        (part / "prefill").mkdir()
        (part / "prefill" / "columns.npz").write_text("2")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(out: Path | str, said: str) -> None:
    with pytest.raises(FileError, match=said) as caught, atomic_folder(out):
        raise AssertionError("the block must not run")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with atomic_folder(out) as part:
        (part / "manifest.json").write_text("1")
        assert not out.exists()
    for error, match in ((ValueError("x"), "x"), (OSError(errno.ENOSPC, "No space left"), "No space left")):
        with pytest.raises((ValueError, FileError), match=match), atomic_folder(out):
            raise error
    assert (out / "manifest.json").read_text() == "1"
    write(out, "3")
    assert names(out.parent) == ["out"]
    assert names(out) == [LIST, "manifest.json", "prefill"]
    assert (out / "manifest.json").read_text() == "3"


def test_equal_folders_have_equal_lists(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert (tmp_path / "a" / LIST).read_bytes() == (tmp_path / "b" / LIST).read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda out: (out / "notes.txt").write_text("mine"), f"holds notes.txt, {MINE}"),
        (lambda out: (out / "a").mkdir(), f"holds a/, {MINE}"),
        (lambda out: (out / "prefill" / "a").mkdir(), f"holds prefill/a/, {MINE}"),
        (lambda out: (out / "prefill" / "z.txt").write_text(""), f"holds prefill/z.txt, {MINE}"),
        (lambda out: (out / "link").symlink_to("manifest.json"), f"holds link, {MINE}"),
        (lambda out: (out / "link").symlink_to("prefill"), f"holds link, {MINE}"),
        (lambda out: (out / "manifest.json").write_text("mine"), "holds manifest.json, which was changed"),
        (lambda out: (out / LIST).unlink(), f"holds manifest.json, {MINE}"),
        (lambda out: (out / LIST).write_text("{}"), f"holds {LIST}, {MINE}"),
        (lambda out: (out / LIST).write_bytes((out / LIST).read_bytes().replace(b"prefill", b"notes")), MINE),
    ],
)
def test_a_folder_that_holds_anything_of_the_users_is_never_replaced(
    tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    out = tmp_path / "out"
    write(out)
    change(out)
    before = {path: path.is_file() and path.read_bytes() for path in out.rglob("*")}
    refused(out, said)
    assert {path: path.is_file() and path.read_bytes() for path in out.rglob("*")} == before
    assert names(tmp_path) == ["out"]


def test_a_web_app_with_a_manifest_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text("{}")
    refused(tmp_path / "app", f"app: holds manifest.json, {MINE}")
    refused(tmp_path / "app" / "manifest.json", "is a file, not a folder")
    (tmp_path / "link").symlink_to("app")
    refused(tmp_path / "link", f"app: holds manifest.json, {MINE}")


def test_a_file_that_is_gone_is_no_reason_to_keep_the_rest(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    write(tmp_path / "out")
    assert names(tmp_path / "out") == [LIST, "manifest.json", "prefill"]


def test_a_link_to_a_folder_stays_and_the_folder_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "5")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "manifest.json").read_text() == "5"


def test_dots_roots_and_nothing_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(".", r"you are in this folder.*Choose a folder in it: -o ./NAME")
    (tmp_path / "cat.jpg").write_text("meow")
    refused(".", f"holds cat.jpg, {MINE}")
    refused("/", MINE)
    refused("", "-o names nothing")
    refused("x" * 300, "File name too long")
    refused("a\0b", "cannot be written")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    refused("..", f"holds cat.jpg, {MINE}")
    write(Path("../other/../here2"))
    assert names(tmp_path) == ["cat.jpg", "here", "here2"]


def write_while_notes_appear(out: Path) -> None:
    with atomic_folder(out) as part:
        (part / "manifest.json").write_text("new")
        out.mkdir(exist_ok=True)
        (out / "notes.txt").write_text("mine")


def test_what_appears_meanwhile_is_found_at_the_swap(tmp_path: Path) -> None:
    for old in (True, False):
        out = tmp_path / f"out{old}"
        if old:
            write(out)
        with pytest.raises(FileError, match=f"{out}: holds notes.txt, {MINE}"):
            write_while_notes_appear(out)
        assert names(out) == ([LIST, "manifest.json", "notes.txt", "prefill"] if old else ["notes.txt"])
    assert names(tmp_path) == ["outFalse", "outTrue"]


def test_of_two_writers_one_wins_and_the_other_says_so(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_folder(out) as part:
        (part / "a").write_text("")
        refused(out, rf"out: another lpu \(process {os.getpid()}\) is writing it. Wait for it")
        with pytest.raises(FileError, match="another lpu"):
            write_json(out, {})
    assert names(out) == ["a", LIST]
    assert names(tmp_path) == ["out"]


def left(tmp_path: Path, *entries: str) -> Path:
    """A workspace of `out` as a killed process leaves it; each entry holds what it is called."""
    home = tmp_path / ".out.lpu"
    home.mkdir()
    (home / "lock").write_text("lpu process 1\n")
    for entry in entries:
        (home / entry).mkdir()
        (home / entry / entry).write_text("")
    return home


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    left(tmp_path, "new")
    write(tmp_path / "another")
    assert names(tmp_path) == ["another"]
    write(tmp_path / "out")
    (tmp_path / "out").rename(left(tmp_path) / "ready")
    write(tmp_path / "out")
    assert names(tmp_path) == ["another", "out"]


def test_a_killed_swap_is_undone_if_it_took_what_is_not_ours(tmp_path: Path) -> None:
    write(tmp_path / "out", "new")
    left(tmp_path, "ready")
    write(tmp_path / "other")
    assert names(tmp_path / "out") == ["ready"]
    assert names(tmp_path) == ["other", "out"]


def test_a_killed_swap_in_two_steps_is_undone(tmp_path: Path) -> None:
    left(tmp_path, "was")
    write(tmp_path / "other")
    assert names(tmp_path / "out") == ["was"]
    left(tmp_path, "was", "new")
    refused(tmp_path / "out", f"holds was, {MINE}")
    assert names(tmp_path / "out") == ["was"]


def test_a_workspace_of_others_is_never_touched(tmp_path: Path) -> None:
    home = left(tmp_path, "new", "photos")
    refused(tmp_path / "out", "is not a folder of lpu's, and its name is needed")
    write(tmp_path / "other")
    assert names(home) == ["lock", "new", "photos"]
    (tmp_path / ".one.lpu").mkdir()
    (tmp_path / ".one.lpu" / "new").write_text("mine")
    refused(tmp_path / "one", "is not a folder of lpu's")


def test_a_system_without_exchange_swaps_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_renameat2", lambda *_: False)
    write(tmp_path / "out", "1")
    write(tmp_path / "out", "2")
    assert (tmp_path / "out" / "manifest.json").read_text() == "2"
    test_what_appears_meanwhile_is_found_at_the_swap(tmp_path / "more")
    assert names(tmp_path) == ["more", "out"]


def test_json_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.json"
    write_json(path, {"a": [1, 2.5], "b": None})
    write_json(path, {"a": [1, 2.5], "b": "x"})
    body = read_json(path)
    assert body.pop("sha256")
    assert body == {"a": [1, 2.5], "b": "x"}
    assert names(path.parent) == ["out.json"]


def test_a_file_that_lpu_did_not_write_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "thesis.tex"
    for text in ("all my work", json.dumps({"schema": "lpu-trace/1"}), "{}"):
        path.write_text(text)
        with pytest.raises(FileError, match=r"is a file that lpu did not write\. Move it away"):
            write_json(path, {})
        assert path.read_text() == text
    path.write_text("")
    write_json(path, {"a": 1})
    path.write_text(path.read_text().replace("1", "2"))
    with pytest.raises(FileError, match="did not write"):
        write_json(path, {"a": 1})
    write_file(tmp_path / "t.csv", b"model,rack,strategy,seed,tp\n")
    write_file(tmp_path / "t.csv", b"model,rack,strategy,seed,tp\n1")
    with pytest.raises(FileError, match=r"cannot be written. Choose another --csv"):
        write_file(tmp_path, b"", "--csv")
    with pytest.raises(FileError, match="/dev/null: is neither a file nor a folder"):
        write_json("/dev/null", {})
    assert names(tmp_path) == ["t.csv", "thesis.tex"]


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file/x/out\.json: cannot be written"):
        write_json(tmp_path / "file" / "x" / "out.json", {})
    refused(tmp_path / "file" / "x", "cannot be written")
    with pytest.raises(TypeError):
        write_json(tmp_path / "out.json", {"a": object()})
    with pytest.raises(ValueError, match="x"), atomic_folder(tmp_path / "deep" / "er"):
        raise ValueError("x")
    assert names(tmp_path) == ["file"]
    assert check_folder(tmp_path / "fine") == tmp_path / "fine"


def test_an_entry_of_a_workspace_may_be_a_file(tmp_path: Path) -> None:
    home = tmp_path / ".out.lpu"
    home.mkdir()
    (home / "lock").write_text("lpu ")
    (home / "new").write_text("half")
    workspace.sweep(tmp_path)
    assert names(tmp_path) == []
