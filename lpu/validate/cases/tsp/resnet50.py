"""ResNet-50 as matrix products: 53 convolutions and the classifier, from the definition of the architecture.

Source: He et al. 2015, table 1 (bottlenecks 3, 4, 6, 3 on 224 x 224), with the stride of a stage on its 3 x 3
convolution, as in the version that MLPerf and torchvision use.
"""

from lpu.validate.cases.tsp.gemm import Gemm

BOTTLENECKS = (3, 4, 6, 3)
PIXELS = 224
COLOURS = 3
CLASSES = 1000
GROWTH = 4  # channels of a bottleneck's output / channels inside


def convolution(pixels: int, channels: int, filters: int, kernel: int) -> Gemm:
    """A convolution with `pixels` x `pixels` outputs, unrolled (im2col): a row per output pixel."""
    return Gemm(rows=pixels * pixels, inner=kernel * kernel * channels, columns=filters)


def layers() -> tuple[tuple[str, Gemm], ...]:
    """(name, product) of each layer in order, batch 1."""
    pixels, channels, inside = PIXELS // 2, 64, 64
    out = [("conv1", convolution(pixels, COLOURS, channels, 7))]
    pixels //= 2  # the max pool
    for stage, count in enumerate(BOTTLENECKS, 2):
        for block in range(count):
            name, before = f"conv{stage}_{block + 1}", pixels
            if block == 0 and stage > 2:
                pixels //= 2
            wide = inside * GROWTH
            out += [
                (f"{name} 1x1 in", convolution(before, channels, inside, 1)),
                (f"{name} 3x3", convolution(pixels, inside, inside, 3)),
                (f"{name} 1x1 out", convolution(pixels, inside, wide, 1)),
            ]
            if block == 0:
                out.append((f"{name} shortcut", convolution(pixels, channels, wide, 1)))
            channels = wide
        inside *= 2
    out.append(("classifier", Gemm(rows=1, inner=channels, columns=CLASSES)))
    return tuple(out)
