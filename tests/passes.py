"""Which tests .ci/run takes with shapes and types checked, and leaves out of its first pass."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
# Where arrays are made and programs run: every op, family and kind of program has a quick test here.
SHAPED = ("tests/compiler", "tests/fabric", "tests/models/contract", "tests/lpu/run", "tests/lpu/certify")


def is_shaped(path: Path, slow: bool) -> bool:
    """Whether a test of a file is marked `shaped`."""
    return not slow and any(path.is_relative_to(ROOT / folder) for folder in SHAPED)
