"""What `lpu afd` reports: every time with how it is known, and the figures of the field beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lpu.afd.trace import Event
from lpu.afd.turn import Turn
from lpu.gpu.units import PS_PER_SECOND, Part
from lpu.pingpong.boundary import SlotReport
from lpu.report.words import CAUTION_FACTOR
from lpu.screen import OnScreen, fact_lines

PROJECTION = "projection: no measurement of GPUs beside an LPX rack is public"
CAUTION = (
    f"on the LPUs' side, served systems of the older chip took {CAUTION_FACTOR:g} x what this arithmetic "
    "gives for them"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A named figure that is no time of a turn. basis: how it is known."""

    name: str
    value: int | float | str
    unit: str
    basis: str

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"name": self.name, "value": self.value, "unit": self.unit, "kind": self.basis}

    def __str__(self) -> str:
        value = self.value if isinstance(self.value, str) else f"{self.value:,.4g}"
        if isinstance(self.value, int):
            value = f"{self.value:,}"
        return f"{value} {self.unit}".strip() + f" ({self.basis})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AfdReport(OnScreen):
    """One mode and request on one machine.

    layer: parts of what `layer_name` says, one layer or one round. assumptions: names of the numbers that
    the times rest on, by confidence. bits: how the real math compared with the reference, if it ran.
    events: for the trace. asked: every value that was chosen, by name (`lpu/afd/asked.py`).
    """

    mode: str
    machine: tuple[tuple[str, str], ...]
    batch: int
    racks: float
    turns: tuple[Turn, ...]
    layer: tuple[Part, ...]
    layer_name: str
    figures: tuple[Figure, ...]
    boundary: SlotReport | None = None
    warnings: tuple[str, ...] = ()
    assumptions: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    bits: str | None = None
    counts: dict[str, int] = field(default_factory=dict[str, int])
    band: int | float = 0.0
    events: tuple[Event, ...] = ()
    asked: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def per_user(self) -> float:
        """Tokens per second of one sequence, in the last turn."""
        return PS_PER_SECOND / self.turns[-1].tpot

    @property
    def per_rack(self) -> float:
        """Tokens per second of the whole batch while it decodes, by racks of LPUs; GPUs are not counted."""
        return self.batch * self.per_user / self.racks

    @property
    def sustained(self) -> float:
        """New tokens of all turns by the time that they take, prefills and all, over the whole batch."""
        spent = sum(turn.end_to_end for turn in self.turns)
        return self.batch * sum(turn.tokens for turn in self.turns) * PS_PER_SECOND / spent

    @property
    def equal(self) -> bool:
        """Whether the real math, if it ran, gave the bits of the reference."""
        return self.bits in (None, "equal")

    def __str__(self) -> str:
        turns = [
            (f"turn {turn.number + 1}", f"TTFT {milliseconds(turn.ttft)}, TPOT {milliseconds(turn.tpot)}")
            for turn in self.turns
        ]
        speeds = f"{self.per_user:,.1f} per user, {self.per_rack:,.1f} per rack of LPUs while decoding"
        bits = [("bits", self.bits)] if self.bits else []
        return fact_lines(
            [
                ("mode", self.mode),
                *self.machine,
                *turns,
                ("tokens/s", speeds),
                *bits,
                ("label", PROJECTION),
                ("caution", CAUTION),
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "schema": "lpu-afd/2",
            "label": PROJECTION,
            "caution_factor": CAUTION_FACTOR,
            "mode": self.mode,
            "machine": dict(self.machine),
            "batch": self.batch,
            "turns": [turn.to_json() for turn in self.turns],
            "layer": [part.to_json() for part in self.layer],
            "figures": [figure.to_json() for figure in self.figures],
            "tokens_per_second_per_user": self.per_user,
            "tokens_per_second_per_lpu_rack": self.per_rack,
            "sustained_tokens_per_second": self.sustained,
            "lpu_racks": self.racks,
            "boundary": self.boundary.to_json() if self.boundary else None,
            "warnings": list(self.warnings),
            "assumptions": self.assumptions,
            "gpu_band": self.band,
            "bits": self.bits,
            "counts": self.counts,
            "asked": self.asked,
        }


def milliseconds(picoseconds: int) -> str:
    """With three decimals more than microseconds would have whole."""
    return f"{picoseconds / 1e9:,.6f} ms"


def turn_rows(turns: Sequence[Turn]) -> list[list[str]]:
    """Turn, time to first token, per token, end to end, reused tokens, bytes over the bridge."""
    return [
        [
            str(turn.number + 1),
            milliseconds(turn.ttft),
            milliseconds(turn.tpot),
            milliseconds(turn.end_to_end),
            f"{turn.reused:,}",
            ", ".join(f"{name} {count:,}" for name, count in turn.crossed.items()),
        ]
        for turn in turns
    ]


def part_rows(report: AfdReport) -> list[list[str]]:
    """Every part of the turns and of a layer: of what, name, time, how it is known."""
    rows = [
        [f"turn {turn.number + 1} {what}", part.name, milliseconds(part.picoseconds), part.basis]
        for turn in report.turns
        for what, parts in (("TTFT", turn.first), ("then", turn.later), ("TPOT", turn.step))
        for part in parts
    ]
    name = report.layer_name
    return rows + [[name, part.name, milliseconds(part.picoseconds), part.basis] for part in report.layer]
