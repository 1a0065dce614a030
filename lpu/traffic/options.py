"""What a replay is asked: GPUs, the prefix cache, the queue, targets, seeds, and what it leaves."""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated

from compiler.errors import OptionError
from compiler.options import Option
from lpu.afd.options import GpuKind

CACHES = ("hbm", "infinite", "none")
FORMATS = ("csv", "parquet")
SHARES = ("gpus", "load")


def cache_size(text: str) -> str:
    """`hbm`, `infinite`, `none`, or a number of blocks."""
    if text in CACHES or (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 40):
        return text
    raise ValueError(f"{text!r} is none of {', '.join(CACHES)}, and no number of blocks above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficGpus(GpuKind):
    """The GPUs that prefill for the LPUs; without any the LPUs take prompts token by token."""

    gpus: Annotated[
        int, Option("--gpus", "GPUs that prefill; 0: the LPUs take prompts themselves.", least=0)
    ] = 8
    gpu_tp: Annotated[
        int | None,
        Option("--gpu-tp", "GPUs to a replica.", least=1, shown="the fastest for a prompt of mean length"),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What a request must meet to count for goodput, in milliseconds; None: nothing."""

    ttft_ms: Annotated[float | None, Option("--ttft-ms", "Milliseconds to the first token, for goodput.")] = (
        None
    )
    tpot_ms: Annotated[float | None, Option("--tpot-ms", "Milliseconds per later token, for goodput.")] = None
    e2e_ms: Annotated[float | None, Option("--e2e-ms", "Milliseconds to the last token, for goodput.")] = None

    def __post_init__(self) -> None:
        for name, value in (
            ("--ttft-ms", self.ttft_ms),
            ("--tpot-ms", self.tpot_ms),
            ("--e2e-ms", self.e2e_ms),
        ):
            if value is not None and not 0 < value < inf:
                raise OptionError(
                    "replay", name, f"is {value:g}, must be above 0 and finite", "Give milliseconds."
                )

    @property
    def seconds(self) -> tuple[float | None, float | None, float | None]:
        """TTFT, TPOT and end to end."""
        ttft, tpot, whole = (
            None if one is None else one / 1000 for one in (self.ttft_ms, self.tpot_ms, self.e2e_ms)
        )
        return ttft, tpot, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions(Targets):
    """How requests are replayed, and what is left of it."""

    cache: Annotated[
        str,
        Option(
            "--cache",
            "Prefix blocks that the GPUs keep: hbm (what fits there), infinite, none, or how many.",
            metavar="hbm|infinite|none|N",
            parse=cache_size,
        ),
    ] = "hbm"
    host_blocks: Annotated[
        int, Option("--host-blocks", "Prefix blocks in host memory, below HBM (rate assumed).", least=0)
    ] = 0
    disk_blocks: Annotated[
        int, Option("--disk-blocks", "Prefix blocks on disk, below those (rate assumed).", least=0)
    ] = 0
    slot_cache: Annotated[
        bool, Option("--slot-cache", "A prompt takes the slot whose SRAM still holds most of its blocks.")
    ] = False
    ddr5_blocks: Annotated[
        int, Option("--ddr5-blocks", "Prefix blocks in the DDR5 of the LPUs' trays.", least=0)
    ] = 0
    share: Annotated[
        str,
        Option("--share", "Who takes prompts: gpus, or by load whoever is done first.", choices=SHARES),
    ] = "gpus"
    queue: Annotated[
        int | None,
        Option("--queue", "Requests that may wait; more are refused.", least=0, shown="any number"),
    ] = None
    seeds: Annotated[int, Option("--seeds", "Seeds of drawn requests, from the file's own on.", least=1)] = 1
    jobs: Annotated[int, Option("--jobs", "Processes, one seed at a time in each.", least=1)] = 1
    scheduler: Annotated[
        str | None, Option("--scheduler", "Address of a Dask cluster, instead of --jobs.", metavar="ADDRESS")
    ] = None
    output: Annotated[
        str | Path | None,
        Option("-o --output", "Folder for the report, the log of every request and pictures.", metavar="DIR"),
    ] = None
    log: Annotated[str, Option("--log", "Format of the log in -o.", choices=FORMATS)] = "csv"
    pictures: Annotated[bool, Option("--pictures", "Also draw into -o, by matplotlib.")] = False

    def __post_init__(self) -> None:
        Targets.__post_init__(self)
        if self.output is None and self.pictures:
            raise OptionError("replay", "--pictures", "has no folder to draw into", "Give -o DIR.")
        if self.share not in SHARES:
            raise OptionError(
                "replay", "--share", f"is {self.share!r}", f"Choose one of {', '.join(SHARES)}."
            )
        if self.log not in FORMATS:
            raise OptionError("replay", "--log", f"is {self.log!r}", f"Choose one of {', '.join(FORMATS)}.")
