"""Mode afd: attention on the GPUs, FFN hops on the LPUs, micro-batches in ping-pong."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from compiler.errors import OptionError
from compiler.options import SPLITS, Option
from lpu.afd.mode import Mode
from lpu.afd.options import FfnDown, FfnUp, LpuLayers

if TYPE_CHECKING:
    from compiler.program.program import Program
    from lpu.afd.beside import ServedMode
    from lpu.afd.conversations.afd import DividedSteps
    from lpu.afd.question import Question, Timed
    from lpu.afd.times.afd import How, SlotRule
    from lpu.decode.conversation import Conversation
    from lpu.gpu.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Afd(Mode):
    """Attention on the GPUs, FFNs on the LPUs."""

    name: ClassVar[str] = "afd"
    layer: ClassVar[str] = "a layer of a micro-batch"

    micro_batches: Annotated[
        int | None,
        Option("--micro-batches", "1 to 4, in ping-pong.", shown="2 if the batch is even, else 1"),
    ] = None
    target_ms: Annotated[float | None, Option("--target-ms", "ms a token, to warn of the dead zone.")] = None
    split: Annotated[
        str, Option("--split", "the LPUs' share by role (FFNs) or by intensity.", choices=SPLITS)
    ] = "role"
    threshold: Annotated[
        float | None, Option("--threshold", "FLOP per byte from which on the LPUs do it.")
    ] = None
    ffn_down: FfnDown = None
    ffn_up: FfnUp = None
    lpu_layers: LpuLayers = None
    gpu_jitter: Annotated[float, Option("--gpu-jitter", "of GPU times, deviation over mean.")] = 0.0
    miss_probability: Annotated[float, Option("--miss-probability", "how often a hop may miss its slot.")] = (
        0.001
    )
    jitter_seed: Annotated[int, Option("--jitter-seed", "of the jitter.", least=0)] = 0

    def rule(self) -> "SlotRule":
        """How slots are chosen. Raises StageError for numbers that there cannot be."""
        from lpu.afd.times.afd import SlotRule

        return SlotRule(jitter=self.gpu_jitter, target=self.miss_probability, seed=self.jitter_seed)

    def how(self) -> "How":
        """What is on which side."""
        from lpu.afd.times.afd import How

        return How(
            micro_batches=self.micro_batches,
            split=self.split,
            threshold=self.threshold,
            layers=self.lpu_layers,
        )

    def check(self, request: "Request", *, run: bool) -> None:
        """Raise OptionError or StageError for options that are wrong, or do not go together."""
        if self.split not in SPLITS:
            raise OptionError(
                "options", "--split", f"is {self.split!r}", f"Choose one of {', '.join(SPLITS)}."
            )
        if (self.split == "intensity") != (self.threshold is not None):
            raise OptionError(
                "options",
                f"--split {self.split} with --threshold {self.threshold}",
                "a threshold goes with --split intensity, which needs one",
                "Give both, or neither.",
            )
        self.rule()

    def changes(self) -> dict[str, Any]:
        """How what crosses is rounded: ops of the model itself."""
        return {"ffn_down": self.ffn_down, "ffn_up": self.ffn_up, "divided": True}

    def time(self, asked: "Question") -> "Timed":
        """The hops of the FFNs compiled, and a step of all micro-batches at the length of each turn."""
        from lpu.afd.times.afd import timed

        target = None if self.target_ms is None else round(self.target_ms * 10**9)
        return timed(asked, self.how(), self.rule(), target)

    def converse(
        self, asked: "Question", program: "Program", moves: "Mapping[str, Program]"
    ) -> "Conversation":
        """Activations cross as the messages and answers of hops, in micro-batches of the program's rows."""
        from lpu.afd.bits import users_of
        from lpu.afd.conversations.afd import converse
        from lpu.inputs.model import of_micro_batch

        part = of_micro_batch(asked.model, program.manifest.rows)
        users = users_of(asked.request, asked.model)
        return converse(part, program, users, asked.request.new_tokens, progress=asked.progress)

    def beside(self, asked: "Question") -> "ServedMode":
        """GPUs prefill; every later token takes a step of all micro-batches, at its mean length of KV."""
        from lpu.afd.beside import ServedMode
        from lpu.afd.times.afd import divided
        from lpu.afd.times.hops import pace

        there = divided(asked, self.how())
        rule, batch = self.rule(), asked.request.batch

        def turn(kv: int) -> int:
            found = pace(there.gpus, there.hops, batch, there.micro_batches, kv, rule, 0)
            return int(found.period) + found.missed

        def steps() -> "DividedSteps":
            from lpu.afd.conversations.afd import DividedSteps

            return DividedSteps(asked.model, there.program, batch)

        return ServedMode(
            program=there.program,
            gpus=there.gpus,
            prefill=lambda tokens: there.gpus.prefill(tokens, 0, 1),
            turn=cache(turn),
            steps=steps,
        )
