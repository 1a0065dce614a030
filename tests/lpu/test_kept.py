from pathlib import Path

import pytest

from lpu.kept import FOLDER, LIMITS, keep_compiled

GONE = Path("/nowhere/cpuinfo")


@pytest.fixture(autouse=True)
def before_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "jax")


def test_a_folder_of_the_users_cache_is_named_for_this_kind_of_cpu(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("processor: 0\nflags : fpu avx2\n")
    other.write_text("processor: 0\nflags : fpu avx512f\n")
    found: list[str] = []
    for cpu in (one, other, one, GONE):
        environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        keep_compiled(environ, cpu)
        assert Path(environ[FOLDER]).parent == tmp_path / "cache" / "lpu-emulator"
        assert Path(environ[FOLDER]).is_dir()
        assert environ.items() >= LIMITS.items()
        found.append(environ[FOLDER])
    assert found[0] == found[2]
    assert len(set(found)) == 3


def test_home_serves_where_no_cache_is_named(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    keep_compiled(environ, GONE)
    assert environ[FOLDER].startswith(f"{tmp_path}/.cache/lpu-emulator/xla-")


@pytest.mark.parametrize("named", ["", "/mine"])
def test_what_the_user_names_stays(named: str, tmp_path: Path) -> None:
    environ = {FOLDER: named, "HOME": str(tmp_path)}
    keep_compiled(environ, GONE)
    assert environ == {FOLDER: named, "HOME": str(tmp_path)}
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("a file")
    environ = {"HOME": str(tmp_path)}
    keep_compiled(environ, GONE)
    assert FOLDER not in environ
