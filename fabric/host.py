"""What reaches a chip from outside the schedule: the host of a card, and the hub and the DDR5 of a tray."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from fabric.chip import WORD_BYTES, Confidence, Sourced

LPUS_OF_FPGA = 8  # Source: SemiAnalysis, "The Inference Kingdom Expands", 2026-03-24 (confidence B)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservoir:
    """The hub of a tray, in bytes and bytes per second.

    lane: one LPU to its FPGA. ddr5: of one FPGA, shared by its LPUs. capacity: DDR5 behind one FPGA. host:
    into one tray from the rest of the rack, one 400G port (assumed: not published).
    """

    lane: int = 12_500_000_000
    ddr5: int = 204_800_000_000
    capacity: int = 256_000_000_000
    host: int = 50_000_000_000

    @property
    def sources(self) -> tuple[Sourced, ...]:
        """Where the numbers of the default come from."""
        return tuple(
            Sourced(field=f"reservoir.{field}", confidence=confidence, source=source)
            for field, confidence, source in _SOURCES
        )

    def slot_cycles(self, clock_hz: int, copy: bool = True) -> int:
        """Cycles of a word into one LPU while all LPUs of its FPGA take words.

        copy: from the tray's own DDR5, else from the host through it.
        """
        rate = min(self.lane, (self.ddr5 if copy else self.host) // LPUS_OF_FPGA)
        return -(-WORD_BYTES * clock_hz // rate)

    def holds(self, image_bytes: int) -> bool:
        """Whether the DDR5 behind one FPGA has room for so much."""
        return image_bytes <= self.capacity


_SOURCES: tuple[tuple[str, Confidence, str], ...] = (
    ("lane", "B", "SemiAnalysis 2026-03-24: one 100G lane from an LPU to its FPGA"),
    ("ddr5", "D", "4 channels of DDR5-6400 behind an FPGA of 8 LPUs"),
    ("capacity", "A", "NVIDIA product page: up to 256 GB for a tray of 8 LPUs"),
)
RESERVOIR = Reservoir()


def hubs(trays: Sequence[Sequence[int]], chips: int) -> tuple[tuple[int, ...], ...]:
    """The chips of each FPGA: eight of a tray in their order; without trays, of the rack."""
    every = trays or [range(chips)]
    return tuple(
        tuple(tray[at : at + LPUS_OF_FPGA]) for tray in every for at in range(0, len(tray), LPUS_OF_FPGA)
    )


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
