"""Seconds of MLA decode attention on one GPU, refined: heads and context have a cost besides bytes and FLOPs.

Source: form chosen on and numbers fitted to NVIDIA's tables (facts gpu_moe_mla.md 7); docs/gpu.md. The plain
formula of the first fit, for the H200 alone, is `lpu.gpu.operators.decode_mla`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from fabric.gpu import GpuSpec
from lpu.gpu.fit import Form
from lpu.gpu.generation import generation, read_seconds, roof
from lpu.inputs.document import FileError, parse, read_document

KERNELS = Path(__file__).parent / "latent.yaml"
LATENT, ROPE = 512, 64
MICRO = 1e-6
SHORT = 1024  # keys up to which a context costs nothing besides


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentWork:
    """Decodes as columns. size, products: seconds at full bandwidth, and at peak of the padded heads."""

    size: np.ndarray
    products: np.ndarray
    heads: np.ndarray
    keys: np.ndarray
    kv_len: np.ndarray
    waves: np.ndarray


def asked(
    gpu: GpuSpec,
    batch: int,
    kv_len: int,
    heads: int,
    kv_bytes: int,
    latent: int = LATENT,
    rope: int = ROPE,
    *,
    replayed: bool = True,
) -> tuple[int | float, ...]:
    """One decode, in the order of the columns of LatentWork.

    Heads are padded to the rows of a matrix instruction. replayed: see `read_seconds`.
    """
    keys, kind = batch * kv_len, generation(gpu)
    rows = kind.rows * -(-heads // kind.rows)
    peak = gpu.flops_fp8 if kv_bytes == 1 and kind.fp8_columns else gpu.flops_bf16
    return (
        read_seconds(gpu, keys * (latent + rope) * kv_bytes, replayed),
        2 * keys * (2 * latent + rope) * rows / peak,
        heads,
        keys,
        kv_len,
        batch / gpu.sms,
    )


def columns(rows: Sequence[tuple[int | float, ...]]) -> LatentWork:
    """Rows of `asked` as columns."""
    size, products, heads, keys, kv_len, waves = np.array(rows, np.float64).T
    return LatentWork(size=size, products=products, heads=heads, keys=keys, kv_len=kv_len, waves=waves)


def seconds_of(e: Mapping[str, float], x: LatentWork) -> np.ndarray:
    """Seconds of decodes, elementwise, by the numbers of FORM."""
    over = roof(x.size / e["eb"], x.products / e["ef"])
    length = e["length_us"] * np.log2(np.maximum(x.kv_len, SHORT) / SHORT)
    merged = e["heads_us"] * x.heads / 128 * np.log2(np.maximum(x.keys, SHORT) / (SHORT / 2))
    return over + MICRO * (e["launch_us"] + e["wave_us"] * x.waves + length + merged)


FORM = Form(
    seconds=seconds_of,
    numbers={
        "launch_us": (1.0, 10.0, 60.0),
        "eb": (0.91, 0.93, 0.96),
        "ef": (0.2, 0.65, 1.0),
        "wave_us": (1e-3, 3.0, 30.0),
        "length_us": (1e-3, 0.5, 10.0),
        "heads_us": (1e-3, 1.0, 50.0),
    },
)
"""eb within what decode attention was measured to reach beyond 1 GB on all three GPUs (facts gpu_model.md
1.1): rows whose bytes and products take about as long do not tell the two shares apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentKernel:
    """A fitted kernel of a GPU for a format of the KV cache (bf16 or fp8)."""

    gpu: str
    kv: str
    rows: int
    numbers: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    kernels: list[LatentKernel]


@cache
def kernels() -> tuple[LatentKernel, ...]:
    """Those of the package."""
    return tuple(parse(_File, read_document(KERNELS)).kernels)


def latent_seconds(
    gpu: GpuSpec,
    batch: int,
    kv_len: int,
    heads: int,
    kv: str = "bf16",
    *,
    latent: int = LATENT,
    rope: int = ROPE,
    replayed: bool = True,
) -> float:
    """Of one layer on one GPU with `heads` heads: its own kernel, else of H200 (Hopper) or B200.

    replayed: as the tables are measured, not as layers are served (`read_seconds`).
    """
    for name in (gpu.name, "h200" if gpu.name.startswith("h") else "b200"):
        for one in kernels():
            if (one.gpu, one.kv) == (name, kv):
                width = 1 if kv == "fp8" else 2
                asks = asked(gpu, batch, kv_len, heads, width, latent, rope, replayed=replayed)
                return float(seconds_of(one.numbers, columns([asks]))[0])
    raise FileError(f"gpu: MLA over {kv} has no measured kernel on {gpu.name}. Use bf16 or fp8.")
