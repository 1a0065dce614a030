"""What obeys a program: the checker, the linker, the run, the reports, and the command line."""

from importlib.util import find_spec
from pathlib import Path

_HOME = Path(__file__).resolve().parents[1]
for _name in ("compiler", "fabric", "models"):
    _spec = find_spec(_name)
    _found = None if _spec is None or not _spec.origin else Path(_spec.origin).resolve().parents[1]
    if _found != _HOME:
        raise ImportError(
            f"lpu: Python finds another project's '{_name}' ({_found or 'nowhere'}, expected {_HOME}). "
            "Install lpu-emulator in an environment of its own and start it from another folder."
        )
