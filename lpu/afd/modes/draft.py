"""Mode draft: a small model on the LPUs drafts, the GPUs verify all drafts in one step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from compiler.errors import OptionError
from compiler.options import Option
from lpu.afd.mode import Mode

if TYPE_CHECKING:
    from compiler.program.program import Program
    from lpu.afd.beside import ServedMode
    from lpu.afd.conversations.draft import DraftedSteps
    from lpu.afd.question import Question, Timed
    from lpu.afd.times.draft import Drafting
    from lpu.decode.conversation import Conversation
    from lpu.gpu.request import Request
    from lpu.inputs.model import OpenModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft(Mode):
    """A small model on the LPUs, the model itself on the GPUs. drafter: whatever `open_model` opens."""

    name: ClassVar[str] = "draft"
    layer: ClassVar[str] = "a round"

    drafter: Annotated[Any, Option("--drafter", "the small model.")] = None
    drafts: Annotated[int, Option("--drafts", "tokens proposed a round.")] = 4
    acceptance: Annotated[float, Option("--acceptance", "assumed chance that a draft is right.")] = 0.7

    def drafting(self) -> "Drafting":
        """What a round is. Raises OptionError for numbers that there cannot be."""
        from lpu.afd.times.draft import Drafting

        return Drafting(drafts=self.drafts, acceptance=self.acceptance)

    def words(self) -> str:
        """With the small model, and what is assumed of it."""
        return f"draft by {self.drafter}, {self.drafts} a round, acceptance {self.acceptance:g} (assumed)"

    def check(self, request: "Request", *, run: bool) -> None:
        """Raise OptionError for options that are wrong, or if there is no drafter."""
        self.drafting()
        if self.drafter is None:
            reason = "needs a small model"
            raise OptionError("options", "--mode draft", reason, "Give one with --drafter.")

    def others(self) -> dict[str, Any]:
        """The small model."""
        return {"drafter": self.drafter}

    def time(self, asked: "Question") -> "Timed":
        """Rounds of drafts and one step that verifies. Raises OptionError for another vocabulary."""
        from lpu.afd.times.draft import timed

        return timed(asked, self._small(asked), self.drafting())

    def _small(self, asked: "Question") -> "OpenModel":
        """The small model. Raises OptionError for another vocabulary."""
        small: OpenModel = asked.others["drafter"]
        model = asked.model
        if small.vocab != model.vocab:
            raise OptionError(
                "options",
                f"--drafter {small.name}",
                f"has a vocabulary of {small.vocab} tokens, {model.name} one of {model.vocab}",
                "Give two models of one tokenizer.",
            )
        return small

    def converse(
        self, asked: "Question", program: "Program", moves: "Mapping[str, Program]"
    ) -> "Conversation":
        """The small model's program drafts, the GPUs verify: only token ids cross."""
        from lpu.afd.bits import users_of
        from lpu.afd.conversations.draft import converse

        model, tokens = asked.model, asked.request.new_tokens
        about = asked.others["drafter"], program, users_of(asked.request, model)
        return converse(model, *about, tokens, self.drafts, progress=asked.progress)

    def beside(self, asked: "Question") -> "ServedMode":
        """GPUs prefill while the drafter takes the prompt; then rounds, each of one token or more."""
        from lpu.afd.beside import ServedMode
        from lpu.afd.machines import best
        from lpu.afd.times.draft import prompt_ps, round_ps

        small, drafting, batch = self._small(asked), self.drafting(), asked.request.batch
        length, rows = asked.request.middle(0), self.drafts + 1
        gpus = best(asked.shares(), asked.request, lambda one: one.verify(batch, rows, length))
        program = asked.compiled(small)

        def steps() -> "DraftedSteps":
            from lpu.afd.conversations.draft import DraftedSteps

            return DraftedSteps(asked.model, small, program, self.drafts)

        def one(kv: int) -> int:
            return round_ps(batch, gpus, program, drafting, kv)

        return ServedMode(
            program=program,
            gpus=gpus,
            prefill=lambda tokens: gpus.prefill(tokens, 0, 1),
            prompt=lambda tokens: prompt_ps(program, 0, tokens),
            turn=lambda kv: int(one(kv) / drafting.tokens),
            round=one,
            steps=steps,
        )
