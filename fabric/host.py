"""The host of a card: what a call from the host takes, by the published host model of the GroqCard."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLink:
    """PCIe between host and card: a rate and a latency for each way.

    Source: hardware.md 4, case 11: PCIe = bytes / 24 GB/s + 10 us each way.
    """

    bytes_per_second: int = 24_000_000_000
    latency_ns: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCall:
    """The exact times of one call in seconds: inputs to the card, compute, outputs to the host."""

    input_seconds: Fraction
    compute_seconds: Fraction
    output_seconds: Fraction

    @property
    def seconds(self) -> Fraction:
        """All three, one after another."""
        return self.input_seconds + self.compute_seconds + self.output_seconds


def host_call(
    cycles: int, clock_hz: int, input_bytes: int, output_bytes: int, link: HostLink | None = None
) -> HostCall:
    """What a program of `cycles` takes when a host sends its inputs and fetches its outputs.

    Raises ValueError for a negative count or a clock that is not positive.
    """
    link = link or HostLink()
    for name, value, least in (
        ("cycles", cycles, 0),
        ("clock_hz", clock_hz, 1),
        ("input_bytes", input_bytes, 0),
        ("output_bytes", output_bytes, 0),
        ("bytes_per_second", link.bytes_per_second, 1),
        ("latency_ns", link.latency_ns, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: is {value}, needs at least {least}")
    return HostCall(
        input_seconds=transfer_seconds(input_bytes, link),
        compute_seconds=Fraction(cycles, clock_hz),
        output_seconds=transfer_seconds(output_bytes, link),
    )


def transfer_seconds(size: int, link: HostLink) -> Fraction:
    """Seconds that `size` bytes take one way."""
    return Fraction(size, link.bytes_per_second) + Fraction(link.latency_ns, 10**9)
