"""`spares`: policies of spare chips, trays and racks held against each other for one model and rack."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from compiler.errors import CompileError
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.program import Program
from compiler.source import Traced, traced
from fabric.faults.broken import break_rack, trays
from fabric.faults.fault import Fault
from fabric.numbering import Numbering, in_order, numbering
from fabric.rack import Damage, Rack
from lpu.check.check import require
from lpu.folder import Progress, check_program, quiet
from lpu.inputs.document import FileError
from lpu.inputs.files import read_rack
from lpu.inputs.model import OpenModel
from lpu.inputs.open import Model, open_model
from lpu.keywords import Keywords, chosen
from lpu.remap.moves import MemoryBefore, moves_between
from lpu.remap.stages import remap_stages
from lpu.report.throughput import of as throughput_of
from lpu.report.words import kind, label_of, size
from lpu.screen import OnScreen
from lpu.spares.availability import (
    POLICIES,
    SWEEP_FIT,
    FailureRates,
    Policy,
    RackParts,
    failures_per_year,
    serving_share,
)

YEAR_SECONDS = 365 * 24 * 3600
HEADERS = (
    "spares",
    "capacity lost",
    "step us",
    "with a fault",
    "moves",
    "into chips",
    "again after ms",
    "serving",
    "tokens lost a year",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparePoint:
    """One policy. capacity_lost: share of the chips that idle. cycles: of a step, faulty: with one dead chip.

    moved_bytes, reach: what a remap moves and into how many chips. serving: share of time, by closed form,
    less what remaps take; by_fit: the same for the chip rates of SWEEP_FIT. error: why it does not fit.
    """

    policy: Policy
    chips: int
    capacity_lost: float
    cycles: int = 0
    faulty_cycles: int | None = None
    moved_bytes: int = 0
    reach: int = 0
    again_seconds: float = 0.0
    serving: float = 0.0
    by_fit: tuple[float, ...] = ()
    tokens_per_second: float = 0.0
    error: str = ""

    @property
    def tokens_lost(self) -> float:
        """Tokens of a year that are not served."""
        return (1 - self.serving) * self.tokens_per_second * YEAR_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Spares(OnScreen):
    """The policies for one model and rack, and the rates that they are judged by."""

    model: str
    rack: str
    chip: str
    clock_hz: int
    rates: FailureRates
    parts: RackParts
    points: tuple[SparePoint, ...]

    def rows(self) -> list[list[str]]:
        """A line for each policy, as HEADERS names it."""
        out: list[list[str]] = []
        for one in self.points:
            if one.error:
                out.append([one.policy, f"{100 * one.capacity_lost:.2f} %", one.error, *[""] * 6])
                continue
            faulty = one.faulty_cycles
            out.append(
                [
                    one.policy,
                    f"{100 * one.capacity_lost:.2f} %",
                    f"{1e6 * one.cycles / self.clock_hz:.2f}",
                    "stops" if faulty is None else f"{1e6 * faulty / self.clock_hz:.2f}",
                    size(one.moved_bytes),
                    str(one.reach),
                    f"{1e3 * one.again_seconds:.2f}",
                    f"{100 * one.serving:.4f} %",
                    f"{one.tokens_lost:,.0f}",
                ]
            )
        return out

    def ends(self) -> str:
        """What the table rests on."""
        fits = ", ".join(f"{fit:,}" for fit in SWEEP_FIT)
        lines = [
            f"{one.policy:<6} serving at {fits} FIT a chip: "
            + ", ".join(f"{100 * share:.3f} %" for share in one.by_fit)
            for one in self.points
            if not one.error
        ]
        rates = self.rates
        return "\n".join(
            [
                *lines,
                f"kinds: steps, moves {kind(self.chip)}; serving in closed form of assumed rates: chip "
                f"{rates.chip_fit:g}, cable {rates.link_fit:g}, tray {rates.tray_fit:g} FIT, repair "
                f"{rates.repair_hours:g} h; the model is taken to fill what is not spare",
            ]
        )

    def __str__(self) -> str:
        return "\n".join(["  ".join(row) for row in [list(HEADERS), *self.rows()]] + [self.ends()])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "lpu-spares/1",
            "model": self.model,
            "rack": self.rack,
            "label": label_of(self.chip),
            "rates": asdict(self.rates),
            "parts": asdict(self.parts),
            "sweep_chip_fit": list(SWEEP_FIT),
            "policies": [
                asdict(one) | {"tokens_lost_per_year": one.tokens_lost, "what": POLICIES[one.policy]}
                for one in self.points
            ],
        }


def spares(
    model: Model | OpenModel,
    *,
    rack: str | Path | Rack = "lpx",
    rates: FailureRates | None = None,
    options: CompileOptions | None = None,
    progress: Progress = quiet,
    **keywords: Unpack[Keywords],
) -> Spares:
    """Spare policies for a model: capacity, latency without and with a dead chip, share of time, tokens lost.

    Every program is checked. Raises FileError, and CompileError where no policy leaves room.
    """
    settled, about = chosen("spares", options, keywords)
    opened = model if isinstance(model, OpenModel) else open_model(model, **about)
    machine, rates = rack if isinstance(rack, Rack) else read_rack(rack), rates or FailureRates()
    groups = trays(machine)
    if machine.damage is not None or not groups or len({len(group) for group in groups}) > 1:
        raise FileError(f"spares: {machine.name} has no equal trays without faults. Give a rack of levels.")
    parts = RackParts(trays=len(groups), chips_of_tray=len(groups[0]), cables=len(machine.links) // 2)
    asked = _Asked(traced(opened.source()), machine, settled, rates, parts)
    points: list[SparePoint] = []
    for i, policy in enumerate(POLICIES):
        progress("spares", i, len(POLICIES))
        points.append(_point(asked, policy))
    if all(one.error for one in points):
        raise CompileError("spares", opened.name, points[0].error, "Use a larger rack.")
    return Spares(
        model=opened.name,
        rack=machine.name,
        chip=machine.chip.name,
        clock_hz=machine.chip.clock_hz,
        rates=rates,
        parts=parts,
        points=tuple(points),
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    model: Traced
    rack: Rack
    options: CompileOptions
    rates: FailureRates
    parts: RackParts


def _reserved(policy: Policy, rack: Rack) -> dict[int, int]:
    """By each chip in use the spare that takes its place: of its tray, or of the last tray."""
    groups = trays(rack)
    if policy == "chip":
        return {chip: group[-1] for group in groups for chip in group[:-1]}
    if policy == "tray":
        return {chip: spare for group in groups[:-1] for chip, spare in zip(group, groups[-1], strict=True)}
    return {}


def _point(asked: _Asked, policy: Policy) -> SparePoint:
    rack, parts = asked.rack, asked.parts
    spare = _reserved(policy, rack)
    idle = sorted(set(spare.values()))
    order = [chip for chip in numbering(rack).chips.tolist() if chip not in idle]
    lost = 0.5 if policy == "rack" else len(idle) / rack.chips
    bare = SparePoint(policy=policy, chips=len(order), capacity_lost=lost)
    try:
        program = _compiled(asked, _idle(rack, idle), order)
    except CompileError as error:
        return replace(bare, error=" ".join(str(error).split()))
    manifest = program.manifest
    cycles, clock = manifest.cycles[manifest.longest], rack.chip.clock_hz
    rate = throughput_of(program, manifest.longest).tokens_per_second
    faulty = None if policy == "none" else cycles
    moved, reach, again = 0, 0, 0.0
    if spare:
        dead = manifest.groups[0][-1]
        broken = break_rack(rack, [Fault(kind="chip", at=(dead,))])
        together = (
            [dead] if policy == "chip" else [chip for chip in spare if _tray(rack, chip) == _tray(rack, dead)]
        )
        swapped = [spare[chip] if chip in together else chip for chip in order]
        numbers = in_order(broken, swapped)
        child = _compiled(
            asked, broken, swapped, replace(asked.options, tp=manifest.tp, cp=manifest.options.cp)
        )
        moves = moves_between(MemoryBefore.of(program), child, numbers)
        faulty = child.manifest.cycles[child.manifest.longest]
        moved, reach = sum(moves.by_chip().values()), len(moves.by_chip())
        again = sum(one.cycles for one in remap_stages(program, child, moves, broken)) / clock

    def share(rates: FailureRates) -> float:
        down = failures_per_year(parts, rates) * again / YEAR_SECONDS
        return max(serving_share(policy, parts, rates) - down, 0.0)

    return replace(
        bare,
        cycles=cycles,
        faulty_cycles=faulty,
        moved_bytes=moved,
        reach=reach,
        again_seconds=again,
        serving=share(asked.rates),
        by_fit=tuple(share(replace(asked.rates, chip_fit=float(fit))) for fit in SWEEP_FIT),
        tokens_per_second=rate,
    )


def _tray(rack: Rack, chip: int) -> int:
    return next(i for i, group in enumerate(trays(rack)) if chip in group)


def _idle(rack: Rack, idle: Sequence[int]) -> Rack:
    """The rack with chips that nothing is placed on, although they work."""
    if not idle:
        return rack
    return replace(rack, damage=Damage(faults=(), dead=(), cut=(), bad=(), whole=rack, avoided=tuple(idle)))


def _compiled(asked: _Asked, rack: Rack, order: list[int], options: CompileOptions | None = None) -> Program:
    numbers: Numbering | None = None if rack.damage is None else in_order(rack, order)
    made = compile_program(asked.model, rack, options or asked.options, numbers=numbers)
    for report in check_program(made).values():
        require(report)
    return made
