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
from lpu.inputs.document import FileError, parse, read_document

KERNELS = Path(__file__).parent / "latent.yaml"
LATENT, ROPE = 512, 64
MICRO = 1e-6
SHORT = 1024  # keys up to which a context costs nothing besides


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentWork:
    """Decodes as columns. size, products: seconds at full bandwidth, and of one head at peak."""

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
) -> tuple[int | float, ...]:
    """One decode, in the order of the columns of LatentWork."""
    keys = batch * kv_len
    return (
        keys * (latent + rope) * kv_bytes / gpu.memory_bytes_per_second,
        2 * keys * (2 * latent + rope) / gpu.flops_bf16,
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
    n = 1 + e["sharpness"]
    flops = x.products * np.maximum(x.heads, e["least_heads"]) / e["ef"]
    roof = ((x.size / e["eb"]) ** n + flops**n) ** (1 / n)
    length = e["length_us"] * np.log2(np.maximum(x.kv_len, SHORT) / SHORT)
    merged = e["heads_us"] * x.heads / 128 * np.log2(np.maximum(x.keys, SHORT) / (SHORT / 2))
    return roof + MICRO * (e["launch_us"] + e["wave_us"] * x.waves + length + merged)


FORM = Form(
    seconds=seconds_of,
    numbers={
        "launch_us": (1.0, 10.0, 60.0),
        "eb": (0.3, 0.85, 1.2),
        "ef": (0.2, 0.6, 2.5),
        "wave_us": (1e-3, 3.0, 30.0),
        "least_heads": (1.0, 32.0, 128.0),
        "sharpness": (0.5, 4.0, 20.0),
        "length_us": (1e-3, 0.5, 10.0),
        "heads_us": (1e-3, 1.0, 50.0),
    },
)


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
) -> float:
    """Of one layer on one GPU with `heads` heads: its own kernel, else of H200 (Hopper) or B200."""
    for name in (gpu.name, "h200" if gpu.name.startswith("h") else "b200"):
        for one in kernels():
            if (one.gpu, one.kv) == (name, kv):
                width = 1 if kv == "fp8" else 2
                row = columns([asked(gpu, batch, kv_len, heads, width, latent, rope)])
                return float(seconds_of(one.numbers, row)[0])
    raise FileError(f"gpu: MLA over {kv} has no measured kernel on {gpu.name}. Use bf16 or fp8.")
