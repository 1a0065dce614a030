"""What running a program gave."""

from dataclasses import dataclass
from itertools import pairwise

from compiler.moves.early import rest_cycles
from compiler.program.program import Program
from compiler.program.prompt import prompt_cycles
from lpu.decode.choose import Finish
from lpu.decode.generate import Generation
from lpu.report.words import kind
from lpu.run.clips import Clipped, in_words
from lpu.run.overflow import Dropped
from lpu.run.overflow import in_words as dropped_in_words
from lpu.screen import OnScreen, fact_lines
from models.contract.sampling import GREEDY, Sampling


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Run(OnScreen):
    """What running a program gave. cycles: modelled, of each step in the context bucket that it ran in.

    prefill_buckets: of the chunks that the prefill program took. weights: what it was run with, in words.
    tokenizer: its name; None for a model that has none, then there are no texts.
    finished: why each sequence is over; texts end before their stop text. sampling: how tokens were drawn.
    clipped: what fp16 could not hold, by call and instruction. dropped: the experts that found no slot.
    """

    program: Program
    generation: Generation
    texts: tuple[str, ...] | None
    buckets: tuple[int, ...]
    prefill: Program | None = None
    prefill_buckets: tuple[int, ...] = ()
    weights: str = ""
    tokenizer: str | None = None
    finished: tuple[Finish, ...] = ()
    sampling: Sampling = GREEDY
    clipped: tuple[Clipped, ...] = ()
    dropped: tuple[Dropped, ...] = ()

    def __str__(self) -> str:
        manifest = self.program.manifest
        what = [repr(text) for text in self.texts] if self.texts else self.generation.tokens
        return fact_lines(
            [
                *((f"{'text' if self.texts else 'ids'} {i}", str(one)) for i, one in enumerate(what)),
                ("model", f"{manifest.model.name}, weights {self.weights}"),
                ("steps", str(self.generation.steps)),
                (
                    "latency",
                    f"{self.microseconds_per_token:.2f} us per {self.per} ({kind(manifest.chip.name)})",
                ),
                ("clipped", in_words(self.clipped)),
                *((("dropped", dropped_in_words(self.dropped)),) if self.dropped else ()),
                ("logits", self.generation.digest),
            ]
        )

    @property
    def cycles(self) -> tuple[int, ...]:
        """Cycles of each step."""
        known = self.program.manifest.cycles
        return tuple(known[bucket] for bucket in self.buckets)

    @property
    def between_cycles(self) -> int:
        """Cycles between steps in which full sections of the context went out of SRAM; 0 if it holds all."""
        out = sum(after > before for before, after in pairwise(self.buckets))
        return out * rest_cycles(self.program) if out and self.program.manifest.options.spill else 0

    @property
    def prefill_cycles(self) -> tuple[int, ...]:
        """Cycles of each chunk."""
        known = self.prefill.manifest.cycles if self.prefill else {}
        return tuple(known[bucket] for bucket in self.prefill_buckets)

    @property
    def prompt_cycles(self) -> int:
        """Cycles of all chunks together, which follow each other through the groups where they can."""
        return prompt_cycles(self.prefill.manifest, self.prefill_buckets) if self.prefill else 0

    @property
    def per(self) -> str:
        """What a step takes, in words: a token of each sequence, or whole sequences."""
        step = self.program.manifest
        return "token" if step.chunk == 1 else f"step of {step.sequences} x {step.chunk} tokens"

    @property
    def microseconds_per_token(self) -> float:
        """Mean of the decode steps at the chip's clock; 0 if there were none."""
        return sum(self.cycles) * 1e6 / self.program.manifest.clock_hz / max(len(self.cycles), 1)
