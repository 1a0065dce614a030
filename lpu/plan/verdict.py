"""A configuration that was looked at: what it costs, how it does, and why it is refused if it is."""

from dataclasses import dataclass, field
from typing import Any

GPUS_TO_A_RACK, LPUS_TO_A_RACK = 72, 256  # as `lpu ratios` counts
LPU_WATTS = (187, 414, 898)
"""Low, mid and high of a chip with its share of the rack.

Source: facts/energy_cost.md 6.1; assumed: not published.
"""
GPU_WATTS = {"h100": 700, "h200": 700, "b200": 1000, "b300": 1100, "gb200": 1200, "gb300": 1400}
"""Of the package. Source: facts/energy_cost.md 6.1, published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What is compiled, and what stands beside it. mode: how GPUs and LPUs share the work.

    replicas: of the GPUs. chips: of the rack, those that have work.
    """

    rack: str
    objective: str
    batch: int
    context: int
    gpus: int = 0
    gpu: str = ""
    replicas: int = 0
    tp: int | None = None
    chips: int = 0
    users: int = 0
    mode: str = "pd"

    @property
    def racks(self) -> float:
        """LPUs with work / 256 + GPUs / 72: what it is ranked by."""
        return self.chips / LPUS_TO_A_RACK + self.gpus / GPUS_TO_A_RACK

    @property
    def kilowatts(self) -> tuple[float, float, float] | None:
        """Low, mid and high; None for GPUs of unknown power."""
        if self.gpus and self.gpu not in GPU_WATTS:
            return None
        beside = self.gpus * GPU_WATTS.get(self.gpu, 0)
        low, mid, high = ((self.chips * watts + beside) / 1000 for watts in LPU_WATTS)
        return low, mid, high

    def beside(self) -> str:
        """The GPUs in words."""
        return f"{self.gpus} x {self.gpu}, tp {self.gpus // self.replicas}" if self.gpus else "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of a configuration. reason: why it is refused; empty if it meets the targets.

    Times are seconds, of a percentile. good: share of the replayed requests that met both targets.
    compiled, replayed: the commands.
    """

    configuration: Configuration
    reason: str = ""
    ttft: float | None = None
    tpot: float | None = None
    margin: float | None = None
    good: float | None = None
    slots_busy: float | None = None
    gpus_busy: float | None = None
    joules_per_token: tuple[float, float, float] | None = None
    compiled: str = ""
    replayed: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; keys carry their units."""
        one = self.configuration
        return {
            "rack": one.rack,
            "mode": one.mode,
            "objective": one.objective,
            "batch": one.batch,
            "context": one.context,
            "tp": one.tp,
            "lpus": one.chips,
            "users": one.users,
            "gpus": one.gpus,
            "gpu": one.gpu if one.gpus else None,
            "gpu_replicas": one.replicas,
            "rack_equivalents": one.racks,
            "kilowatts_low_mid_high": one.kilowatts,
            "price": None,
            "refused": self.reason or None,
            "ttft_seconds": self.ttft,
            "tpot_seconds": self.tpot,
            "margin": self.margin,
            "good_share": self.good,
            "slots_busy_share": self.slots_busy,
            "gpus_busy_share": self.gpus_busy,
            "joules_per_token_low_mid_high": self.joules_per_token,
            "compile": self.compiled or None,
            "replay": self.replayed or None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The answer of a plan: what meets the targets, the cheapest first, and what was refused."""

    asked: dict[str, Any]
    label: str
    good: tuple[Judged, ...]
    refused: tuple[Judged, ...]
    drawing: str = ""
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "lpu-plan/1",
            "label": self.label,
            "asked": self.asked,
            "ranked_by": "rack equivalents: LPUs with work / 256 + GPUs / 72 (a definition, not a price)",
            "configurations": [one.to_json() for one in self.good],
            "refused": [one.to_json() for one in self.refused],
            "requests_file": self.drawing,
            "notes": list(self.notes),
        }
