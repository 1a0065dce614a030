"""What a mode is asked, and what it answers in time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.program import Program
from lpu.afd.machines import Machines
from lpu.afd.report import Figure
from lpu.afd.trace import Event
from lpu.afd.turn import Turn
from lpu.check.check import require
from lpu.folder import Progress, check_program, quiet
from lpu.gpu.request import Request
from lpu.gpu.share import GpuShare
from lpu.gpu.units import Part
from lpu.inputs.model import OpenModel
from lpu.pingpong.boundary import SlotReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request to a model on GPUs beside a rack. others: the other models that the mode named.

    check: every program against the rules of the machine.
    """

    model: OpenModel
    request: Request
    machines: Machines
    options: CompileOptions = field(default_factory=CompileOptions)
    check: bool = True
    others: Mapping[str, OpenModel] = field(default_factory=dict[str, OpenModel])
    progress: Progress = quiet

    def shares(self) -> tuple[GpuShare, ...]:
        """The ways to deal the GPUs. Raises OptionError."""
        return self.machines.shares(self.model)

    def compiled(self, model: OpenModel) -> Program:
        """The decode program of a model on the rack, checked. Raises CompileError or HazardError."""
        return self.checked(compile_program(model.source(), self.machines.rack, self.options, self.progress))

    def checked(self, program: Program) -> Program:
        """The program as it is. Raises HazardError if it breaks a rule."""
        if self.check:
            for report in check_program(program, self.progress).values():
                require(report)
        return program


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A request in time. gpus: as they are dealt. rows: sequences that they take at a time.

    layer: the parts of one layer, or of whatever the mode calls so. aside: what else is to be said of the
    model. machine: more of what the LPUs hold. boundary: how the slots were met, where there are slots.
    """

    program: Program
    gpus: GpuShare
    rows: int
    turns: tuple[Turn, ...]
    layer: tuple[Part, ...]
    figures: tuple[Figure, ...]
    events: tuple[Event, ...]
    aside: str = ""
    machine: tuple[tuple[str, str], ...] = ()
    boundary: SlotReport | None = None
    warnings: tuple[str, ...] = ()
