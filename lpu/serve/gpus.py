"""The GPUs beside a served model, as far as its times go."""

from dataclasses import dataclass
from typing import Annotated

from compiler.options import Option
from lpu.afd.options import GpuKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeGpus(GpuKind):
    """GPUs that prefill in the modelled times; tokens are those of the program, whoever takes the prompt."""

    gpus: Annotated[
        int, Option("--gpus", "GPUs that prefill; 0: the LPUs take prompts themselves.", least=0)
    ] = 0
    gpu_tp: Annotated[
        int | None, Option("--gpu-tp", "GPUs to a replica.", least=1, shown="the fastest for half a context")
    ] = None
