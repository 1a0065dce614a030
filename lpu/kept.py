"""Where XLA's compiled functions are kept from one `lpu` to the next: a second run compiles nothing again."""

import hashlib
import platform
import sys
from collections.abc import MutableMapping
from pathlib import Path

FOLDER = "JAX_COMPILATION_CACHE_DIR"
LIMITS = {
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(1 << 30),  # bytes; the least used go first
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def keep_compiled(environ: MutableMapping[str, str], cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Name a folder for JAX's compilation cache before jax is imported, unless the user named one or none.

    `$XDG_CACHE_HOME/lpu-emulator/xla-...`, one for each kind of CPU, whose instructions compiled code uses.
    Nothing is kept where that folder cannot be written. JAX_COMPILATION_CACHE_DIR= (empty) keeps nothing.
    """
    if FOLDER in environ or "jax" in sys.modules:
        return
    home = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".cache")
    folder = Path(home) / "lpu-emulator" / f"xla-{_cpu(cpuinfo)}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / ".writable").touch()
    except OSError:
        return
    environ[FOLDER] = str(folder)
    for name, value in LIMITS.items():
        environ.setdefault(name, value)


def _cpu(cpuinfo: Path) -> str:
    """A short name for the instructions that this CPU has."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:12]
