"""Dollars for a million tokens: what a rack costs by the hour, over the tokens it makes in one."""

from dataclasses import dataclass
from typing import Any

from lpu.energy.energy import StepEnergy
from lpu.energy.prices import GpuPrice, Prices
from lpu.energy.spread import Spread

HOURS_PER_YEAR = 8766
SECONDS_PER_HOUR = 3600
MILLION = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Dollars a million tokens. capex: of the rack over its working hours; electricity: of the building."""

    tokens_per_second: float
    capex: Spread
    electricity: Spread

    @property
    def usd(self) -> Spread:
        """The sum of both terms."""
        return self.capex.plus(self.electricity)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "tokens_per_second": self.tokens_per_second,
            "capex_usd_per_million_tokens": self.capex.to_json(),
            "electricity_usd_per_million_tokens": self.electricity.to_json(),
            "usd_per_million_tokens": self.usd.to_json(),
        }


def cost(step: StepEnergy, asked: Prices) -> Cost:
    """Of a program whose steps follow one another as `step` says."""
    return _cost(asked["capex_usd"].times(step.chips), step.watts, step.tokens_per_second, asked)


def gpu_cost(price: GpuPrice, gpus: int, tokens_per_second: float, asked: Prices) -> Cost:
    """Of GPUs at their published power, for a step that another model timed."""
    capex, watts = Spread(*price.capex_usd).times(gpus), Spread(*price.system_w).times(gpus)
    return _cost(capex, watts, tokens_per_second, asked)


def _cost(capex: Spread, watts: Spread, tokens_per_second: float, asked: Prices) -> Cost:
    hourly = tokens_per_second * SECONDS_PER_HOUR / MILLION
    worked = asked["life_years"].times(HOURS_PER_YEAR).times_band(asked["utilisation"])
    power = watts.times(1e-3).times_band(asked["pue"]).times_band(asked["usd_per_kwh"])
    return Cost(
        tokens_per_second=tokens_per_second,
        capex=capex.over(worked).times(1 / hourly),
        electricity=power.times(1 / hourly),
    )
