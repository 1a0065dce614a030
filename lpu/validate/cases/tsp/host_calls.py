"""Case 11: the host model of the GroqCard, compared with its formula worked out by hand."""

from fabric.host import host_call
from lpu.validate.cases.point import PublishedPoint
from lpu.validate.cases.tsp.machine import PublishedMachine

CASE = 11
EXACT = 1e-9  # percent: the last bits of a float


def points(machine: PublishedMachine) -> tuple[PublishedPoint, ...]:
    """900 cycles are 1 us; 24 kB are 1 us and 10 more; no bytes are 10 us."""
    call = host_call(900, machine.chip.clock_hz, 24_000, 0)
    image = host_call(44_100, machine.chip.clock_hz, 150_528, 1_000)  # 224 x 224 x 3 in, 1000 classes out
    micros = (
        ("compute, 900 cycles", 1, call.compute_seconds),
        ("24,000 bytes to the card", 11, call.input_seconds),
        ("no bytes to the host", 10, call.output_seconds),
        ("44,100 cycles, 150,528 bytes in, 1,000 out", 49 + 16.272 + 10 + 1 / 24, image.seconds),
    )
    return tuple(
        PublishedPoint(
            case=CASE,
            name=name,
            kind="anchor",
            unit="us",
            published=published,
            modelled=float(seconds * 10**6),
            tolerance_percent=EXACT,
        )
        for name, published, seconds in micros
    )
