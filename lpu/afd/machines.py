"""The GPUs and the rack that a question is about, and how the GPUs are dealt to replicas for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compiler.errors import OptionError
from compiler.program.program import Program
from fabric.bridge import BridgeSpec
from fabric.catalog import pod_spec
from fabric.gpu import GpuSpec
from fabric.rack import Rack
from lpu.afd.options import GpuKind, Gpus
from lpu.gpu.families.registry import layers_of
from lpu.gpu.operators import GemmFormat
from lpu.gpu.request import Request
from lpu.gpu.served.engine import Engine
from lpu.gpu.served.engine import engine as engine_of
from lpu.gpu.share import GpuShare, fastest, shares
from lpu.gpu.table import GpuTable, read_table
from lpu.inputs.files import read_bridge, read_gpu, read_rack
from lpu.inputs.model import OpenModel
from models.config import TransformerConfig

LPUS_PER_RACK = 256
DEFAULT_RACK = "lpx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """GPUs beside a rack of LPUs. gemm: the format of the GPUs' weights and products.

    gpu_tp: GPUs that share a model by tensor parallelism; None: what is fastest for a mode. table: measured
    times to take where it has them. engine: that serves the GPUs' decode steps.
    """

    rack: Rack
    gpu: GpuSpec
    gpus: int
    bridge: BridgeSpec
    gemm: GemmFormat = "w8a16"
    gpu_tp: int | None = None
    table: GpuTable | None = None
    engine: Engine | None = None

    @property
    def racks(self) -> float:
        """The LPUs in racks of 256; a smaller machine is one rack."""
        return max(1.0, self.rack.chips / LPUS_PER_RACK)

    def shares(self, model: OpenModel) -> tuple[GpuShare, ...]:
        """The ways to deal the GPUs for a model. Raises OptionError."""
        about = config_of(model), self.gpu, self.gpus, self.bridge
        kv, gemm, tp = model.step.kv, self.gemm, self.gpu_tp
        return shares(*about, kv=kv, gemm=gemm, tp=tp, table=self.table, engine=self.engine)


def of_pod(gpus: Gpus, rack: str | Path | Rack) -> tuple[Gpus, str | Path | Rack]:
    """What a pod stands for, if one is named. Raises OptionError where something beside it says otherwise."""
    if gpus.pod is None:
        return gpus, rack
    pod, usual = pod_spec(gpus.pod), Gpus()
    for option, given, default, held in (
        ("--gpu", gpus.gpu, usual.gpu, pod.gpu),
        ("--gpus", gpus.gpus, usual.gpus, pod.gpus),
        ("--bridge", gpus.bridge, usual.bridge, pod.bridge),
        ("--rack", rack, DEFAULT_RACK, pod.rack),
    ):
        if given not in (default, held):
            about = f"is beside --pod {pod.name}, which says {held}"
            raise OptionError("options", f"{option} {given}", about, "Leave one of the two out.")
    return replace(gpus, pod=None, gpu=pod.gpu, gpus=pod.gpus, bridge=pod.bridge), pod.rack


def machines(
    rack: str | Path | Rack,
    kind: GpuKind,
    gpus: int,
    gpu_tp: int | None = None,
    table: str | Path | None = None,
    engine: str | None = None,
) -> Machines:
    """The machines that names or files stand for. Raises FileError, or the error of an unknown name."""
    bridge = kind.bridge
    return Machines(
        rack=rack if isinstance(rack, Rack) else read_rack(rack),
        gpu=kind.gpu if isinstance(kind.gpu, GpuSpec) else read_gpu(kind.gpu),
        gpus=gpus,
        bridge=bridge if isinstance(bridge, BridgeSpec) else read_bridge(bridge),
        gemm=kind.gemm,
        gpu_tp=gpu_tp,
        table=None if table is None else read_table(Path(table)),
        engine=None if engine is None else engine_of(engine),
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
    layers_of(model.config)  # refuses a family that the GPU model does not know
    return model.config


def best(every: Sequence[GpuShare], request: Request, time: Callable[[GpuShare], int]) -> GpuShare:
    """The fastest way to deal the GPUs that holds all weights and the KV of the whole request."""
    return fastest(every, time, request.batch, request.context)


def alone(every: Sequence[GpuShare], request: Request) -> int:
    """Picoseconds of a step in the last turn on the GPUs alone, dealt as is best for that."""
    length = request.middle(request.turns - 1)
    found = best(every, request, lambda one: one.step(request.batch, length))
    return found.step(request.batch, length)


def lpus_of(program: Program) -> int:
    """Chips that have work."""
    return len({chip for group in program.manifest.groups for chip in group})
