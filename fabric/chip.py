"""The datasheet of one chip: plain numbers, each with the document it comes from."""

from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Literal

Confidence = Literal["A", "B", "C", "D", "R", "assumed"]
"""A vendor text, B careful second reading, C one secondary source, D derived, R recalled, assumed: no source.

Source: facts/hardware.md, head.
"""

WORD_BYTES = 320
MOST = 10**13  # of any number: keeps every cycle count far inside 64 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Sourced:
    """Where one number comes from. `field` is the number's name, dotted for a level (`tray.lanes`)."""

    field: str
    confidence: Confidence
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipSpec:
    """What one LPU can do per cycle of its clock. Which rule uses which number: docs/timing.md.

    sram_bytes: one flat SRAM, addressed in words of 320 bytes. sram_bytes_per_cycle: all slices together.
    weight_install_frac: share of that bandwidth at which all planes together install weights.
    mxm_fill_cycles: pipeline fill before a plane's first result. accumulators: tiles of partial sums per
    plane. vxm_chains: vector chains of 320 lanes. vxm_latency_cycles: from the end of the hold to the result;
    lane_reduce_cycles: added to it where lanes are reduced. activation_ports: words per cycle for everything
    but weight and KV installs. lanes: link lanes of the chip. slot_cycles: cycles that
    one lane needs for one word in one direction. sources: one entry per number above,
    see `check_sources`.
    """

    name: str
    clock_hz: int
    planes: int
    sram_bytes: int
    sram_bytes_per_cycle: int
    weight_install_frac: float
    mxm_fill_cycles: int
    accumulators: int
    vxm_chains: int
    vxm_latency_cycles: int
    lane_reduce_cycles: int
    activation_ports: int
    lanes: int
    slot_cycles: int
    sources: tuple[Sourced, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.numbers().items():
            least = 0 if name in ("mxm_fill_cycles", "vxm_latency_cycles", "lane_reduce_cycles") else 1
            if name != "weight_install_frac" and not least <= value <= MOST:
                bound = f"at most {MOST:_}" if value > MOST else f"at least {least}"
                raise ValueError(f"{name}: chip {self.name} has {value}, needs {bound}")
        if not 0 < self.weight_install_frac <= 1:
            raise ValueError(
                f"weight_install_frac: is {self.weight_install_frac}, must be above 0 and at most 1"
            )
        if self.sram_bytes % WORD_BYTES:
            raise ValueError(f"sram_bytes: {self.sram_bytes} is not a multiple of the {WORD_BYTES}-byte word")
        if self.plane_bytes_per_cycle < 1:
            raise ValueError("weight_install_frac: a plane would install less than one byte per cycle")

    @property
    def plane_bytes_per_cycle(self) -> int:
        """Weight bytes that one plane installs per cycle: a whole number, so that every cycle count is exact.

        sram_bytes_per_cycle * weight_install_frac / planes, the fraction read as the decimal that it prints
        as, rounded to the nearest byte, halves up.
        """
        share = Fraction(repr(self.weight_install_frac)) * self.sram_bytes_per_cycle / self.planes
        return (2 * share.numerator + share.denominator) // (2 * share.denominator)

    @property
    def sram_words(self) -> int:
        """Words of 320 bytes in the SRAM."""
        return self.sram_bytes // WORD_BYTES

    def numbers(self) -> dict[str, int | float]:
        """Every number of the datasheet by name, in field order: what the program's manifest keeps."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "sources")}

    def with_numbers(self, reason: str = "set by the user", **numbers: int | float) -> "ChipSpec":
        """The same chip with other numbers, each of them marked as assumed for `reason`."""
        sources = tuple(
            Sourced(field=s.field, confidence="assumed", source=reason) if s.field in numbers else s
            for s in self.sources
        )
        return replace(self, sources=sources, **numbers)  # pyright: ignore[reportArgumentType]


def check_sources(subject: str, names: list[str], sources: tuple[Sourced, ...]) -> None:
    """Raise ValueError unless every one of `names` has one entry in `sources` and nothing else has."""
    have = [s.field for s in sources]
    for name in names:
        if have.count(name) != 1:
            raise ValueError(f"sources: {subject}: {name} has {have.count(name)} sources, needs 1")
    for name in have:
        if name not in names:
            raise ValueError(f"sources: {subject}: a source for {name}, which {subject} does not have")


def stated(names: list[str], sources: tuple[Sourced, ...], place: str) -> tuple[Sourced, ...]:
    """`sources` completed: each of `names` without one is assumed, as stated in `place` (a user's file)."""
    have = {s.field for s in sources}
    missing = [name for name in names if name not in have]
    text = f"stated in {place}"
    return sources + tuple(Sourced(field=n, confidence="assumed", source=text) for n in missing)
