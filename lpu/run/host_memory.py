"""The host's free memory, asked before a program's weights and KV are put into it."""

from pathlib import Path

from lpu.run.image import MachineError

MEMINFO = Path("/proc/meminfo")


def free_bytes() -> int | None:
    """Memory that can be had without swapping, or None where the system does not say."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


WEIGHTS = (
    "its weights and KV take",
    "Run a smaller model or context here, or stream it (--stream); "
    "compile, check and report need no weights.",
)
STREAMED = (
    "the weights of its two largest calls and its KV take",
    "Run a smaller model or context here; compile, check and report need no weights.",
)
LINES = ("the lines that a chunk computes take", "Compile with a smaller --prefill to run here.")


def holds(need_bytes: int) -> bool:
    """Whether so much can be had, as far as the system says."""
    free = free_bytes()
    return free is None or need_bytes <= free


def require(need_bytes: int, words: tuple[str, str] = WEIGHTS) -> None:
    """Raise MachineError if a program takes more than there is; `words`: what of it does, and the remedy."""
    free = free_bytes()
    if free is not None and need_bytes > free:
        raise MachineError(
            f"run: {words[0]} {need_bytes / 1e9:.1f} GB of host memory, "
            f"{free / 1e9:.1f} GB are free. {words[1]}"
        )
