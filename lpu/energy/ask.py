"""What the verb `energy` asks for: energy, cost and a power profile of a program, and GPUs beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compiler.program.program import Program
from lpu.compiled import ProgramLike, programs_of
from lpu.energy.cost import Cost, cost
from lpu.energy.energy import StepEnergy, step_energy
from lpu.energy.prices import Prices, parse_bands, prices
from lpu.energy.profile import Profile, profile
from lpu.inputs.document import FileError
from lpu.report.words import CAUTION_FACTOR, caution
from lpu.screen import OnScreen


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Energy(OnScreen):
    """Of every context bucket. profiles: where they were asked for. cap_watts: limit of a chip, or None."""

    digest: str
    prices: Prices
    steps: tuple[StepEnergy, ...]
    costs: tuple[Cost, ...]
    profiles: tuple[Profile, ...] = ()
    cap_watts: float | None = None

    @property
    def passed(self) -> bool:
        """Whether no chip is above the cap in any cycle, at mid prices."""
        return self.cap_watts is None or not any(one.beyond(self.cap_watts) for one in self.profiles)

    @property
    def caution(self) -> str | None:
        """What its seconds, and so what a token costs, are to be read with."""
        return caution(self.steps[0].chip) if self.steps else None

    def __str__(self) -> str:
        told = [f"caution     {self.caution}"] if self.caution else []
        return "\n".join([*map(str, self.steps), *told])

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "schema": "lpu-energy/1",
            "program_sha256": self.digest,
            "caution_factor": CAUTION_FACTOR if self.caution else None,
            "prices": [price.to_json() for price in self.prices.every],
            "steps": [
                step.to_json() | {"cost": one.to_json()}
                for step, one in zip(self.steps, self.costs, strict=True)
            ],
            "profiles": [one.to_json() for one in self.profiles],
            "cap_watts": self.cap_watts,
            "passed": self.passed,
        }


def energy(
    program: ProgramLike,
    *,
    changed: Sequence[str] = (),
    profiled: bool = False,
    cap_watts: float | None = None,
) -> Energy:
    """Energy and cost of the steps of a program. changed: prices as `static_w=30,105,300`. Raises FileError.

    profiled: power by cycle too. cap_watts: a limit that no chip may pass in any cycle, at mid prices.
    """
    if cap_watts is not None and not cap_watts > 0:
        raise FileError(f"energy: --power-cap is {cap_watts:g} W, must be above 0.")
    step, _ = programs_of(program)
    asked = prices().with_bands(**parse_bands(changed))
    steps = tuple(step_energy(step, context, asked) for context in step.manifest.contexts)
    return Energy(
        digest=step.manifest.digest,
        prices=asked,
        steps=steps,
        costs=tuple(cost(one, asked) for one in steps),
        profiles=_profiles(step, asked) if profiled or cap_watts is not None else (),
        cap_watts=cap_watts,
    )


def _profiles(program: Program, asked: Prices) -> tuple[Profile, ...]:
    return tuple(profile(program, context, asked) for context in program.manifest.contexts)
