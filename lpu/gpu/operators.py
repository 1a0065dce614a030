"""Operator times of one GPU, in seconds per layer: launch, wave and roofline.

All of them are modelled. Source: facts/gpu_model.md section 1; docs/gpu.md says what they do not contain.
"""

from itertools import pairwise
from math import exp, log
from typing import Literal

from compiler.errors import OptionError
from fabric.gpu import AllReduce, Efficiency, GpuSpec

KvFormat = Literal["bf16", "fp16", "fp8"]
"""Format of the KV cache. The two 16-bit formats take the same time."""

GemmFormat = Literal["bf16", "w8a16", "fp8", "fp8_block", "nvfp4"]
"""w8a16: e4m3 weights, 16-bit activations. Assumed: the bf16 kernel's efficiencies, one byte per weight."""

KV_BYTES = {"bf16": 2, "fp16": 2, "fp8": 1}
ACTIVATION_BYTES = 2
WEIGHT_BYTES = {"bf16": 2.0, "w8a16": 1.0, "fp8": 1.0, "fp8_block": 1.0, "nvfp4": 0.5625}
"""Of nvfp4: 4 bits and one byte of scale per 16 values. Assumed: the scales of fp8_block are left out."""

INPUT_BYTES = {"bf16": 2.0, "w8a16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "nvfp4": 0.5625}
MLA_LATENT, MLA_ROPE, MLA_LEAST_HEADS = 512, 64, 64
SPLIT_BYTES_PER_SECOND = 1.7e12
"""Upper limit per sequence and KV head, with `split_limit`. Source: facts/gpu_model.md section 1."""
TILE_QUERIES = 128


def decode_attention(
    gpu: GpuSpec,
    batch: int,
    kv_len: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    kv: KvFormat = "bf16",
    window: int = 0,
    split_limit: bool = False,
) -> float:
    """One query per sequence over `kv_len` keys of `kv_heads` heads (GQA, MHA), all on this GPU.

    window: keys that a query sees at most (0: all). split_limit: cap the bandwidth at 1.7 TB/s per sequence
    and KV head, a known miss of the formula at few of them; off, as the efficiencies were fitted without it.
    """
    _least(batch=batch, kv_len=kv_len, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    e = gpu.decode_fp8 if kv == "fp8" else gpu.decode_bf16
    keys = min(kv_len, window) if window else kv_len
    size = batch * (4 * heads * head_dim + 2 * kv_heads * keys * head_dim * KV_BYTES[kv])
    rate = gpu.memory_bytes_per_second * e.eb
    if split_limit:
        rate = min(rate, batch * kv_heads * SPLIT_BYTES_PER_SECOND)
    flops = 4 * batch * heads * head_dim * keys
    wave = e.tw_seconds * batch * kv_heads / gpu.sms
    return e.t0_seconds + wave + max(size / rate, flops / (gpu.flops_bf16 * e.ef))


def packed_attention(
    gpu: GpuSpec, batch: int, rows: int, kv_len: int, heads: int, kv_heads: int, head_dim: int, kv: KvFormat
) -> float:
    """A few queries per sequence and head by a decode kernel, which takes those of one KV head in tiles.

    assumed: a tile is 128 queries, each tile costs one decode, and the last query sees `kv_len` keys.
    """
    _least(rows=rows)
    queries = rows * heads // kv_heads
    tiles = -(-queries // TILE_QUERIES)
    wide = -(-queries // tiles) * kv_heads
    return tiles * decode_attention(gpu, batch, kv_len, wide, kv_heads, head_dim, kv)


def decode_mla(gpu: GpuSpec, batch: int, kv_len: int, heads: int, kv: KvFormat = "bf16") -> float:
    """One query per sequence over a latent cache (512 + 64 per token), absorbed; heads are padded to 64."""
    _least(batch=batch, kv_len=kv_len, heads=heads)
    e = gpu.mla_fp8 if kv == "fp8" else gpu.mla_bf16
    size = batch * kv_len * (MLA_LATENT + MLA_ROPE) * KV_BYTES[kv]
    flops = 2 * batch * max(heads, MLA_LEAST_HEADS) * kv_len * (2 * MLA_LATENT + MLA_ROPE)
    return e.t0_seconds + e.tw_seconds * batch / gpu.sms + _roof(gpu, e, size, flops, gpu.flops_bf16)


def context_attention(
    gpu: GpuSpec,
    batch: int,
    tokens: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    kv: KvFormat = "bf16",
    prefix: int = 0,
    reach: int | None = None,
) -> float:
    """Causal attention of `tokens` new tokens per sequence, over `prefix` earlier ones and themselves.

    reach: keys that a query sees at most; None: all.

    With fp8 KV the products are fp8 as well; `ef` is relative to the 16-bit peak there too. Bytes: queries,
    outputs and the new K and V at 2 bytes, all keys and values once. Assumed: fitted without a prefix.
    """
    _least(batch=batch, tokens=tokens, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    e = gpu.context_fp8 if kv == "fp8" else gpu.context_bf16
    span = prefix + tokens
    reach = span if reach is None else reach
    queries = 4 * tokens * heads * head_dim
    size = batch * (queries + 2 * min(span, reach + tokens) * kv_heads * head_dim * KV_BYTES[kv])
    pairs = span**2 - prefix**2 - max(span - reach, 0) ** 2 + max(prefix - reach, 0) ** 2
    flops = 2 * batch * pairs * heads * head_dim * (1 + e.s_half / tokens)
    return e.t0_seconds + _roof(gpu, e, size, flops, gpu.flops_bf16)


def gemm(gpu: GpuSpec, m: int, n: int, k: int, kind: GemmFormat = "bf16") -> float:
    """[m, k] times weights [k, n]. A GPU without that format raises OptionError."""
    _least(m=m, n=n, k=k)
    e, peak = _gemm_kernel(gpu, kind)
    size = WEIGHT_BYTES[kind] * n * k + INPUT_BYTES[kind] * m * k + ACTIVATION_BYTES * m * n
    return e.t0_seconds + _roof(gpu, e, size, 2 * m * n * k, peak)


def launch_of(gpu: GpuSpec, kind: GemmFormat = "bf16") -> float:
    """Seconds of a product's launch by itself, as the tables have it; engines fuse and overlap launches."""
    return _gemm_kernel(gpu, kind)[0].t0_seconds


def elementwise(gpu: GpuSpec, size: int = 0, launches: int = 1) -> float:
    """Norms, RoPE, activations: one launch each, or the time of their `size` bytes if that is longer."""
    return max(launches * gpu.launch_seconds, size / (gpu.memory_bytes_per_second * gpu.decode_bf16.eb))


def all_reduce(gpu: GpuSpec, gpus: int, size: int) -> float:
    """The sum of a tensor of `size` bytes that lies on each of `gpus` GPUs of one NVLink domain.

    For the measured number of GPUs (8): the measured points, log-log between them; linear in bytes between
    the last two and beyond, where the link is the limit; the first one for smaller sizes. Assumed: bytes per
    time are proportional to the rate of the link. For other numbers of GPUs: the NCCL floor of the next
    measured number (above 8: that of 8, assumed) and the bytes of a ring, 2 (n - 1) / n, over the link.
    Source: facts/gpu_model.md sections 1.2 and 1.3.
    """
    _least(gpus=gpus)
    table = gpu.all_reduce
    if gpus == 1:
        return 0.0
    if gpus == table.gpus:
        return _interpolated(table, size * table.link_bytes_per_second / gpu.nvlink_bytes_per_second)
    floor = next((t for n, t in table.floors if n >= gpus), table.floors[-1][1])
    return floor + 2 * (gpus - 1) / gpus * size / gpu.nvlink_bytes_per_second


def _roof(gpu: GpuSpec, e: Efficiency, size: int | float, flops: int | float, peak: int | float) -> float:
    """The longer of the times of moving `size` bytes and of computing `flops`."""
    return max(size / (gpu.memory_bytes_per_second * e.eb), flops / (peak * e.ef))


def _gemm_kernel(gpu: GpuSpec, kind: GemmFormat) -> tuple[Efficiency, int | float]:
    if kind == "nvfp4":
        if gpu.gemm_nvfp4 is None or gpu.flops_fp4 is None:
            raise OptionError(
                "gpu", f"gemm {kind}", f"{gpu.name} has no 4-bit products, 0 FLOP/s", "Use fp8."
            )
        return gpu.gemm_nvfp4, gpu.flops_fp4
    if kind in ("bf16", "w8a16"):
        return gpu.gemm_bf16, gpu.flops_bf16
    return (gpu.gemm_fp8 if kind == "fp8" else gpu.gemm_fp8_block), gpu.flops_fp8


def _interpolated(table: AllReduce, size: int | float) -> float:
    (low, least), *_, (a, t), (b, u) = table.points
    if size <= low:
        return least
    if size >= a:
        return t + (u - t) * (size - a) / (b - a)
    (a, t), (b, u) = next(pair for pair in pairwise(table.points) if size <= pair[1][0])
    return exp(log(t) + log(u / t) * log(size / a) / log(b / a))


def _least(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise OptionError("gpu", name, f"is {value}, the least is 1")
