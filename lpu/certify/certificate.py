"""What a certificate holds: the run, and every comparison of its bits."""

from dataclasses import asdict, dataclass
from typing import Any

from compiler.options import CompileOptions
from compiler.program.manifest import ModelIdentity
from lpu.certify.equivalence import Equivalence, Quantisation
from lpu.report.words import EXACT, kind, label_of
from lpu.run.clips import Clipped, in_words
from lpu.run.overflow import Dropped
from lpu.run.overflow import in_words as dropped_in_words
from lpu.screen import OnScreen, fact_lines

REFERENCE, TWICE = "single-device reference", "run twice"


@dataclass(frozen=True, slots=True, kw_only=True)
class BitsCompared:
    """The comparison with one other way to the same bits. equal: None if it could not be made.

    detail: the reason why it could not be made, or the first sequence, step and logit that differ.
    """

    name: str
    equal: bool | None
    detail: str
    logits_sha256: str = ""
    program_sha256: str = ""
    cycles_per_token: dict[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Certificate(OnScreen):
    """The run and every comparison of its bits. The f32 reports do not influence the verdict.

    proved: whether the program computes its model; None if no reader knows it. `proof` says so, or why not.
    clipped: what fp16 could not hold in the run, by call and instruction. dropped: experts without a slot.
    """

    model: ModelIdentity
    rack: str
    options: CompileOptions
    inputs_sha256: str
    program_sha256: str
    logits_sha256: str
    prompts: tuple[tuple[int, ...], ...]
    tokens: tuple[tuple[int, ...], ...]
    cycles_per_token: dict[int, int]
    clock_hz: int
    chip: str
    rows_checked: int
    versions: dict[str, str]
    comparisons: tuple[BitsCompared, ...]
    numerical_equivalence: Equivalence | None
    quantisation: Quantisation | None
    proved: bool | None = None
    proof: str = ""
    clipped: tuple[Clipped, ...] = ()
    dropped: tuple[Dropped, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all comparisons made are equal, reference and second run among them, and it is proved."""
        taken = [one.name for one in self.comparisons if one.equal is not None]
        needed = {REFERENCE, TWICE} <= set(taken)
        return needed and self.proved is not False and all(one.equal is not False for one in self.comparisons)

    def __str__(self) -> str:
        words = {True: "equal", False: "DIFFERENT", None: "not compared"}
        cycles = ", ".join(f"{n:,} cycles at context {at}" for at, n in self.cycles_per_token.items())
        return fact_lines(
            [
                ("verdict", "bits equal" if self.ok else "NOT certified"),
                ("model", f"{self.model.name}, weights {self.model.weights}"),
                ("rack", self.rack),
                ("latency", f"{cycles} ({kind(self.chip)})"),
                ("clipped", in_words(self.clipped)),
                *((("dropped", dropped_in_words(self.dropped)),) if self.dropped else ()),
                ("logits", self.logits_sha256),
                *((words[one.equal], f"{one.name}  {one.detail}".rstrip()) for one in self.comparisons),
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values without measured times, so equal runs write equal certificates."""
        apart = ("model", "options", "comparisons", "clipped", "dropped", *REPORTS)
        names = [name for name in self.__slots__ if name not in apart]
        return {
            "schema": "lpu-certificate/1",
            "kind": EXACT,
            "label": label_of(self.chip),
            "bits_equal": self.ok,
            "model": asdict(self.model),
            "options": asdict(self.options),
            **{name: getattr(self, name) for name in names},
            "clipped": [asdict(one) for one in self.clipped],
            **({"dropped": [asdict(one) for one in self.dropped]} if self.dropped else {}),
            "comparisons": [asdict(one) for one in self.comparisons],
            **{name: report and report.to_json() for name in REPORTS if [report := getattr(self, name)]},
        }


REPORTS = ("numerical_equivalence", "quantisation")
