"""Cases 101, 103, 104: the arithmetic of Step-3 - link rate, least sparsity, what a weaker device holds."""

from dataclasses import dataclass
from fractions import Fraction

from lpu.pingpong.closed_forms import step3_least_sparsity, step3_rate
from lpu.validate.cases.point import PublishedPoint

RATE_CASE, SPARSITY_CASE, DEVICE_CASE = 101, 103, 104
HIDDEN, LAYERS = 7168, 61  # Step-3; facts/afd.md section 1.2
TPOT = Fraction(50, 1000)  # seconds
TOKENS = 2 * 128  # two attention devices of 128 tokens to one FFN device
DIRECTIONS = {"A2F": (1, Fraction(91, 10**6)), "F2A": (2, Fraction(182, 10**6))}  # bytes, seconds
RATE_GBIT = Fraction("161.3")
SPARSITY_TOLERANCE = Fraction("0.001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Dense peak FLOP/s at the width of the weights, bytes/s of memory, bytes/s of a server's NICs."""

    flops: int
    memory_bytes: int
    network_bytes: int
    published: Fraction


# The NICs are those of a server of eight devices, one direction: the experts are spread over a server. With
# the NIC of one device instead, all four figures come out eight times too large.
DEVICES = {
    # Source: NVIDIA H800 SXM datasheet: FP8 1,979 TFLOPS without sparsity, 3.35 TB/s; 8 x 400 Gb/s.
    "H800": Device(
        flops=1979 * 10**12,
        memory_bytes=3350 * 10**9,
        network_bytes=400 * 10**9,
        published=Fraction("0.058"),
    ),
    # Source: NVIDIA H20 datasheet: FP8 296 TFLOPS, 4.0 TB/s; 8 x 400 Gb/s.
    "H20": Device(
        flops=296 * 10**12,
        memory_bytes=4000 * 10**9,
        network_bytes=400 * 10**9,
        published=Fraction("0.007"),
    ),
    # Source: NVIDIA A800 80 GB SXM datasheet: BF16 312 TFLOPS, 2,039 GB/s; 8 x 200 Gb/s.
    "A800": Device(
        flops=312 * 10**12,
        memory_bytes=2039 * 10**9,
        network_bytes=200 * 10**9,
        published=Fraction("0.031"),
    ),
    # Source: ai.gitee.com/docs/compute/clusters_gpu/ascend_gpu: FP16 280 TFLOPS; 1.6 TB/s; 8 x 200GE RoCE.
    "910B": Device(
        flops=280 * 10**12,
        memory_bytes=1600 * 10**9,
        network_bytes=200 * 10**9,
        published=Fraction("0.034"),
    ),
}

MEMORY_BYTES, MICROSECONDS = 864 * 10**9, 272  # an L20, per second; its stage
LINEAR_MB, BYTES_PER_TOKEN = 67, 512  # weights of a layer, KV of a token and layer; facts/afd.md section 1.2
STAGE_MB, CONTEXT_KTOKENS = 235, 328


def rate_points() -> tuple[PublishedPoint, ...]:
    """Both directions need the same rate: twice the bytes up, in twice the time."""
    return tuple(
        PublishedPoint(
            case=RATE_CASE,
            name=f"{name}, 2 x 128 tokens of {width} B elements",
            kind="anchor",
            unit="Gb/s",
            published=float(RATE_GBIT),
            modelled=round(float(step3_rate(TOKENS, HIDDEN, width, seconds)) / 1e9, 1),  # as it was printed
            tolerance_percent=0,
        )
        for name, (width, seconds) in DIRECTIONS.items()
    )


def sparsity_points(devices: dict[str, Device] = DEVICES) -> tuple[PublishedPoint, ...]:
    """Least share of active experts that the network of a device's server can feed."""
    return tuple(
        PublishedPoint(
            case=SPARSITY_CASE,
            name=f"least sparsity, {name}",
            kind="anchor",
            unit="K/E",
            published=float(device.published),
            modelled=float(
                step3_least_sparsity(
                    HIDDEN, LAYERS, device.flops, device.memory_bytes, device.network_bytes, TPOT
                )
            ),
            tolerance_percent=float(100 * SPARSITY_TOLERANCE / device.published),  # +-0.001
        )
        for name, device in devices.items()
    )


def device_points() -> tuple[PublishedPoint, ...]:
    """What an L20 reads in a stage, and the tokens of context that it has room for beside its weights."""
    stage_mb = Fraction(MEMORY_BYTES * MICROSECONDS, 10**12)
    tokens = (stage_mb - LINEAR_MB) * 10**6 / BYTES_PER_TOKEN
    figures = (
        ("read in a stage", "MB", STAGE_MB, stage_mb),
        ("context", "Ktokens", CONTEXT_KTOKENS, tokens / 1000),
    )
    return tuple(
        PublishedPoint(
            case=DEVICE_CASE,
            name=f"L20, {name}",
            kind="anchor",
            unit=unit,
            published=published,
            modelled=float(modelled),
            tolerance_percent=0.5,  # the figures are printed with three digits
        )
        for name, unit, published, modelled in figures
    )
