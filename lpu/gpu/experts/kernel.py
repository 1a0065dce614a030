"""Seconds of the experts of one layer on one GPU, by kernel: seven numbers, bytes and FLOPs of the rank.

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
from lpu.gpu.generation import read_seconds, roof
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

ACTIVATIONS = {"bfloat16": 2.0, "w4a16_mxfp4": 2.0, "nvfp4": 0.5625}  # others: 1
"""Bytes of a number that a product takes beside the weights."""

TILE = 128
"""Rows of a tile at most, and its columns."""

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
    """What launches ask, as columns. weights, products, activations, choices: seconds at full rate.

    activations: of the rank's rows, through every kernel. choices: of all tokens, the other ranks' too, which
    routing, permutation and the weighted sum go over. resident: experts of the rank. width: bytes that one
    SM loads, step after step, to make one column of a tile: of weights, and of rows where tiles have many.
    """

    weights: np.ndarray
    products: np.ndarray
    activations: np.ndarray
    choices: np.ndarray
    resident: np.ndarray
    width: np.ndarray


def asked(
    gpu: GpuSpec, shape: ExpertShape, tokens: int, form: str, alpha: float = 0.0, *, held: int | None = None
) -> tuple[int | float, ...]:
    """One launch, in the order of the columns of ExpertWork. held: see `expert_seconds`."""
    load, wide = shape.load(tokens, alpha), shape.hidden * shape.inter
    rate = gpu.memory_bytes_per_second
    step = BYTES[form] + ACTIVATIONS.get(form, 1.0) * min(load.top, TILE) / TILE
    moved = load.rows * (10 * shape.hidden + 12 * shape.inter)  # 16-bit: each kernel reads and writes
    return (
        read_seconds(gpu, 3 * wide * BYTES[form] * load.distinct, replayed=held is None),
        6 * wide * load.rows / peak(gpu, form),
        moved / rate,
        2
        * shape.hidden
        * (tokens * shape.topk if held is None else max(held * shape.topk, load.rows))
        / rate,
        shape.experts / shape.ranks,
        (shape.hidden + shape.inter) * step,
    )


def columns(rows: Sequence[tuple[int | float, ...]]) -> ExpertWork:
    """Rows of `asked` as columns."""
    weights, products, activations, choices, resident, width = np.array(rows, np.float64).T
    return ExpertWork(
        weights=weights,
        products=products,
        activations=activations,
        choices=choices,
        resident=resident,
        width=width,
    )


def seconds_of(e: Mapping[str, float], x: ExpertWork) -> np.ndarray:
    """Seconds of launches, elementwise, by the numbers of FORM."""
    over = roof(x.weights / e["eb"], x.products / e["ef"])
    fixed = e["launch_ns"] + e["resident_ns"] * x.resident + e["width_ns"] * x.width
    moved = e["moves"] * x.activations + e["passes"] * x.choices
    return over + moved + NANO * fixed


FORM = Form(
    seconds=seconds_of,
    numbers={
        "launch_ns": (1e3, 18e3, 3e5),
        "eb": (0.2, 0.88, 1.0),
        "ef": (0.05, 0.7, 1.0),
        "moves": (0.01, 1.0, 20.0),
        "passes": (1e-3, 1.0, 200.0),
        "resident_ns": (0.1, 15.0, 3e3),
        "width_ns": (1e-3, 0.6, 30.0),
    },
)
"""eb, ef: shares of bandwidth and peak that are reached; moves, passes: times that the rows' activations, and
all tokens' choices, cross memory; launch, resident, width: of all kernels of a layer, of each expert of the
rank (kernels walk their offsets), of each byte of a column."""


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


def expert_seconds(
    gpu: GpuSpec, shape: ExpertShape, tokens: int, form: str, alpha: float = 0.0, *, held: int | None = None
) -> float:
    """Of one layer on the most loaded GPU. tokens: of all ranks together; alpha: of the power law (0: none).

    held: where layers are served, tokens that a rank has before they are sent to experts; None: as the tables
    are measured, all tokens on every rank, and the same weights over and over (`read_seconds`). The kernel is
    the GPU's own for the format, or the nearest measured one. Raises FileError without one.
    """
    numbers = kernel_of(gpu.name, form).numbers
    asks = asked(gpu, shape, tokens, form, alpha, held=held)
    return float(seconds_of(numbers, columns([asks]))[0])


def peak(gpu: GpuSpec, form: str) -> int | float:
    """Dense peak of a format, FLOP/s; of FP4 on a GPU without it that of FP8."""
    if PEAKS.get(form) == "bf16":
        return gpu.flops_bf16
    return gpu.flops_fp4 or gpu.flops_fp8 if PEAKS.get(form) == "fp4" else gpu.flops_fp8
