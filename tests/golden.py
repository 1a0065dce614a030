"""Goldens: texts that the compiler's steps gave before, one file each in tests/goldens/."""

from difflib import unified_diff
from pathlib import Path

FOLDER = Path(__file__).parent / "goldens"
UPDATE = "--update-golden"


def path_of(name: str) -> Path:
    """Where a golden is kept."""
    return FOLDER / f"{name}.txt"


def difference(name: str, text: str) -> str:
    """What differs from the golden as a unified diff, empty if nothing does."""
    path = path_of(name)
    before = path.read_text() if path.exists() else ""
    lines = unified_diff(
        before.splitlines(), text.splitlines(), f"goldens/{name}.txt", "now", n=1, lineterm=""
    )
    return "\n".join(lines)


def rewrite(name: str, text: str) -> None:
    """Take a text for the golden from now on."""
    path_of(name).write_text(text + "\n")
