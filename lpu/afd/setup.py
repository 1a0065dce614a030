"""What `lpu afd` is asked: the GPUs and the rack, how the work is divided, and what follows from both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from compiler.errors import OptionError
from compiler.options import SPLITS, CompileOptions
from compiler.program.program import Program
from compiler.split import Split
from fabric.bridge import BridgeSpec
from fabric.gpu import GpuSpec
from fabric.rack import Rack
from lpu.afd import pd as afd_pd
from lpu.afd.draft import Drafting
from lpu.afd.hops import Dam, HopTimes
from lpu.afd.ratios import LPUS_PER_RACK
from lpu.gpu.operators import GemmFormat
from lpu.gpu.pool import FAMILIES
from lpu.gpu.request import Request
from lpu.gpu.share import GpuShare, fastest, shares
from lpu.gpu.table import GpuTable
from lpu.inputs.document import FileError
from lpu.inputs.model import OpenModel
from models.config import TransformerConfig

MODES = ("pd", "afd", "draft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """GPUs beside a rack of LPUs. gemm: the format of the GPUs' weights and products.

    gpu_tp: GPUs that share a model by tensor parallelism; None: what is fastest for a mode. table: measured
    times to take where it has them.
    """

    rack: Rack
    gpu: GpuSpec
    gpus: int
    bridge: BridgeSpec
    gemm: GemmFormat = "w8a16"
    gpu_tp: int | None = None
    table: GpuTable | None = None

    @property
    def racks(self) -> float:
        """The LPUs in racks of 256; a smaller machine is one rack."""
        return max(1.0, self.rack.chips / LPUS_PER_RACK)

    def shares(self, model: OpenModel) -> tuple[GpuShare, ...]:
        """The ways to deal the GPUs for a model. Raises OptionError."""
        about = config_of(model), self.gpu, self.gpus, self.bridge
        return shares(*about, kv=model.step.kv, gemm=self.gemm, tp=self.gpu_tp, table=self.table)


@dataclass(frozen=True, slots=True, kw_only=True)
class AfdOptions:
    """How the work is divided. by, threshold: of the split (mode afd). policy: of decoded KV (mode pd).

    micro_batches: None is 2 where they divide the batch, else 1. target: picoseconds that a token may take,
    to warn of the dead zone (mode afd).
    """

    mode: str = "pd"
    policy: str = "recompute"
    micro_batches: int | None = None
    dam: Dam = field(default_factory=Dam)
    drafting: Drafting = field(default_factory=Drafting)
    by: str = "role"
    threshold: float | None = None
    compile: CompileOptions = field(default_factory=CompileOptions)
    check: bool = True
    target: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("--mode", self.mode, MODES),
            ("--kv-policy", self.policy, afd_pd.POLICIES),
            ("--split", self.by, SPLITS),
        ):
            if value not in known:
                raise FileError(f"options: {name} is {value!r}, must be one of {', '.join(known)}.")
        if (self.by == "intensity") != (self.threshold is not None):
            raise FileError(
                f"options: --split {self.by} with --threshold {self.threshold}: a threshold goes with "
                "--split intensity, which needs one."
            )


def config_of(model: OpenModel) -> TransformerConfig:
    """The numbers that the GPU model needs; OptionError for a module of the user's own."""
    if model.config is None:
        raise OptionError(
            "afd",
            model.name,
            "is a module of its own, so the GPU model does not know its layers",
            "Use a model of the catalog or a Hugging Face folder.",
        )
    if model.config.family not in FAMILIES:
        raise OptionError(
            "afd",
            model.name,
            f"is of the family {model.config.family}, the GPU model knows the layers of other families only",
            f"Use a model of one of these: {', '.join(FAMILIES)}.",
        )
    return model.config


def best(every: Sequence[GpuShare], request: Request, time: Callable[[GpuShare], int]) -> GpuShare:
    """The fastest way to deal the GPUs that holds all weights and the KV of the whole request."""
    return fastest(every, time, request.batch, request.context)


def alone(every: Sequence[GpuShare], request: Request) -> int:
    """Picoseconds of a step in the last turn on the GPUs alone, dealt as is best for that."""
    length = request.middle(request.turns - 1)
    found = best(every, request, lambda one: one.step(request.batch, length))
    return found.step(request.batch, length)


def hop_times(program: Program, split: Split) -> HopTimes:
    """The times and bytes of a program's hops."""
    hops = program.manifest.hops
    return HopTimes(
        cycles=tuple(hop.cycles for hop in hops),
        clock_hz=program.manifest.clock_hz,
        down_bytes=split.hops[0].down_bytes // split.rows,
        up_bytes=split.hops[0].up_bytes // split.rows,
        wire_down=split.hops[0].wire_down,
        wire_up=split.hops[0].wire_up,
    )


def lpus_of(program: Program) -> int:
    """Chips that have work."""
    return len({chip for group in program.manifest.groups for chip in group})
