"""Energy of a program's steps: events times prices, and chips that are on while the step runs."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from compiler.program.program import Program
from lpu.energy.events import Events, events
from lpu.energy.prices import Prices, prices
from lpu.energy.spread import Spread, total
from lpu.report.throughput import of as throughput_of
from lpu.report.words import label_of
from lpu.screen import OnScreen

FEMTO, PICO = 1e-15, 1e-12
BITS = 8
DYNAMIC = (
    ("products, fp8", "macs_fp8", "mac_fp8_fj", FEMTO),
    ("products, fp16", "macs_fp16", "mac_fp16_fj", FEMTO),
    ("vector operations", "vector_ops", "vector_op_pj", PICO),
    ("SRAM, weights and KV", "installed_bytes", "sram_fj_per_bit", BITS * FEMTO),
    ("SRAM, activations", "stream_bytes", "sram_fj_per_bit", BITS * FEMTO),
    ("wires, weights and KV", "installed_bytes", "weight_wire_fj_per_bit", BITS * FEMTO),
    ("wires, activations", "stream_bytes", "stream_wire_fj_per_bit", BITS * FEMTO),
    ("links", "link_bytes", "link_pj_per_bit", BITS * PICO),
    ("host lanes", "host_bytes", "host_pj_per_bit", BITS * PICO),
)
"""(term, events, price, joules of an event at a price of 1)."""

STATIC = (("chips at rest", "static_w"), ("host, DDR, fans, losses", "overhead_w"))
"""(term, price): watts of every chip of the rack, for the time of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyTerm:
    """count events (or chip-seconds) at a price. joules: their product, of one step."""

    name: str
    count: int | float
    price: str
    joules: Spread

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"term": self.name, "count": self.count, "price": self.price, "joules": self.joules.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StepEnergy(OnScreen):
    """Energy of one step of a context bucket. seconds: from one step to the next; tokens: of one step.

    Counts are exact for the stated machine; every joule is modelled, and a band.
    """

    context: int
    tokens: int
    chip: str
    chips: int
    seconds: float
    terms: tuple[EnergyTerm, ...]

    @property
    def joules(self) -> Spread:
        """Of the step: the sum of the terms."""
        return total([term.joules for term in self.terms])

    @property
    def joules_per_token(self) -> Spread:
        """Of the step over its tokens."""
        return self.joules.times(1 / self.tokens)

    @property
    def watts(self) -> Spread:
        """Mean power of the rack while steps follow one another."""
        return self.joules.times(1 / self.seconds)

    @property
    def tokens_per_second(self) -> float:
        """While steps follow one another."""
        return self.tokens / self.seconds

    def rows(self) -> list[list[str]]:
        """Cells under HEADERS, the total last."""
        share = self.joules.mid
        return [
            [t.name, f"{t.count:,.4g}", t.price, *_three(t.joules), f"{100 * t.joules.mid / share:.1f} %"]
            for t in self.terms
        ] + [["step", "", "", *_three(self.joules), "100.0 %"]]

    def __str__(self) -> str:
        return (
            f"energy (modelled): context {self.context}: {band_text(self.joules_per_token)} J a token, "
            f"rack of {self.chips} chips at {band_text(self.watts.times(1e-3))} kW, low / mid / high"
        )

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "kind": "modelled",
            "label": label_of(self.chip),
            "context": self.context,
            "tokens": self.tokens,
            "chips": self.chips,
            "seconds": self.seconds,
            "terms": [term.to_json() for term in self.terms],
            "joules": self.joules.to_json(),
            "joules_per_token": self.joules_per_token.to_json(),
            "watts": self.watts.to_json(),
        }


HEADERS = ("term", "events", "price", "low J", "mid J", "high J", "share of mid")


def band_text(band: Spread) -> str:
    """Three digits that count of each bound."""
    return " / ".join(_three(band))


def _three(band: Spread) -> list[str]:
    return [f"{one:,.3g}" if one < 1e4 else f"{one:,.0f}" for one in (band.low, band.mid, band.high)]


def step_energy(program: Program, context: int, asked: Prices | None = None) -> StepEnergy:
    """The energy of one step of a context bucket."""
    manifest, found = program.manifest, throughput_of(program, context)
    seconds = found.interval / manifest.clock_hz
    counts = _counts(program, context)
    return of_events(counts, manifest.chips, seconds, asked or prices()).at(
        context, manifest.rows, manifest.chip.name
    )


def _counts(program: Program, context: int) -> dict[str, int]:
    """The events of a step: those of each block, as often as it is called."""
    first = {call.block: call for call in program.calls}
    uses = Counter(call.block for call in program.calls)
    out: Counter[str] = Counter()
    for block, times in uses.items():
        found = events(program.expand_call(first[block], context), program.manifest).totals()
        out.update({name: times * count for name, count in found.items()})
    return dict(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Terms of some events on some chips for some seconds."""

    terms: tuple[EnergyTerm, ...]
    chips: int
    seconds: float

    def at(self, context: int, tokens: int, chip: str) -> StepEnergy:
        """The same as a step of a program."""
        return StepEnergy(
            context=context,
            tokens=tokens,
            chip=chip,
            chips=self.chips,
            seconds=self.seconds,
            terms=self.terms,
        )


def of_events(counts: dict[str, int], chips: int, seconds: float, asked: Prices) -> Counted:
    """Every term of DYNAMIC and STATIC. counts: by name, as `Events.totals` gives them."""
    dynamic = [
        EnergyTerm(
            name=name, count=counts[event], price=price, joules=asked[price].times(unit * counts[event])
        )
        for name, event, price, unit in DYNAMIC
    ]
    static = [
        EnergyTerm(name=name, count=chips * seconds, price=price, joules=asked[price].times(chips * seconds))
        for name, price in STATIC
    ]
    return Counted(terms=(*dynamic, *static), chips=chips, seconds=seconds)


def joules_of_rows(found: Events, asked: Prices) -> Float64[np.ndarray, " rows"]:
    """Mid dynamic energy of each row."""
    out = np.zeros(len(found.macs_fp8))
    for _, event, price, unit in DYNAMIC:
        out += getattr(found, event) * (asked[price].mid * unit)
    return out
