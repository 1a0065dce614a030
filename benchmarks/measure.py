"""What every benchmark prints beside its figures: the machine, the versions, the goals."""

import os
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("lpu-emulator", "jax", "jaxlib", "numpy", "flax")


def machine() -> str:
    """Processor, cores that this process may use, memory, versions."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"machine   {_processor()}, {cores()} of {os.cpu_count()} cores, {pages / 1e9:.0f} GB\n"
        f"versions  Python {platform.python_version()}, {packages}"
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_gb() -> float:
    """The most memory that this process has held so far, in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def show(what: str, figure: float, unit: str, goal: float | None = None, digits: int = 2) -> None:
    """One line: what was measured, and the goal beside it if there is one."""
    beside = (
        "" if goal is None else f"   (goal: at most {goal:g} {unit}{'' if figure <= goal else ', missed'})"
    )
    print(f"{what:<38}{figure:>10.{digits}f} {unit}{beside}", flush=True)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
