"""Which lines of a traceback are the user's: not this project's, not those of the libraries under it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import flax
import jax
import jaxtyping

_HOME = Path(__file__).resolve().parents[2]
_NOT_THEIRS = (
    *(f"{_HOME}/{name}/" for name in ("lpu", "models", "compiler", "fabric")),
    *(f"{path}/" for library in (flax, jax, jaxtyping) for path in library.__path__),
    "<",  # what runpy and exec call themselves
)


def users(lines: Iterable[tuple[str, int]]) -> Iterator[str]:
    """Those of the (file, line) that the user wrote, as `file:line`."""
    return (f"{file}:{line}" for file, line in lines if not file.startswith(_NOT_THEIRS))
