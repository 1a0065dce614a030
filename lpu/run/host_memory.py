"""The host's free memory, asked before a program's weights and KV are put into it."""

from pathlib import Path
from typing import NamedTuple

from lpu.run.error import MachineError

MEMINFO = Path("/proc/meminfo")


def free_bytes() -> int | None:
    """Memory that can be had without swapping, or None where the system does not say."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


class MemoryNeed(NamedTuple):
    """What takes host memory, and what to do where there is too little."""

    what: str
    remedy: str


WEIGHTS = MemoryNeed(
    "its weights and KV take",
    "Run a smaller model or context here, or stream it (--stream); "
    "compile, check and report need no weights.",
)
STREAMED = MemoryNeed(
    "the weights of its two largest calls and its KV take",
    "Run a smaller model or context here; compile, check and report need no weights.",
)
LINES = MemoryNeed("the lines that a chunk computes take", "Compile with a smaller --prefill to run here.")


def holds(need_bytes: int) -> bool:
    """Whether `need_bytes` are free, as far as the system says."""
    free = free_bytes()
    return free is None or need_bytes <= free


def require(need_bytes: int, need: MemoryNeed = WEIGHTS) -> None:
    """Raise MachineError if a program takes more than there is."""
    free = free_bytes()
    if free is not None and need_bytes > free:
        raise MachineError(
            f"run: {need.what} {need_bytes / 1e9:.1f} GB of host memory, "
            f"{free / 1e9:.1f} GB are free. {need.remedy}"
        )
