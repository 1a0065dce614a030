"""What a user may choose about a compilation: read by the command line, the passes and the content hash.

Every option stands here once: its field, its flags, its help, its default. `Option` says how the command line
offers a field, of this and of every other record that a verb takes; the parser itself is in lpu/cli/verb.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from compiler.errors import OptionError

LAYOUTS = ("column", "row", "2d")
PLACEMENTS = ("contiguous", "round-robin", "random")
SPLITS = ("role", "intensity")  # how GPUs and LPUs share a model, compiler/split.py
OBJECTIVES = ("latency", "throughput", "pareto")
MOST_SLACK = 16
MOST_COUNT = 1 << 20
STRATEGIES = (
    *PLACEMENTS,
    "first-fit",
    "minmax-dp",
    "parametric-dp",
    "metis",
    "spectral",
    "annealing",
    "genetic",
    "cpsat",
    "exhaustive",
)
"""Placement strategies, each a file of compiler/place/. Those of PLACEMENTS choose groups and no more."""
AUTO = 0  # --spill: the most tokens that fit
LATER = ("spill", "request", "step_limit", "cold")  # came after digests: left out where they say nothing
EXPERTS = ("exact", "dense", "capacity:N", "drop:N")
"""Slots of a step for experts: enough for any routing; one each; N, a run stops at or leaves out the rest."""
SEEDED = ("random", "metis", "annealing", "genetic", "cpsat")  # the others are the same for every seed


@dataclass(frozen=True, slots=True)
class Option:
    """How the command line offers a field of a record.

    flags: with blanks between them, or one word without dashes for an argument. metavar: what the help calls
    the value. choices: the values that there are. least: of a number. parse: the value of a word, ValueError
    if it has none. shown: the default in words, where None is not what a reader should see. names: what a
    shell offers to complete a word, besides choices.
    """

    flags: str
    help: str = ""
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    least: int | None = None
    parse: Callable[[str], Any] | None = None
    shown: str | None = None
    hidden: bool = False
    names: Callable[[], Sequence[str]] | None = None


Check = Annotated[bool, Option("--check/--no-check", "Check the program against the rules of the machine.")]
"""Of what is compiled; the checker itself is in lpu/check."""
Prove = Annotated[
    bool | None,
    Option("--prove/--no-prove", "Prove that the program computes its model.", shown="up to 200,000 rows"),
]
"""Of what is compiled or checked; the proof itself is in lpu/prove."""


def _count_or_auto(text: str) -> int | None:
    """A count, None for `auto`."""
    if text != "auto" and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{text!r} is neither a positive count nor auto")
    return None if text == "auto" else int(text)


def _tokens_or_auto(text: str) -> int:
    """A count, AUTO for `auto`."""
    if text != "auto" and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{text!r} is neither a positive count nor auto")
    return AUTO if text == "auto" else int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """Options of `compile`; tp, pp, cp and users are the compiler's choice if None."""

    tp: Annotated[
        int | None,
        Option(
            "--tp",
            "Chips per group (tensor parallel); auto takes the one with the shortest step.",
            metavar="N|auto",
            parse=_count_or_auto,
            shown="auto",
        ),
    ] = None
    pp: Annotated[
        int | None,
        Option("--pp", "Groups that the blocks are spread over (pipeline).", least=1, shown="as few as fit"),
    ] = None
    cp: Annotated[
        int | None,
        Option("--cp", "Chips that each KV head's context is dealt over.", least=1, shown="the fastest"),
    ] = None
    layout: Annotated[
        str,
        Option("--layout", "How matmuls split in a group.", choices=LAYOUTS),
    ] = "column"
    placement: Annotated[
        str,
        Option(
            "--placement",
            f"Where blocks run: {', '.join(STRATEGIES)}, package.module:function, "
            "or the name of an installed strategy.",
            metavar="NAME",
            names=lambda: STRATEGIES,
        ),
    ] = "contiguous"
    seed: Annotated[int, Option("--seed", "Seed of the placement.", least=0)] = 0
    objective: Annotated[
        str,
        Option(
            "--objective",
            "latency: one step, as short as can be; throughput: a new step of other users every interval of "
            "cycles; pareto: compare both (docs/throughput.md).",
            choices=OBJECTIVES,
        ),
    ] = "latency"
    interval_slack: Annotated[
        float | None,
        Option(
            "--interval-slack",
            f"throughput: the interval over its resource bound, at least; 1 to {MOST_SLACK}.",
            shown="one step / users that fit",
        ),
    ] = None
    users: Annotated[
        int | None,
        Option(
            "--users",
            "throughput: groups of --batch sequences that keep KV.",
            least=1,
            shown="as many as fit",
        ),
    ] = None

    experts: Annotated[
        str,
        Option(
            "--experts",
            "Slots of a step for experts. exact: enough for any routing; dense: one for each expert; "
            "capacity:N: N, and a run stops where rows choose more; drop:N: N, what is over is left out and "
            "counted (docs/experts.md).",
            metavar="exact|dense|capacity:N|drop:N",
        ),
    ] = "exact"
    waves: Annotated[
        bool,
        Option(
            "--waves/--no-waves", "With --prefill: chunks of a prompt follow each other through the groups."
        ),
    ] = True
    spill: Annotated[
        int | None,
        Option(
            "--spill",
            "Tokens of a context whose KV stays in SRAM; earlier ones lie in DDR5 and are fetched each step. "
            "auto: the most that fit.",
            metavar="TOKENS|auto",
            parse=_tokens_or_auto,
            shown="all",
        ),
    ] = None
    request: Annotated[
        str | None,
        Option(
            "--request",
            "With --prefill: --tp auto takes the one whose request of this many prompt and new tokens is "
            "shortest, not the one with the shortest step.",
            metavar="PROMPT+NEW",
        ),
    ] = None
    step_limit: Annotated[
        float | None,
        Option("--step-limit", "With --spill or --cold: refuse a step of more microseconds.", metavar="US"),
    ] = None
    cold: Annotated[
        float | None,
        Option(
            "--cold",
            "Share of the routed experts of each table that lie in DDR5, above 0 and below 1; a step fetches "
            "those that its slots name (docs/cold-experts.md).",
            metavar="SHARE",
            shown="none",
        ),
    ] = None

    def __post_init__(self) -> None:
        counts = (("--tp", self.tp), ("--pp", self.pp), ("--cp", self.cp), ("--users", self.users))
        for name, value in counts:
            if value is not None and value < 1:
                raise OptionError(
                    "options", name, f"is {value}, must be at least 1", "Give a positive count."
                )
            if value is not None and value > MOST_COUNT:
                raise OptionError("options", name, f"is {value}, must be at most {MOST_COUNT}", "Give less.")
        for name, value, choices in (
            ("--layout", self.layout, LAYOUTS),
            ("--objective", self.objective, OBJECTIVES),
        ):
            if value not in choices:
                raise OptionError(
                    "options", name, f"'{value}' is unknown", f"Choose one of {', '.join(choices)}."
                )
        _ = self.most_slots, self.requested
        if self.interval_slack is not None and not 1 <= self.interval_slack <= MOST_SLACK:
            raise OptionError(
                "options",
                "--interval-slack",
                f"is {self.interval_slack:g}, must be from 1 to {MOST_SLACK}",
                "Give 1.1 for an interval ten percent above its bound.",
            )
        if self.objective == "latency" and (self.users is not None or self.interval_slack is not None):
            raise OptionError(
                "options",
                "--users" if self.users is not None else "--interval-slack",
                "means nothing for a program that runs one step at a time",
                "Add --objective throughput.",
            )
        self._check_spill()
        if self.placement not in PLACEMENTS and self.objective != "latency":
            raise OptionError(
                "options",
                f"--objective {self.objective}",
                f"shares the blocks out itself, and placement {self.placement} does",
                f"Leave out one of them, or choose one of {', '.join(PLACEMENTS)}.",
            )
        if self.placement not in PLACEMENTS and self.pp is not None:
            raise OptionError(
                "options",
                f"--pp {self.pp}",
                f"placement {self.placement} chooses the groups of blocks itself",
                f"Leave out --pp, or choose one of {', '.join(PLACEMENTS)}.",
            )

    def _check_spill(self) -> None:
        unspilled = self.spill is None and self.cold is None
        if self.step_limit is not None and (unspilled or self.step_limit <= 0):
            reason = (
                "is of a step with --spill or --cold"
                if unspilled
                else f"is {self.step_limit:g}, must be above 0"
            )
            raise OptionError("options", "--step-limit", reason, "Give --spill TOKENS and --step-limit US.")
        self._check_cold()
        if self.spill is not None and self.spill < AUTO:
            raise OptionError("options", "--spill", f"is {self.spill}, must be at least 1", "Give tokens.")
        if self.spill is not None and self.objective != "latency":
            reason = f"goes with --objective latency, not {self.objective}"
            raise OptionError("options", f"--spill {self.spill}", reason, "Leave out one of them.")

    def _check_cold(self) -> None:
        if self.cold is None:
            return
        subject = f"--cold {self.cold:g}"
        if not 0 < self.cold < 1:
            raise OptionError("options", subject, "must be above 0 and below 1", "Give 0.5 for a half.")
        if self.objective != "latency":
            reason = f"goes with --objective latency, not {self.objective}"
            raise OptionError("options", subject, reason, "Leave out one of them.")
        if self.experts != "exact":
            reason = f"goes with --experts exact, not {self.experts}"
            raise OptionError("options", subject, reason, "Leave out one of them.")

    @property
    def requested(self) -> tuple[int, int]:
        """Tokens of a request: its prompt, and new ones; 0 where none is stated. Raises OptionError."""
        if self.request is None:
            return 0, 0
        counts = self.request.split("+")
        if len(counts) != 2 or not all(
            one.isascii() and one.isdigit() and int(one[:9]) > 0 for one in counts
        ):
            reason = "is no two counts of tokens"
            raise OptionError("options", f"--request {self.request}", reason, "Give PROMPT+NEW: 4096+256.")
        prompt, new = (int(one[:9]) for one in counts)
        return prompt, new

    @property
    def most_slots(self) -> int | None:
        """Slots of a table of experts at most; 0: one for each expert, None: enough for any routing.

        Raises OptionError.
        """
        name, _, text = self.experts.partition(":")
        if self.experts in EXPERTS[:2]:
            return None if self.experts == "exact" else 0
        if name == "replicate":
            raise OptionError(
                "options",
                "--experts replicate",
                "would copy popular experts; every chip of a group has a part of every expert already, so no "
                "copy changes a cycle",
                f"Choose one of {', '.join(EXPERTS)}.",
            )
        counts = text.isascii() and text.isdigit() and int(text[:9]) > 0 and len(text) < 9
        if name not in ("capacity", "drop") or not counts:
            raise OptionError(
                "options", "--experts", f"'{self.experts}' is unknown", f"Choose one of {', '.join(EXPERTS)}."
            )
        return int(text)


def said(options: dict[str, Any]) -> dict[str, Any]:
    """Options as a manifest has them."""
    return {name: value for name, value in options.items() if name not in LATER or value is not None}
