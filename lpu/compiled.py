"""What `compile` gives, and what stands for a program where one is asked for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compiler.program.program import Program
from fabric.rack import Rack
from lpu.check.check import Report
from lpu.figures.drawing import Drawing
from lpu.figures.schedule import schedule_figure
from lpu.figures.shown import Shown
from lpu.folder import load_prefill, load_program
from lpu.inputs.model import OpenModel
from lpu.prove.programs import NOT_ASKED, Proof, proof_line
from lpu.report.program import prefill_facts, program_facts
from lpu.screen import fact_lines


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Compiled(Shown):
    """A program, and the model and rack that it was compiled from. `reports`: of its check, if any.

    prefill, prefill_reports: the same of the program that takes a chunk of a prompt, if there is one. proof:
    of both programs, or why it was left out.
    """

    program: Program
    model: OpenModel
    rack: Rack
    reports: dict[int, Report] = field(default_factory=dict[int, Report])
    prefill: Program | None = None
    prefill_reports: dict[int, Report] = field(default_factory=dict[int, Report])
    proof: Proof | str = ""

    def __str__(self) -> str:
        facts = program_facts(self.program) + (prefill_facts(self.prefill) if self.prefill else [])
        checks = [f"{report} (context {bucket})" for bucket, report in self.reports.items()]
        checks += [f"{report} (prefill, context {bucket})" for bucket, report in self.prefill_reports.items()]
        return "\n".join(
            [fact_lines(facts), *(checks or ["not checked"]), proof_line(self.proof or NOT_ASKED)]
        )

    def drawing(self) -> Drawing:
        """The schedule of the longest context bucket, block by block."""
        return schedule_figure(self.program, self.program.manifest.longest)

    def records(self) -> list[dict[str, Any]]:
        """A line for each call of each context bucket."""
        return [
            {
                "context": context,
                "call": call.name,
                "chips": call.chips,
                "first_cycle": call.base[context],
                "cycles": block.cycles[context],
                "rows": len(block.columns[context]),
            }
            for context in self.program.manifest.contexts
            for call in self.program.calls
            for block in (self.program.blocks[call.block],)
        ]


ProgramLike = Program | Compiled | str | Path
"""A program, what `compile` gives, or a folder that `save_program` or `lpu compile -o` wrote."""


def programs_of(source: ProgramLike) -> tuple[Program, Program | None]:
    """The program, and its prefill program if it has one. Raises ProgramError or FileError of a folder."""
    if isinstance(source, Compiled):
        return source.program, source.prefill
    if isinstance(source, Program):
        return source, None
    loaded = load_program(source)
    return loaded, load_prefill(source, loaded)
