"""Seconds of the experts of one layer on one GPU, by kernel: fixed costs, then bytes and FLOPs of the rank.

Source: form chosen on, numbers fitted to NVIDIA's tables, facts gpu_moe_mla.md 7; docs/gpu.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from fabric.gpu import GpuSpec
from lpu.gpu.experts.loads import RankLoad, rank_load
from lpu.gpu.fit import Form
from lpu.inputs.document import FileError, parse, read_document

KERNELS = Path(__file__).parent / "kernels.yaml"
NANO = 1e-9
BYTES = {
    "bfloat16": 2.0,
    "fp8": 1.0,
    "fp8_block": 1.0,
    "nvfp4": 0.5625,
    "w4a16_mxfp4": 0.53125,
    "w4a8_mxfp4_mxfp8": 0.53125,
}
"""Bytes of a weight, scales of 4-bit formats among them."""

FORMATS = {
    "bf16": "bfloat16",
    "w8a16": "fp8",
    "fp8": "fp8",
    "fp8_block": "fp8_block",
    "nvfp4": "nvfp4",
}
"""Of the weights of experts, by the format of a pool's products."""

PEAKS = {"bfloat16": "bf16", "w4a16_mxfp4": "bf16", "nvfp4": "fp4"}  # others: fp8


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertShape:
    """The experts of one layer, over `ranks` expert-parallel GPUs; `inter` columns of each on one of them."""

    hidden: int
    inter: int
    experts: int
    topk: int
    ranks: int = 1

    def load(self, tokens: int, alpha: float = 0.0) -> RankLoad:
        """What the most loaded rank gets of `tokens` tokens of all ranks together."""
        return rank_load(tokens, self.experts, self.topk, self.ranks, alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertWork:
    """What launches ask, as columns. weights, products, activations: seconds at full bandwidth and peak.

    distinct: experts with a row. resident: experts of the rank. width: hidden and inter, the loop's length.
    """

    weights: np.ndarray
    products: np.ndarray
    activations: np.ndarray
    distinct: np.ndarray
    resident: np.ndarray
    width: np.ndarray


def asked(
    gpu: GpuSpec, shape: ExpertShape, tokens: int, form: str, alpha: float = 0.0
) -> tuple[int | float, ...]:
    """One launch, in the order of the columns of ExpertWork."""
    load, wide = shape.load(tokens, alpha), shape.hidden * shape.inter
    rate = gpu.memory_bytes_per_second
    moved = 2 * tokens * shape.hidden + load.rows * (4 * shape.hidden + 6 * shape.inter)
    return (
        3 * wide * BYTES[form] * load.distinct / rate,
        6 * wide * load.rows / peak(gpu, form),
        moved / rate,
        load.distinct,
        shape.experts / shape.ranks,
        shape.hidden + shape.inter,
    )


def columns(rows: Sequence[tuple[int | float, ...]]) -> ExpertWork:
    """Rows of `asked` as columns."""
    weights, products, activations, distinct, resident, width = np.array(rows, np.float64).T
    return ExpertWork(
        weights=weights,
        products=products,
        activations=activations,
        distinct=distinct,
        resident=resident,
        width=width,
    )


def seconds_of(e: Mapping[str, float], x: ExpertWork) -> np.ndarray:
    """Seconds of launches, elementwise, by the numbers of FORM."""
    n = 1 + e["sharpness"]
    roof = ((x.weights / e["eb"]) ** n + (x.products / e["ef"]) ** n) ** (1 / n)
    fixed = e["launch_ns"] + e["expert_ns"] * x.distinct + e["resident_ns"] * x.resident
    return roof + e["moves"] * x.activations + NANO * (fixed + e["width_ns"] * x.width)


FORM = Form(
    seconds=seconds_of,
    numbers={
        "launch_ns": (1e3, 15e3, 3e5),
        "eb": (0.2, 0.8, 1.2),
        "ef": (0.05, 0.5, 2.5),
        "expert_ns": (1.0, 10.0, 5e3),
        "moves": (1e-3, 1.0, 20.0),
        "sharpness": (0.5, 3.0, 20.0),
        "resident_ns": (0.1, 10.0, 3e3),
        "width_ns": (1e-4, 0.5, 30.0),
    },
)
"""eb, ef: shares of bandwidth and peak; sharpness: of the corner between them; expert, resident, width: of
each expert with a row, each expert of the rank, each column; moves: times that activations cross memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertKernel:
    """A fitted kernel. format: of the weights, a key of BYTES. rows: that it was fitted to."""

    gpu: str
    kernel: str
    format: str
    rows: int
    numbers: dict[str, float]

    def __post_init__(self) -> None:
        if list(self.numbers) != list(FORM.numbers):
            raise ValueError(f"numbers: {', '.join(self.numbers)} are not {', '.join(FORM.numbers)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    kernels: list[ExpertKernel]


@cache
def kernels() -> tuple[ExpertKernel, ...]:
    """Those of the package."""
    return tuple(parse(_File, read_document(KERNELS)).kernels)


def kernel_of(gpu: str, form: str) -> ExpertKernel:
    """The kernel of a GPU for a format: its own, else of H200 (Hopper) or B200. Raises FileError."""
    for name in (gpu, "h200" if gpu.startswith("h") else "b200"):
        found = [one for one in kernels() if (one.gpu, one.format) == (name, form)]
        if found:
            return max(found, key=lambda one: one.rows)
    raise FileError(f"gpu: experts in {form} have no measured kernel on {gpu}. Formats: {', '.join(BYTES)}.")


def expert_seconds(gpu: GpuSpec, shape: ExpertShape, tokens: int, form: str, alpha: float = 0.0) -> float:
    """Of one layer on the most loaded GPU. tokens: of all ranks together; alpha: of the power law (0: none).

    The kernel is the GPU's own for the format, or the nearest measured one. Raises FileError without one.
    """
    numbers = kernel_of(gpu.name, form).numbers
    return float(seconds_of(numbers, columns([asked(gpu, shape, tokens, form, alpha)]))[0])


def peak(gpu: GpuSpec, form: str) -> int | float:
    """Dense peak of a format, FLOP/s; of FP4 on a GPU without it that of FP8."""
    if PEAKS.get(form) == "bf16":
        return gpu.flops_bf16
    return gpu.flops_fp4 or gpu.flops_fp8 if PEAKS.get(form) == "fp4" else gpu.flops_fp8
