"""The host's free memory, asked before a program's weights and KV are put into it."""

from pathlib import Path

from lpu.image import MachineError

MEMINFO = Path("/proc/meminfo")


def free_bytes() -> int | None:
    """Memory that can be had without swapping, or None where the system does not say."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def holds(need_bytes: int) -> bool:
    """Whether so much can be had, as far as the system says."""
    free = free_bytes()
    return free is None or need_bytes <= free


def require(need_bytes: int, *, streamed: bool = False) -> None:
    """Raise MachineError if weights (streamed: of the two largest calls) and KV take more than there is."""
    free = free_bytes()
    if free is not None and need_bytes > free:
        what = "the weights of its two largest calls and its KV" if streamed else "its weights and KV"
        smaller = "Run a smaller model or context here" + ("" if streamed else ", or stream it (--stream)")
        raise MachineError(
            f"run: {what} take {need_bytes / 1e9:.1f} GB of host memory, "
            f"{free / 1e9:.1f} GB are free. {smaller}; "
            "compile, check and report need no weights."
        )
