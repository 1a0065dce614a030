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


def require(need_bytes: int, *, streamed: bool = False) -> None:
    """Raise MachineError if the weights and KV of a program, or of its largest calls, take more than there is."""
    free = free_bytes()
    if free is not None and need_bytes > free:
        what = "two calls' weights and the KV, streamed," if streamed else "its weights and KV"
        raise MachineError(
            f"run: {what} take {need_bytes / 1e9:.1f} GB of host memory, "
            f"{free / 1e9:.1f} GB are free. Run a smaller model or context here; "
            "compile, check and report need no weights."
        )
