"""What kernels of experts and of MLA take from a GPU's generation, and how bytes and products overlap.

Hopper or Blackwell: whether a GPU has FP4. What follows Blackwell is assumed to be like it.
"""

from dataclasses import dataclass

import numpy as np

from fabric.gpu import GpuSpec

CORNER = 4
"""Exponent of the roof's corner. Fits of every kernel that left it free chose 4 to 5 or could not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuGeneration:
    """rows: of one matrix instruction (wgmma, tcgen05; PTX ISA). l2_bytes: of the datasheet.

    fp8_columns: whether it takes fp8 operands by columns too. wgmma takes them by rows only, but a latent of
    MLA is a value as well, which goes by columns: there its products are of 16 bits.
    """

    rows: int
    l2_bytes: int
    fp8_columns: bool


HOPPER = GpuGeneration(rows=64, l2_bytes=50_000_000, fp8_columns=False)
BLACKWELL = GpuGeneration(rows=128, l2_bytes=126_000_000, fp8_columns=True)


SISTER, APART = "another GPU of its generation", "GPUs of another generation"
UNSEEN = {
    "experts": {SISTER: 0.25, APART: 0.30},
    "MLA decode": {SISTER: 0.25, APART: 0.25},
}
"""Within what 90 % of the rows of a GPU lie whose kernels are fitted to others (`lpu validate`, experts).

Measured 20, 23, 23 and 20 %; of three quarters of the rows, drawn three times, at most 20, 26, 24 and 21 %.
"""


def generation(gpu: GpuSpec) -> GpuGeneration:
    """The generation of a GPU."""
    return BLACKWELL if gpu.flops_fp4 else HOPPER


def read_seconds(gpu: GpuSpec, size: float, replayed: bool) -> float:
    """Seconds to read `size` bytes at full bandwidth.

    replayed: the same bytes over and over, as in the measured tables. What the L2 holds is then not read
    again: of `size` bytes the share size / L2 is missed, at most all.
    """
    missed = min(size / generation(gpu).l2_bytes, 1.0) if replayed else 1.0
    return missed * size / gpu.memory_bytes_per_second


def roof(bytes_seconds: np.ndarray, products_seconds: np.ndarray) -> np.ndarray:
    """Both at once, elementwise: the longer one, and more where they are alike."""
    return (bytes_seconds**CORNER + products_seconds**CORNER) ** (1 / CORNER)
