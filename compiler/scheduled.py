"""All blocks of a model scheduled: templates, and the calls of them that make up a step."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from compiler.errors import bug
from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock
from compiler.options import CompileOptions
from compiler.place.assignment import Assignment
from compiler.program.manifest import Candidate
from compiler.schedule.template import Template
from compiler.steps import listed
from fabric.numbering import Numbering


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateCall:
    """One block of the model on its chips (by rank), by the template of that index."""

    block: ModelBlock
    template: int
    chips: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveSchedule:
    """What lets a new wave (a step of other users) enter every `interval` cycles, per context bucket.

    bases: of each call, the cycle of the wave at which it begins. arenas: copies of the transient words by
    chip. bound: no interval of these rows on these chips is shorter; bound_of: the unit or link that sets it.
    """

    bases: list[dict[int, int]]
    arenas: Int[np.ndarray, " chips"]
    cycles: dict[int, int]
    interval: dict[int, int]
    bound: dict[int, int]
    bound_of: dict[int, "Busiest"]

    def named(self, numbers: Numbering) -> "WaveSchedule":
        """The same with the chips by their numbers in the rack's file."""
        arenas = np.ones(numbers.given.chips, np.int64)
        arenas[numbers.chips] = self.arenas
        bound_of = {context: one.named(numbers) for context, one in self.bound_of.items()}
        return replace(self, arenas=arenas, bound_of=bound_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Busiest:
    """What sets the bound of an interval: units of a chip, or its lanes to a peer; -1: none."""

    units: str = "nothing"
    chip: int = -1
    peer: int = -1

    def __str__(self) -> str:
        of = f" of chip {self.chip}" if self.chip >= 0 else ""
        return f"{self.units}{of}" + (f" to chip {self.peer}" if self.peer >= 0 else "")

    def named(self, numbers: Numbering) -> "Busiest":
        """The same with the chips by their numbers in the rack's file."""
        chip, peer = (at if at < 0 else int(numbers.chips[at]) for at in (self.chip, self.peer))
        return replace(self, chip=chip, peer=peer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """All blocks scheduled: templates, the calls of them in order, and the assignment of blocks to chips.

    waves: None if one step runs at a time, each block after the one before it. search: what was tried to find
    its `tp`, if that was left to the compiler.
    """

    assignment: Assignment
    options: CompileOptions
    templates: list[Template]
    calls: list[TemplateCall]
    waves: WaveSchedule | None = None
    search: tuple[Candidate, ...] = ()

    @property
    def plan(self) -> Plan:
        """What all blocks share, their contexts dealt."""
        return self.assignment.plan

    @property
    def cycles(self) -> int:
        """Length of a step of the largest context bucket."""
        context = max(self.plan.contexts)
        return sum(self.templates[call.template].cycles[context] for call in self.calls)

    def named(self, numbers: Numbering) -> "Scheduled":
        """The same with the chips by their numbers in the rack's file, where they were numbered anew."""
        if numbers.rack is numbers.given:
            return self
        return replace(
            self,
            assignment=self.assignment.named(numbers),
            calls=[replace(call, chips=numbers.named(call.chips)) for call in self.calls],
            waves=self.waves and self.waves.named(numbers),
        )

    def __str__(self) -> str:
        context = max(self.plan.contexts)
        head = f"{len(self.templates)} templates, {len(self.calls)} calls of them"
        if self.waves is None:
            head += f"; a step of context {context} takes {self.cycles} cycles"
        else:
            head += f"; a wave of context {context} enters every {self.waves.interval[context]} cycles"
        lines: list[str] = []
        for i, made in enumerate(self.templates):
            of = [call.block.name for call in self.calls if call.template == i]
            rows = len(made.columns[context])
            lines.append(f"{i:3} {of[0]:<24} x{len(of):<3} {rows:7} rows {made.cycles[context]:8} cycles")
        return "\n".join([head, *listed(lines)])

    def verify(self) -> None:
        """Raises CompileError if a row does not run within the cycles of its template."""
        for i, made in enumerate(self.templates):
            for context, rows in made.columns.items():
                if len(rows) and (rows.t0.min() < 0 or rows.t1.max() > made.cycles[context]):
                    reason = f"rows run from cycle {rows.t0.min()} to {rows.t1.max()}"
                    raise bug("schedule", f"template {i}", f"{reason}, it has {made.cycles[context]}")
