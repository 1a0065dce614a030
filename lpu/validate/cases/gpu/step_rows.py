"""Measured steps of served models, as the formula asks for them.

Part of NVIDIA aiconfigurator's samples (Apache-2.0, commit 095f58a51c4ca8e61b66ec108d86f223f8d559ce).
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fabric.catalog import gpu_spec
from fabric.gpu import GpuSpec
from lpu.gpu.served.shape import StepShape, shapes
from lpu.gpu.served.step import Serving
from lpu.inputs.document import read_text

POINTS = Path(__file__).with_name("step_points.csv")
MODELS = {
    "Qwen/Qwen3-32B": "qwen3-32b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
    "openai/gpt-oss-120b": "gpt-oss-120b",
}
QUEUED = 0.5  # of a request's time before its first token: then fewer run at once than the row says


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One served configuration. seconds: of a later token; first: to the first one.

    left_out: why its steps are in no mean and no fit, or empty.
    """

    id: str
    engine: str
    spec: GpuSpec
    shape: StepShape
    how: Serving
    seconds: float
    first: float
    left_out: str

    @property
    def group(self) -> str:
        """Rows of one model on one kind of GPU in one format."""
        return f"{self.shape.name} {self.how.gemm} on {self.spec.name}"


@cache
def step_rows() -> tuple[StepRow, ...]:
    """All rows, in their order."""
    return tuple(_row(cells) for cells in csv.DictReader(read_text(POINTS).splitlines()))


def _row(cells: dict[str, str]) -> StepRow:
    name = MODELS[cells["model_path"]]
    spec = gpu_spec(cells["system"].removesuffix("_sxm"))
    oss = name == "gpt-oss-120b"  # mxfp4 experts beside 16-bit products, whatever the GPU
    gpus, ranks = int(cells["tp_size"]), max(int(cells["moe_ep_size"] or 1), 1)
    how = Serving(
        gpus=gpus,
        batch=int(cells["batch_size"]),
        prompt=int(cells["isl"]),
        outputs=int(cells["osl"]),
        gemm="bf16" if oss or not cells["gemm_quant_mode"] else cells["gemm_quant_mode"],  # pyright: ignore[reportArgumentType]
        experts="w4a16_mxfp4" if oss else None,
        expert_ranks=ranks if shapes()[name].experts else 1,
    )
    token, first = 1e-3 * float(cells["silicon_tpot_ms"]), 1e-3 * float(cells["silicon_ttft_ms"])
    return StepRow(
        id=cells["id"],
        engine=cells["backend"],
        spec=spec,
        shape=shapes()[name],
        how=how,
        seconds=token,
        first=first,
        left_out=_why(spec.name, name, how, first / (first + how.outputs * token)),
    )


def _why(gpu: str, model: str, how: Serving, waiting: float) -> str:
    if waiting > QUEUED:
        return "queued: most of a request's time is before its first token"
    if (gpu, model, how.gemm) == ("gb200", "qwen3-32b", "bf16"):
        return "erratic: times fall and rise with the batch"
    return ""
