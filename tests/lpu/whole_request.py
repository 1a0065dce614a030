"""A mode from outside: the LPUs alone take the prompt token by token and decode. For `lpu --extend`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from compiler.options import Option
from compiler.program.program import Program
from lpu.afd.bits import users_of
from lpu.afd.mode import Mode
from lpu.afd.question import Question, Timed
from lpu.afd.registry import register
from lpu.afd.report import Figure
from lpu.afd.trace import of_parts
from lpu.afd.turn import Turn
from lpu.decode.conversation import Conversation, reference
from lpu.gpu.units import Part, cycles_ps
from lpu.report.words import EXACT


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(Mode):
    """All of a request on the LPUs."""

    name: ClassVar[str] = "whole"
    layer: ClassVar[str] = "a step"

    patience: Annotated[int, Option("--patience", "steps before the first one.", least=0)] = 5

    def time(self, asked: Question) -> Timed:
        """Every token is a step of the longest bucket."""
        program = asked.compiled(asked.model)
        cycles = max(program.manifest.cycles.values())
        step = Part(name="step", picoseconds=cycles_ps(cycles, program.manifest.clock_hz), basis=EXACT)
        waits = Part(name="wait", picoseconds=self.patience * step.picoseconds, basis="assumed")
        turns = [
            Turn(
                number=number,
                first=(waits, *[step] * asked.request.brings(number)),
                step=(step,),
                tokens=asked.request.new_tokens,
                reused=asked.request.before(number),
            )
            for number in range(asked.request.turns)
        ]
        return Timed(
            program=program,
            gpus=asked.shares()[0],
            rows=asked.request.batch,
            turns=tuple(turns),
            layer=(step,),
            figures=(Figure(name="patience", value=self.patience, unit="steps", basis="assumed"),),
            events=tuple(of_parts((waits, step), "LPUs", "decode")),
        )

    def converse(self, asked: Question, program: Program, moves: Mapping[str, Program]) -> Conversation:
        """What the model says, without a machine."""
        return reference(asked.model, users_of(asked.request, asked.model), asked.request.new_tokens)
