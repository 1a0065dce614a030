"""Which tests each pass of .ci/run takes: pytest marks them `shaped` and `plain` by their folder."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
# Taken with shapes and types checked, and left out of the first pass: where arrays are made and programs run.
SHAPED = ("tests/compiler", "tests/fabric", "tests/models/contract", "tests/lpu/run", "tests/lpu/certify")
# Left out on the newest Python: rooms of arithmetic on plain numbers, with no JAX in their tests. Their verbs
# run there all the same, in tests/lpu/cli and tests/docs.
ROOMS = "check deskew energy figures gpu nodes page pairs pingpong plan report routing spares study traffic"
PLAIN = tuple(f"tests/lpu/{room}" for room in (*ROOMS.split(), "compare", "validate"))


def is_in(path: Path, folders: tuple[str, ...]) -> bool:
    """Whether a file lies in one of some folders of the repository."""
    return any(path.is_relative_to(ROOT / folder) for folder in folders)


def marks_of(path: Path, slow: bool) -> list[str]:
    """The marks of a test of a file."""
    named = ("shaped", not slow and is_in(path, SHAPED)), ("plain", is_in(path, PLAIN))
    return [name for name, holds in named if holds]
