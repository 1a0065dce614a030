"""Power over the cycles of a step: mid prices, each row's energy spread over the cycles it holds its unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from compiler.analyse.holds import holds
from compiler.program.program import Program
from lpu.energy.energy import joules_of_rows
from lpu.energy.events import events
from lpu.energy.prices import Prices


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """watts: of all chips by cycle, at rest and overhead included. peak: of one chip, without overhead.

    peak_chip, peak_cycle: where that is.
    """

    context: int
    watts: Float64[np.ndarray, " cycles"]
    peak_watts: float
    peak_chip: int
    peak_cycle: int

    def beyond(self, cap_watts: float) -> bool:
        """Whether a chip passes a limit in some cycle."""
        return self.peak_watts > cap_watts

    def csv(self, bins: int) -> str:
        """`cycle,watts` lines, means over equal spans of cycles, at most `bins` of them."""
        span = -(-len(self.watts) // bins)
        starts = np.arange(0, len(self.watts), span)
        sums = np.add.reduceat(self.watts, starts)
        sizes = np.diff(np.append(starts, len(self.watts)))
        lines = [f"{s},{w:.6g}" for s, w in zip(starts.tolist(), (sums / sizes).tolist(), strict=True)]
        return "\n".join(["cycle,watts", *lines]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "context": self.context,
            "rack_watts_mean": float(self.watts.mean()),
            "rack_watts_peak": float(self.watts.max()),
            "chip_watts_peak": self.peak_watts,
            "chip": self.peak_chip,
            "cycle": self.peak_cycle,
        }


def profile(program: Program, context: int, asked: Prices) -> Profile:
    """The profile of one step by itself."""
    manifest = program.manifest
    columns, cycles = program.expand(context), manifest.cycles[context]
    hold = np.maximum(holds(columns, manifest), 1)
    joules = joules_of_rows(events(columns, manifest), asked)
    per_cycle = joules / hold * manifest.clock_hz
    start = np.minimum(columns.t0, cycles)
    end = np.minimum(columns.t0 + hold, cycles)
    order = np.argsort(columns.chip, kind="stable")
    edges = np.searchsorted(columns.chip[order], np.arange(manifest.chips + 1))
    rack, peak = np.zeros(cycles), (-1.0, 0, 0)
    for chip in range(manifest.chips):
        rows = order[edges[chip] : edges[chip + 1]]
        watts = _spread(start[rows], end[rows], per_cycle[rows], cycles)
        rack += watts
        at = int(np.argmax(watts))
        if watts[at] > peak[0]:
            peak = float(watts[at]), chip, at
    rest, besides = asked["static_w"].mid, asked["overhead_w"].mid
    return Profile(
        context=context,
        watts=rack + manifest.chips * (rest + besides),
        peak_watts=peak[0] + rest,
        peak_chip=peak[1],
        peak_cycle=peak[2],
    )


def powers(
    program: Program, context: int, chips: Sequence[int], asked: Prices
) -> dict[int, tuple[Int64[np.ndarray, " changes"], Float64[np.ndarray, " changes"]]]:
    """Watts of each of the chips from each cycle on at which they change, at rest included: mid prices."""
    manifest = program.manifest
    columns = program.expand(context)
    hold = np.maximum(holds(columns, manifest), 1)
    watts = joules_of_rows(events(columns, manifest), asked) / hold * manifest.clock_hz
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for chip in chips:
        rows = np.flatnonzero((columns.chip == chip) & (watts > 0))
        at = np.concatenate([[0], columns.t0[rows], columns.t0[rows] + hold[rows]])
        by = np.concatenate([[0.0], watts[rows], -watts[rows]])
        cycles, place = np.unique(at, return_inverse=True)
        change = np.bincount(place, by, len(cycles))
        found[chip] = cycles, np.maximum(np.cumsum(change), 0.0) + asked["static_w"].mid
    return found


def _spread(start: np.ndarray, end: np.ndarray, watts: np.ndarray, cycles: int) -> np.ndarray:
    """By cycle, the sum of `watts` of the rows that run in it."""
    change = np.bincount(start, watts, cycles + 1) - np.bincount(end, watts, cycles + 1)
    return np.maximum(np.cumsum(change)[:cycles], 0.0)
