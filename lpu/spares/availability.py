"""The share of time that a rack serves, in closed form: units fail and are repaired, each by itself."""

from dataclasses import dataclass
from typing import Annotated, Literal

from compiler.options import Option
from lpu.inputs.document import FileError

Policy = Literal["none", "chip", "tray", "rack"]
POLICIES: dict[Policy, str] = {
    "none": "no spare: any failed chip or tray stops the rack until it is repaired",
    "chip": "a spare chip in each tray: a tray serves with one failed chip",
    "tray": "a spare tray in the rack: the rack serves with failures in one tray",
    "rack": "a spare rack: one of two racks serves",
}
FIT_HOURS = 1e9
SWEEP_FIT = (1_000, 5_000, 12_600)
"""Failures of a chip in 1e9 hours. Source: facts faults.md 4.2, 12,600 is the Llama 3 fleet of H100; of LPUs
no figure is public, so all are assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRates:
    """Failures in 1e9 hours of one part, and hours until it is repaired; all assumed."""

    chip_fit: Annotated[
        float, Option("--chip-fit", "Failures of a chip in 1e9 hours (assumed).", least=0)
    ] = 5_000.0
    link_fit: Annotated[float, Option("--link-fit", "The same of a cable (assumed).", least=0)] = 50.0
    tray_fit: Annotated[
        float, Option("--tray-fit", "The same of a tray as a whole: power, hub (assumed).", least=0)
    ] = 2_000.0
    repair_hours: Annotated[
        float, Option("--repair-hours", "Until a failed part is replaced (assumed).", least=0)
    ] = 72.0

    def __post_init__(self) -> None:
        for name in ("chip_fit", "link_fit", "tray_fit", "repair_hours"):
            value = getattr(self, name)
            if not 0 <= value <= FIT_HOURS:
                flag = f"--{name.replace('_', '-')}"
                raise FileError(f"options: {flag} is {value:g}, must be from 0 to {FIT_HOURS:g}.")

    def down(self, fit: float) -> float:
        """The share of time that a part of this rate is failed: repair over failure and repair."""
        load = fit / FIT_HOURS * self.repair_hours
        return load / (1 + load)


@dataclass(frozen=True, slots=True, kw_only=True)
class RackParts:
    """How many parts a rack has: trays of equally many chips, and cables."""

    trays: int
    chips_of_tray: int
    cables: int


def serving_share(policy: Policy, parts: RackParts, rates: FailureRates) -> float:
    """The share of time in which a policy's spares cover all failed chips and trays.

    Of a model that fills what is not spare. Failed cables are gone round and stop nothing.
    """
    chip, tray = rates.down(rates.chip_fit), rates.down(rates.tray_fit)
    whole = (1 - chip) ** parts.chips_of_tray
    none = ((1 - tray) * whole) ** parts.trays
    if policy == "none":
        return none
    if policy == "chip":
        one = parts.chips_of_tray * chip * (1 - chip) ** (parts.chips_of_tray - 1)
        return ((1 - tray) * (whole + one)) ** parts.trays
    if policy == "rack":
        return 1 - (1 - none) ** 2
    good = (1 - tray) * whole
    return good**parts.trays + parts.trays * (1 - good) * good ** (parts.trays - 1)


def failures_per_year(parts: RackParts, rates: FailureRates) -> float:
    """Failures of any part of a rack in a year."""
    chips = parts.trays * parts.chips_of_tray
    fits = chips * rates.chip_fit + parts.trays * rates.tray_fit + parts.cables * rates.link_fit
    return fits / FIT_HOURS * 365 * 24
