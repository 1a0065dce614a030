"""What a remap gives: the program, how it was found, what moves, when it serves, who loses what."""

from dataclasses import asdict, dataclass
from typing import Any

from compiler.errors import CapacityError
from compiler.program.program import Program
from fabric.rack import Rack
from lpu.compiled import Compiled
from lpu.inputs.model import OpenModel
from lpu.remap.ladder import Rung
from lpu.remap.moves import RemapMoves
from lpu.remap.options import WAYS, Way
from lpu.remap.stages import LostUsers, RemapStage, as_json, stage_line
from lpu.report.program import Facts, program_body, program_facts
from lpu.report.throughput import Throughput
from lpu.report.throughput import of as throughput_of
from lpu.report.words import EXACT, kind, label_of, size
from lpu.screen import OnScreen, fact_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A way that was compiled: the cycles of its step and the bytes that move, or why it cannot be."""

    way: Way
    cycles: int | None = None
    moved_bytes: int = 0
    error: CapacityError | None = None

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.way}: {' '.join(str(self.error).split())}"
        return f"{self.way}: {self.cycles:,} cycles, {size(self.moved_bytes)} move"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Remapped(OnScreen):
    """A program for the same model on what is left of the parent's rack. rung: what had to be given up."""

    parent: Program
    model: OpenModel
    program: Program
    prefill: Program | None
    rack: Rack
    way: Way
    tried: tuple[Tried, ...]
    rung: Rung | None
    moves: RemapMoves
    stages: tuple[RemapStage, ...]
    users: LostUsers

    def compiled(self) -> Compiled:
        """As `compile` gives it."""
        return Compiled(program=self.program, model=self.model, rack=self.rack, prefill=self.prefill)

    @property
    def cycles(self) -> int:
        """From the fault to the first token again, without taking lost prompts again."""
        return sum(one.cycles for one in self.stages)

    @property
    def delta_cycles(self) -> int:
        """How much longer a step of the longest context of both is than before."""
        before, after = self.parent.manifest, self.program.manifest
        return after.cycles[after.longest] - before.cycles[before.longest]

    @property
    def facts(self) -> Facts:
        """The program, then what the remap comes to."""
        clock, before, after = self.rack.chip.clock_hz, self.parent.manifest, self.program.manifest
        rates = [throughput_of(one, one.manifest.longest) for one in (self.parent, self.program)]
        chips = self.moves.by_chip()
        moved = {name: self.moves.bytes_from(name) for name in ("DDR5", "host", "link", "SRAM")}
        words = [f"{size(count)} from {name}" for name, count in moved.items() if count]
        rows = [*program_facts(self.program), ("way", f"{self.way}: {WAYS[self.way]}")]
        rows += [("tried", str(one)) for one in self.tried]
        if self.rung is not None:
            rows.append(("given up", f"{self.rung.name}: {self.rung.what}"))
            rows += [("in vain", one) for one in self.rung.refused]
        rows += [
            (
                "moves",
                f"{', '.join(words) or 'nothing'}, into {len(chips)} chips; "
                f"{size(self.moves.kept_bytes)} stay",
            ),
            *(("stage", stage_line(one, clock)) for one in self.stages),
            (
                "serving",
                f"again after {1e3 * self.cycles / clock:.3f} ms: all stages, the host has the program",
            ),
            (
                "step",
                f"{before.cycles[before.longest]:,} cycles at context {before.longest} before, "
                f"{after.cycles[after.longest]:,} at {after.longest} now: {self.delta_cycles:+,} "
                f"({kind(after.chip.name)})",
            ),
            ("tokens/s", f"{_rate(rates[0])} before, {_rate(rates[1])} now"),
            ("users", self._users(clock)),
        ]
        return rows

    def _users(self, clock: int) -> str:
        """Who loses KV, and the two ways to have it back."""
        lost = self.users
        if not lost.users:
            return f"none of {lost.all_users} loses KV"
        return (
            f"{lost.users} of {lost.all_users} lose KV ({size(self.moves.lost_bytes)}): each prefills again, "
            f"{lost.prefill_tokens:,} tokens of a full context in {1e3 * lost.prefill_cycles / clock:.3f} ms "
            f"({EXACT}); with parity kept, {size(lost.parity_words * 320)} more on each chip, "
            f"{1e3 * lost.parity_cycles / clock:.3f} ms (modelled, not kept)"
        )

    def __str__(self) -> str:
        return fact_lines(self.facts)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        clock = self.rack.chip.clock_hz
        before, after = self.parent.manifest, self.program.manifest
        return {
            "schema": "lpu-remap/1",
            **program_body(self.program),
            "label": label_of(after.chip.name),
            "parent_sha256": before.digest,
            "way": self.way,
            "tried": [
                {
                    "way": one.way,
                    "cycles": one.cycles,
                    "moved_bytes": one.moved_bytes,
                    "error": None if one.error is None else str(one.error),
                }
                for one in self.tried
            ],
            "given_up": None if self.rung is None else asdict(self.rung),
            "moves": self.moves.to_json(),
            "stages": as_json(self.stages, clock),
            "serving_again_seconds": self.cycles / clock,
            "latency_cycles_before": before.cycles[before.longest],
            "latency_cycles_now": after.cycles[after.longest],
            "delta_cycles": self.delta_cycles,
            "throughput_before": throughput_of(self.parent, before.longest).to_json(),
            "throughput_now": throughput_of(self.program, after.longest).to_json(),
            "users": asdict(self.users) | {"prefill_seconds": self.users.prefill_cycles / clock},
            "lost_kv": list(self.moves.lost),
        }


def _rate(one: Throughput) -> str:
    return f"{one.tokens_per_second:,.1f} ({one.users * one.batch} users)"
