"""What slots for the worst routing cost over those that rows take in the mean."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compiler.analyse.idle import cycles_of, idle_rows
from compiler.program.instructions.experts import ShareKernel, SlotsKernel, slots_needed
from compiler.program.isa import Kernel, Op
from compiler.program.program import Program
from lpu.report.words import EXACT
from lpu.routing.popularity import UNIFORM, Popularity
from lpu.routing.replicas import copies, most_over_mean
from lpu.screen import plain

DERIVED = "derived: blocks scheduled anew without their idle slots"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTable:
    """Slots for `count` experts from `first` on. needed: for any routing; mean: taken on average."""

    first: int
    count: int
    slots: int
    needed: int
    mean: float

    @property
    def slots_in_words(self) -> str:
        """How many slots there are, and how many any routing needs where that is more."""
        return f"{self.slots} slots" if self.slots >= self.needed else f"{self.slots} of {self.needed} slots"

    @property
    def taken(self) -> int:
        """The mean as a whole number of slots."""
        return min(self.slots, max(1, int(self.mean + 0.5)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """Were experts whole on `chips` chips: rows of the most loaded over the mean, and with `copies`."""

    chips: int
    experts: int
    most: float
    copies: int
    most_with_copies: float

    def __str__(self) -> str:
        return (
            f"of {self.experts} experts whole on {self.chips} chips the most loaded has {self.most:.2f} x the"
            f" mean, {self.most_with_copies:.2f} x with {self.copies} copies (EPLB); in slices all have it"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingCost:
    """Slots and what they cost. cycles: of a step by context; mean_cycles: without slots idle in the mean.

    whole: what copies of experts would be for, where popularity is uneven.
    """

    popularity: Popularity
    rows: int
    tables: tuple[SlotTable, ...]
    cycles: dict[int, int]
    mean_cycles: dict[int, int]
    whole: Whole | None = None

    @property
    def kind(self) -> str:
        """Of what kind the cost is: exact where every step takes every slot."""
        return EXACT if all(one.taken == one.slots for one in self.tables) else DERIVED

    def __str__(self) -> str:
        what = [f"{one.slots_in_words} for {one.count} experts, {one.mean:.1f} wanted" for one in self.tables]
        several = dict.fromkeys(what)
        tables = "; ".join(f"{what.count(one)} x {one}" if what.count(one) > 1 else one for one in several)
        lines = [
            f"routing     {tables} in the mean of {self.rows} row{'s' * (self.rows > 1)} "
            f"({plain(self.popularity.name, 60)}, {self.popularity.kind})"
        ]
        for context, cycles in self.cycles.items():
            mean = self.mean_cycles[context]
            lines.append(
                f"            the worst routing costs {cycles - mean:,} cycles, {cycles / mean:.2f} x the "
                f"mean routing's {mean:,}, at context {context} ({self.kind})"
            )
        return "\n".join([*lines, *([f"            {self.whole}"] if self.whole else [])])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "popularity": self.popularity.name,
            "popularity_kind": self.popularity.kind,
            "kind": self.kind,
            "rows": self.rows,
            "tables": [
                {
                    "first_expert": one.first,
                    "experts": one.count,
                    "slots": one.slots,
                    "slots_for_any_routing": one.needed,
                    "slots_taken_mean": one.mean,
                }
                for one in self.tables
            ],
            "contexts": [
                {
                    "context": context,
                    "latency_cycles": cycles,
                    "mean_routing_cycles": self.mean_cycles[context],
                    "worst_case_cycles": cycles - self.mean_cycles[context],
                    "worst_over_mean": cycles / self.mean_cycles[context],
                }
                for context, cycles in self.cycles.items()
            ],
            "whole_experts": self.whole and asdict(self.whole),
        }


def routing(program: Program, popularity: Popularity = UNIFORM) -> RoutingCost | None:
    """What slots cost in a program that runs one step at a time; None for any other, or without experts.

    Raises FileError for counts that are of other experts.
    """
    manifest = program.manifest
    kernels = [one for one in manifest.kernels if isinstance(one, SlotsKernel)]
    if manifest.kind != "step" or not kernels:
        return None
    tables = {one: _table(one, manifest.kernels, manifest.rows, popularity) for one in kernels}
    taken = {one: table.taken for one, table in tables.items()}
    idle = any(table.taken < table.slots for table in tables.values())
    routed = kernels[0].experts - _shared(kernels[0], manifest.kernels)
    load = popularity.taken(routed, kernels[0].chosen - _shared(kernels[0], manifest.kernels))
    return RoutingCost(
        popularity=popularity,
        rows=manifest.rows,
        tables=tuple(tables.values()),
        cycles=dict(manifest.cycles),
        mean_cycles={
            context: cycles - (_idle(program, context, taken) if idle else 0)
            for context, cycles in manifest.cycles.items()
        },
        whole=_whole(load.tolist(), manifest.tp) if popularity != UNIFORM else None,
    )


def _whole(load: list[float], chips: int) -> Whole | None:
    """Experts in order on the chips of a group, and with a copy more on each; None if they do not divide."""
    experts = len(load)
    if experts % chips or chips == 1:
        return None
    placed = copies(load, experts + chips, 1, 1, chips)
    return Whole(
        chips=chips,
        experts=experts,
        most=most_over_mean(load, np.arange(experts), chips),
        copies=chips,
        most_with_copies=most_over_mean(load, placed, chips),
    )


def _shared(kernel: SlotsKernel, kernels: Sequence[Kernel]) -> int:
    """How many of a router's experts every row takes."""
    found = [one for one in kernels if isinstance(one, ShareKernel)]
    return max(
        (one.shared for one in found if one.experts - one.gated + one.shared == kernel.experts), default=0
    )


def _table(kernel: SlotsKernel, kernels: Sequence[Kernel], rows: int, popularity: Popularity) -> SlotTable:
    """What a table takes of experts that are routed, and of those that every row takes."""
    shared = _shared(kernel, kernels)
    routed = kernel.experts - shared
    each = 1 - (1 - popularity.taken(routed, kernel.chosen - shared)) ** rows
    end = kernel.first + kernel.held
    mean = float(each[kernel.first : end].sum()) + max(end - max(kernel.first, routed), 0)
    needed = slots_needed(kernel, rows)
    return SlotTable(first=kernel.first, count=kernel.held, slots=kernel.slots, needed=needed, mean=mean)


def _idle(program: Program, context: int, taken: dict[SlotsKernel, int]) -> int:
    """Cycles of a step that its idle slots take."""
    first = {call.block: call for call in reversed(program.calls)}
    uses = np.bincount([call.block for call in program.calls], minlength=len(program.blocks)).tolist()
    total = 0
    for block, call in sorted(first.items()):
        if not (program.blocks[block].columns[context].op == Op.SLOTS).any():
            continue
        columns = program.expand_call(call, context)
        keep = ~idle_rows(columns, program.manifest, taken)
        less = cycles_of(columns, program.manifest, call.tag, keep)
        total += uses[block] * max(program.blocks[block].cycles[context] - less, 0)
    return total
