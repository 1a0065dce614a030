"""What speculative machines change for one model: each compiled and checked as lpx is, or refused by name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compiler.analyse.bounds import bounds
from compiler.errors import CompileError, OptionError
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.isa import WORD_BYTES, is_transfer
from compiler.program.program import Program
from fabric.rack import Rack, load_rack
from lpu.afd.ask import afd
from lpu.afd.modes.afd import Afd
from lpu.afd.options import Gpus
from lpu.check.check import require
from lpu.energy.energy import step_energy
from lpu.energy.prices import prices
from lpu.energy.spread import Spread, total
from lpu.folder import Progress, check_program, quiet
from lpu.future.machines import OPTICS_PJ_PER_BIT, FutureMachine
from lpu.gpu.request import Request
from lpu.gpu.units import PS_PER_SECOND
from lpu.inputs.document import FileError
from lpu.inputs.model import OpenModel
from lpu.report.words import CAUTION_FACTOR, EXACT, PROJECTION, caution_of
from lpu.screen import OnScreen

TODAY, BRIDGE = "lpx", "spectrum-x"
GPUS = Gpus(gpu="r100", gpus=8, gemm="nvfp4")
SPECULATIVE = "speculative"
HEADERS = ("machine", "rack", "tp", "groups", "cycles", "a token", "of lpx", "bound", "of it", "links, J")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnMachine:
    """A model on one machine; `machine` None is lpx as it is. error: why it has no program, then no more.

    seconds: of a step. before: of the same step on lpx. cycles: 0 where GPUs take part. links: joules of a
    token that links take. With a bridge both are of mode afd, with 8 GPUs r100.
    """

    machine: FutureMachine | None
    rack: str
    error: str = ""
    tp: int = 0
    groups: int = 0
    cycles: int = 0
    seconds: float = 0.0
    before: float = 0.0
    bound: str = ""
    bound_cycles: int = 0
    links: Spread | None = None

    @property
    def name(self) -> str:
        """Of the machine."""
        return self.machine.name if self.machine else TODAY

    @property
    def against(self) -> str:
        """What `before` is of."""
        return f"{TODAY}, {BRIDGE}" if self.machine and self.machine.bridge else TODAY

    @property
    def kind(self) -> str:
        """How its time is known."""
        known = EXACT if self.cycles else "modelled"
        return f"{SPECULATIVE}, {known}" if self.machine else f"projection, {known}"

    def row(self) -> list[str]:
        """Its cells under HEADERS."""
        name = f"{self.name} *" if self.machine else self.name
        if self.error:
            return [name, self.rack, *["-"] * (len(HEADERS) - 2)]
        joules = self.links
        return [
            name,
            self.rack + (f", {self.machine.bridge}" if self.machine and self.machine.bridge else ""),
            str(self.tp or "-"),
            str(self.groups or "-"),
            f"{self.cycles:,}" if self.cycles else "-",
            f"{self.seconds * 1e6:,.2f} us",
            f"{self.seconds / self.before:.3f}",
            self.bound or "-",
            f"{self.cycles / self.bound_cycles:.2f}" if self.bound_cycles else "-",
            f"{joules.low:.2g} / {joules.mid:.2g} / {joules.high:.2g}" if joules else "-",
        ]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        out: dict[str, Any] = {"machine": self.name, "rack": self.rack, "error": self.error or None}
        if self.machine:
            out |= {
                "changes": self.machine.changes,
                "source": self.machine.source,
                "refuses": self.machine.refuses,
            }
        if self.error:
            return out
        return out | {
            "kind": self.kind,
            "tp": self.tp,
            "groups": self.groups,
            "cycles": self.cycles or None,
            "seconds": self.seconds,
            "of_lpx": self.seconds / self.before,
            "against": self.against,
            "largest_bound": self.bound or None,
            "bound_cycles": self.bound_cycles or None,
            "link_joules_per_token": self.links.to_json() if self.links else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FutureStudy(OnScreen):
    """lpx first, then every machine."""

    model: str
    context: int
    batch: int
    points: tuple[OnMachine, ...]

    def rows(self) -> list[list[str]]:
        """Cells under HEADERS."""
        return [one.row() for one in self.points]

    def notes(self) -> list[str]:
        """What each changes, what of it is refused, and why it has no program."""
        lines: list[str] = []
        for one in self.points:
            if one.machine:
                lines += [f"{one.name:<12}{one.machine.changes}"]
                lines += [f"  refused   {what}" for what in one.machine.refuses]
            lines += [f"  failed    {one.error}"] if one.error else []
        return [*lines, f"caution     {caution_of(PROJECTION)}"]

    def __str__(self) -> str:
        return "\n".join(["  ".join(row) for row in self.rows()] + self.notes())

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "schema": "lpu-sweep-machines/1",
            "caution_factor": CAUTION_FACTOR,
            "model": self.model,
            "context": self.context,
            "batch": self.batch,
            "points": [one.to_json() for one in self.points],
        }


def study(
    opened: OpenModel, wanted: Sequence[FutureMachine], options: CompileOptions, progress: Progress = quiet
) -> FutureStudy:
    """A model on lpx and on every machine. Raises CompileError where lpx itself has no program for it."""
    progress("sweep lpx", 0, len(wanted) + 1)
    today = _compiled(opened, load_rack(TODAY), options, None)
    points: list[OnMachine] = []
    for i, one in enumerate(wanted, 1):
        progress(f"sweep {one.name}", i, len(wanted) + 1)
        try:
            if one.bridge is not None:
                points.append(_bridged(opened, one, one.bridge))
            else:
                points.append(_compiled(opened, load_rack(one.rack), options, one, today.seconds))
        except (CompileError, OptionError, FileError) as error:
            points.append(OnMachine(machine=one, rack=one.rack, error=str(error)))
    return FutureStudy(
        model=opened.name, context=max(opened.contexts), batch=opened.step.batch, points=(today, *points)
    )


def _compiled(
    opened: OpenModel, rack: Rack, options: CompileOptions, one: FutureMachine | None, before: float = 0.0
) -> OnMachine:
    program = compile_program(opened.source(), rack, options)
    for report in check_program(program).values():
        require(report)
    manifest, context = program.manifest, max(opened.contexts)
    cycles = manifest.cycles[context]
    largest = max(bounds(program, context), key=lambda bound: bound.cycles)
    seconds = cycles / manifest.clock_hz
    return OnMachine(
        machine=one,
        rack=rack.name,
        tp=manifest.tp,
        groups=len(manifest.groups),
        cycles=cycles,
        seconds=seconds,
        before=before or seconds,
        bound=largest.name,
        bound_cycles=largest.cycles,
        links=link_joules(program, rack, context, one.optical if one else ()),
    )


def link_joules(program: Program, rack: Rack, context: int, optical: Sequence[str] = ()) -> Spread:
    """Joules of a token that bits over links take, those of optical levels at the price of light."""
    (term,) = (one for one in step_energy(program, context).terms if one.name == "links")
    columns, manifest = program.expand(context), program.manifest
    moved = np.flatnonzero(is_transfer(columns.op))
    levels = rack.links.level[rack.links.index[columns.chip[moved], columns.peer[moved]]]
    names = [level.name for level in rack.levels]
    crossed = np.bincount(levels, columns.n[moved] * manifest.rows * WORD_BYTES, len(names))
    light, copper = Spread(*OPTICS_PJ_PER_BIT), prices()[term.price]
    every = [
        (light if name in optical else copper).times(8e-12 * size)
        for name, size in zip(names, crossed.tolist(), strict=True)
    ]
    return total(every).times(1 / manifest.rows)


def _bridged(opened: OpenModel, one: FutureMachine, bridge: str) -> OnMachine:
    """A token in mode afd over this bridge, and over today's."""
    took = [_afd_seconds(opened, name) for name in (BRIDGE, bridge)]
    return OnMachine(machine=one, rack=one.rack, seconds=took[1], before=took[0])


def _afd_seconds(opened: OpenModel, bridge: str) -> float:
    """Seconds a token with attention on GPUS and FFNs on the rack."""
    request = Request(prompt_tokens=max(opened.contexts) - 1, new_tokens=1, batch=opened.step.batch)
    asked = opened.file.model if opened.file else opened.name
    report = afd(asked, request, mode=Afd(), gpus=replace(GPUS, bridge=bridge), rack=TODAY)
    return report.turns[-1].tpot / PS_PER_SECOND
