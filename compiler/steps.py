"""Steps: the passes of a compilation by name, each timed, verified and, where asked for, written down."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

LOG = logging.getLogger("lpu.compile")
SCREEN = 48  # lines of a text at most
P = ParamSpec("P")
T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""(stage, done, total): called as a compilation goes on."""


def quiet(stage: str, done: int, total: int) -> None:
    """No progress reports."""


class Steps:
    """Runs the steps of one compilation, which know nothing of one another.

    dump_dir: a folder; every result is written there as text, `01-capture.txt` and so on.
    """

    def __init__(self, progress: Progress = quiet, dump_dir: Path | None = None) -> None:
        self.progress, self._dump_dir, self._count = progress, dump_dir, 0
        if dump_dir is not None:
            dump_dir.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `run` returns. How long it took goes to the log, and nowhere else."""
        self.progress(name, 0, 1)
        start = time.perf_counter()
        result = run(*args, **kwargs)
        LOG.info("%s: %.3f s", name, time.perf_counter() - start)
        return self.found(name, result)

    def found(self, name: str, result: T) -> T:
        """A step whose result is there already: it is verified and written down as that of any other."""
        for part in result if isinstance(result, tuple) else (result,):
            if (verify := getattr(part, "verify", None)) is not None:
                verify()
        self._count += 1
        if self._dump_dir is not None:
            (self._dump_dir / f"{self._count:02}-{name}.txt").write_text(text_of(result) + "\n")
        return result


def text_of(result: Any) -> str:
    """A result as text, at most a screen; of several, one line for each."""
    if isinstance(result, dict):
        return "\n".join(listed([f"{key}: {value}" for key, value in result.items()]))
    if isinstance(result, tuple):
        return "\n".join([f"{len(result)} in order", *listed([str(part) for part in result])])
    return str(result)


def listed(lines: list[str], most: int = SCREEN - 8) -> list[str]:
    """Lines indented, and how many more there are than fit."""
    more = [f"... and {len(lines) - most} more"] if len(lines) > most else []
    return [f"  {line}" for line in lines[:most] + more]
