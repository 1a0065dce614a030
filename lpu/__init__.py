"""What obeys a program: the checker, the linker, the run, the reports, and the command line."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

HOME = Path(__file__).resolve().parents[1]


class NameTakenError(ImportError):
    """Another project's package has the name of one of ours (docs/decisions/0010-installed-names.md)."""


def _started_as_program() -> bool:
    """Whether this process is `lpu` or `python -m lpu...`: then its module path is ours to order."""
    module = sys.orig_argv[1 + sys.orig_argv.index("-m") :][:1] if "-m" in sys.orig_argv else []
    ours = bool(module) and module[0].split(".")[0] == "lpu"
    return Path(sys.argv[0]).stem == "lpu" or (sys.argv[0] == "-m" and ours)


def _guard() -> None:
    """Refuses to import beside another project's `compiler`, `fabric` or `models`, in one line."""
    if _started_as_program():
        sys.path.insert(0, str(HOME))
    for name in ("compiler", "fabric", "models"):
        spec = find_spec(name)
        found = Path(spec.origin).resolve().parents[1] if spec is not None and spec.origin else None
        if found != HOME:
            sys.excepthook = _one_line
            raise NameTakenError(
                f"lpu: Python finds another project's '{name}' ({found or 'nowhere'}, expected {HOME}). "
                "Start from another folder, or install lpu-emulator in an environment of its own."
            )


def _one_line(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Prints an error that nobody catches: of ours its line, of others what Python always prints."""
    if isinstance(error, NameTakenError):
        print(error, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


_guard()
