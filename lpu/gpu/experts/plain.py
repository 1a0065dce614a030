"""Experts of one layer by bytes and FLOPs alone, for engines whose kernels have no published times."""

from fabric.gpu import GpuSpec
from lpu.gpu.experts.kernel import BYTES, ExpertShape, peak

BANDWIDTH, PEAK, MOVES = 0.85, 0.45, 5.0
"""Shares that fitted kernels reach (0.8 to 0.9, 0.4 to 0.7), and times that activations cross memory."""


def plain_seconds(gpu: GpuSpec, shape: ExpertShape, tokens: int, form: str) -> float:
    """Of one layer on one GPU, tokens choosing at random: bytes of the experts hit, then products."""
    hit = shape.experts / shape.ranks * (1 - (1 - shape.topk / shape.experts) ** tokens)
    rows, wide = tokens * shape.topk / shape.ranks, shape.hidden * shape.inter
    moved = MOVES * (2 * tokens * shape.hidden + rows * (4 * shape.hidden + 6 * shape.inter))
    size = 3 * wide * BYTES[form] * hit / BANDWIDTH + moved
    return size / gpu.memory_bytes_per_second + 6 * wide * rows / (peak(gpu, form) * PEAK)
