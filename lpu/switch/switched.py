"""What a switch gives: the program that brings weights in, its stages, closed forms beside its cycles."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from compiler.program.isa import WORD_BYTES, Columns
from compiler.program.manifest import Switch, Waves
from compiler.program.program import Program
from fabric.host import hubs
from lpu.energy.energy import band_text, of_events
from lpu.energy.events import events
from lpu.energy.prices import prices
from lpu.energy.spread import Spread, total
from lpu.remap.stages import Known, RemapStage, as_json, load_cycles, stage_line
from lpu.report.words import EXACT, confidence_line, kind, label_of, size
from lpu.screen import OnScreen, fact_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseBytes:
    """What comes while A runs, or after: bytes in all, over the fullest lane, out of the fullest DDR5, chips.

    cycles: from the first word to the last.
    """

    total: int
    lane: int
    ddr5: int
    chips: int
    cycles: int

    def seconds(self, lane: int, ddr5: int) -> Fraction:
        """The closed form: no lane and no DDR5 gives its bytes sooner, at this many bytes per second."""
        return max(Fraction(self.lane, lane), Fraction(self.ddr5, ddr5))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Switched(OnScreen):
    """Two programs of one rack, and the one that brings the weights of the second in."""

    before: Program
    after: Program
    program: Program

    @property
    def body(self) -> Switch:
        """What the program says of itself."""
        assert isinstance(self.program.manifest.body, Switch)
        return self.program.manifest.body

    def phases(self) -> tuple[PhaseBytes, PhaseBytes]:
        """While A runs, and after it has stopped."""
        rows = self.program.expand(self.program.manifest.longest)
        early = rows.t0 < self.body.stop
        return self._phase(rows.take(early), 0), self._phase(rows.take(~early), self.body.stop)

    def _phase(self, rows: Columns, begin: int) -> PhaseBytes:
        manifest = self.program.manifest
        words = np.zeros(manifest.chips, np.int64)
        np.add.at(words, rows.chip, rows.n)
        levels = manifest.levels
        trays = levels[0].groups if levels and levels[0].kind != "links" else ()
        shared = [int(words[list(chips)].sum()) for chips in hubs(trays, manifest.chips)]
        return PhaseBytes(
            total=int(words.sum()) * WORD_BYTES,
            lane=int(words.max()) * WORD_BYTES,
            ddr5=max(shared) * WORD_BYTES,
            chips=int((words > 0).sum()),
            cycles=int(rows.t1.max(initial=begin)) - begin,
        )

    def stages(self) -> tuple[RemapStage, ...]:
        """From the first word to the first token of B, in order; A serves in the first."""
        exact: Known = EXACT
        before, after = self.before.manifest, self.after.manifest
        beside, rest = self.phases()
        waves = isinstance(before.body, Waves)
        step = before.cycles[before.longest]
        stages = [
            RemapStage(
                name="beside",
                cycles=0 if waves else self.body.stop,
                what=f"A serves {0 if waves else self.body.stop // step:,} steps; {size(beside.total)} come "
                f"into {beside.chips} chips",
                known=exact,
            ),
            RemapStage(
                name="drain",
                cycles=self.body.stop if waves else 0,
                what="waves of A run out" if waves else "A stops between two steps",
                known=exact,
            ),
            RemapStage(
                name="move",
                cycles=rest.cycles,
                what=f"{size(rest.total)} come into {rest.chips} chips when A has stopped",
                known=exact,
            ),
            RemapStage(
                name="program",
                cycles=load_cycles(self.after),
                what="32 bytes of each row of B over the lane of its chip",
                known="modelled",
            ),
            RemapStage(
                name="restart",
                cycles=after.cycles[after.longest],
                what="the first step of B",
                known=exact,
            ),
        ]
        return tuple(stages)

    @property
    def silent_cycles(self) -> int:
        """From the last token of A to the first of B."""
        return sum(one.cycles for one in self.stages()[1:])

    @property
    def moved_seconds(self) -> float:
        """What the lanes take, both phases together."""
        return sum(one.cycles for one in self.phases()) / self.program.manifest.clock_hz

    @property
    def least_seconds(self) -> float:
        """The closed form of the same."""
        rates = self.body.reservoir
        return float(sum(one.seconds(rates.lane, rates.ddr5) for one in self.phases()))

    def joules(self) -> Spread:
        """Of the words over lanes and into SRAM; modelled."""
        manifest = self.program.manifest
        counts = events(self.program.expand(manifest.longest), manifest).totals()
        return total([one.joules for one in of_events(counts, manifest.chips, 0.0, prices()).terms])

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What it comes to, in a few lines."""
        manifest, body = self.program.manifest, self.body
        clock, rates = manifest.clock_hz, body.reservoir
        both = self.phases()
        held = int(self.before.manifest.region_table()[:, 1, 1].sum()) * WORD_BYTES
        forms = [one.seconds(rates.lane, rates.ddr5) for one in both]
        stages = [("stage", stage_line(one, clock)) for one in self.stages()]
        return [
            *(("model", self._side(name, of)) for name, of in (("A", self.before), ("B", self.after))),
            ("rack", f"{manifest.rack}: {manifest.chips} chips {manifest.chip.name}"),
            *stages,
            (
                "silent",
                f"{1e3 * self.silent_cycles / clock:.3f} ms from the last token of A to the first of B "
                f"({kind(manifest.chip.name)}, loading of rows modelled)",
            ),
            (
                "lanes",
                f"{size(sum(one.total for one in both))} in {1e3 * self.moved_seconds:.3f} ms; closed form "
                f"{1e3 * self.least_seconds:.3f} ms: "
                + " and ".join(
                    f"{size(one.lane)} over a lane of {size(rates.lane)}/s, {size(one.ddr5)} out of a DDR5 "
                    f"of {size(rates.ddr5)}/s"
                    for one, seconds in zip(both, forms, strict=True)
                    if seconds
                ),
            ),
            ("users", f"of A {'go on with' if body.keeps else 'lose'} their KV ({size(held)} kept for it)"),
            ("energy", f"{band_text(self.joules())} J over lanes and into SRAM, low / mid / high (modelled)"),
            ("numbers", confidence_line(manifest.sources)),
            ("digest", manifest.digest),
        ]

    def _side(self, name: str, of: Program) -> str:
        manifest = of.manifest
        chips = len({chip for group in manifest.groups for chip in group})
        weights = int(manifest.region_table()[:, 2, 1].sum()) * WORD_BYTES
        step = manifest.cycles[manifest.longest]
        return (
            f"{name}: {manifest.model.name}, tp {manifest.tp}, {chips} chips, weights {size(weights)}, "
            f"a step of {step:,} cycles at context {manifest.longest}"
        )

    def __str__(self) -> str:
        return fact_lines(self.facts)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        manifest, clock = self.program.manifest, self.program.manifest.clock_hz
        rates = self.body.reservoir
        return {
            "schema": "lpu-switch/1",
            "kind": EXACT,
            "label": label_of(manifest.chip.name),
            "rack": manifest.rack,
            "program_sha256": manifest.digest,
            "before_sha256": self.body.before,
            "after_sha256": self.body.after,
            "clock_hz": clock,
            "stages": as_json(self.stages(), clock),
            "silent_seconds": self.silent_cycles / clock,
            "moved_seconds": self.moved_seconds,
            "closed_form_seconds": self.least_seconds,
            "phases": [
                {
                    "bytes": one.total,
                    "lane_bytes_max": one.lane,
                    "ddr5_bytes_max": one.ddr5,
                    "chips": one.chips,
                    "cycles": one.cycles,
                    "closed_form_seconds": float(one.seconds(rates.lane, rates.ddr5)),
                }
                for one in self.phases()
            ],
            "lane_bytes_per_second": rates.lane,
            "ddr5_bytes_per_second": rates.ddr5,
            "energy_joules": self.joules().to_json(),
        }
