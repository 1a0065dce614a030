"""What stands beside a rack, and the points of a sweep of ratios, as a user chooses them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated, get_args

from compiler.errors import OptionError
from compiler.options import Check, Option
from fabric.bridge import BridgeSpec
from fabric.gpu import GpuSpec
from lpu.gpu.operators import GemmFormat

FfnDown = Annotated[str | None, Option("--ffn-down", "FFN inputs cross as fp16, or fp8.", shown="fp16")]
Counts = tuple[int, ...]
LpuLayers = Annotated[
    int | None,
    Option("--lpu-layers", "Layers, the last ones, with FFNs on LPUs.", least=1, shown="all"),
]
FfnUp = Annotated[str | None, Option("--ffn-up", "FFN results cross as f32, or fp16.", shown="f32")]


def _gpus() -> Sequence[str]:
    from fabric.catalog import gpu_names

    return gpu_names()


def _bridges() -> Sequence[str]:
    from fabric.catalog import bridge_names

    return bridge_names()


def _pods() -> Sequence[str]:
    from fabric.catalog import pod_names

    return pod_names()


def counts(text: str) -> tuple[int, ...]:
    """Positive counts with commas between them."""
    words = text.split(",")
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise ValueError(f"{text!r} is no list of positive counts")
    return tuple(int(word) for word in words)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuKind:
    """The kind of the GPUs, what joins them to the rack, and the format of their weights and products."""

    gpu: Annotated[
        str | GpuSpec,
        Option("--gpu", "A GPU of the catalog (lpu gpus), or a GPU file.", metavar="GPU", names=_gpus),
    ] = "h200"
    bridge: Annotated[
        str | Path | BridgeSpec,
        Option(
            "--bridge",
            "Between GPUs and LPUs: spectrum-x, fpga-400g, or a bridge file.",
            metavar="BRIDGE",
            names=_bridges,
        ),
    ] = "spectrum-x"
    gemm: Annotated[GemmFormat, Option("--gemm", "The GPUs' weights and products.")] = "w8a16"

    def __post_init__(self) -> None:
        if self.gemm not in get_args(GemmFormat):
            known = ", ".join(get_args(GemmFormat))
            raise OptionError("options", "--gemm", f"is {self.gemm!r}", f"Choose one of {known}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus(GpuKind):
    """A number of GPUs beside a rack. gpu_tp: of them, those that share a model by tensor parallelism.

    pod: GPUs, racks and the bridge between them by one name, in place of the others.
    """

    gpus: Annotated[int, Option("--gpus", "GPUs beside the rack.", least=1)] = 8
    pod: Annotated[
        str | None,
        Option("--pod", "GPUs, racks and bridge by one name (lpu pods).", metavar="POD", names=_pods),
    ] = None
    gpu_tp: Annotated[int | None, Option("--gpu-tp", "GPUs to a replica.", least=1, shown="the fastest")] = (
        None
    )
    engine: Annotated[
        str | None,
        Option(
            "--engine",
            "What serves the GPUs' decode steps: vllm, trtllm or sglang, by numbers fitted to served steps.",
            metavar="NAME",
            shown="operators one after another",
            names=lambda: ("vllm", "trtllm", "sglang"),
        ),
    ] = None
    gpu_table: Annotated[
        str | Path | None,
        Option("--gpu-table", "Measured operators (CSV), taken where it has them.", metavar="FILE"),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is wanted beside times: bits, programs, a trace. check: hold every program to the rules."""

    run: Annotated[bool, Option("--run", "Run the math too, and compare it with the model.")] = False
    output: Annotated[
        str | Path | None, Option("-o --output", "Folder to write the LPUs' program into.", metavar="DIR")
    ] = None
    trace: Annotated[str | Path | None, Option("--trace", "Write a Perfetto trace here.", metavar="FILE")] = (
        None
    )
    html: Annotated[
        str | Path | None,
        Option("--html", "Also write a page: one HTML file (page extra).", metavar="FILE"),
    ] = None
    check: Check = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioPoints:
    """Every number of GPUs with every batch and number of micro-batches, at one length of the KV."""

    gpus: Annotated[Counts, Option("--gpus", "Numbers of GPUs.", "N,N", parse=counts)] = (8, 16, 32, 64)
    batches: Annotated[Counts, Option("--batches", "Batches.", "N,N", parse=counts)] = (12, 24, 48, 96)
    micro_batches: Annotated[Counts, Option("--micro-batches", "Micro-batches.", "N,N", parse=counts)] = (
        1,
        2,
        3,
        4,
    )
    kv_tokens: Annotated[int, Option("--kv-tokens", "Tokens of each sequence's KV.")] = 8192
    target_ms: Annotated[
        float | None, Option("--target-ms", "Milliseconds per token that a point may take.")
    ] = None
    ffn_down: FfnDown = None
    ffn_up: FfnUp = None
    lpu_layers: LpuLayers = None

    def __post_init__(self) -> None:
        if self.target_ms is not None and not 0 < self.target_ms < inf:
            reason = f"is {self.target_ms:g}, must be above 0 and finite"
            raise OptionError("ratios", "--target-ms", reason, "Give milliseconds.")
        if not self.rows:
            reason = f"{list(self.micro_batches)} parts divide no batch of {list(self.batches)}"
            raise OptionError("ratios", "--micro-batches", reason, "Give a number that divides a batch.")

    @property
    def rows(self) -> list[int]:
        """Every number of rows of a micro-batch that occurs, ascending."""
        return sorted({batch // m for batch in self.batches for m in self.micro_batches if batch % m == 0})
