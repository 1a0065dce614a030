"""Which tests .ci/run takes with shapes and types checked: those marked `shaped`, by their folder."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
# Left out of the first pass, so that each test runs once: where arrays are made and programs run.
SHAPED = ("tests/compiler", "tests/fabric", "tests/models/contract", "tests/lpu/run", "tests/lpu/certify")


def is_shaped(path: Path, slow: bool) -> bool:
    """Whether a test of a file is quick and in one of these folders."""
    return not slow and any(path.is_relative_to(ROOT / folder) for folder in SHAPED)
