"""What a user may choose about a compilation: read by the command line, the passes and the content hash."""

from dataclasses import dataclass

from compiler.errors import OptionError

LAYOUTS = ("column", "row", "2d")
PLACEMENTS = ("contiguous", "round-robin", "random")
OBJECTIVES = ("latency", "throughput", "pareto")
MOST_SLACK = 16
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
SEEDED = ("random", "metis", "annealing", "genetic", "cpsat")  # the others are the same for every seed


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """Options of `compile`.

    tp: chips per group (tensor parallel); None: the fastest single-token latency that fits.
    pp: groups that the blocks are spread over (pipeline); None: as few as fit.
    cp: ranks that the context of each KV head is dealt over (context parallel); None: whatever is fastest.
    layout: how matmuls split in a group: by columns, by rows, or both ("2d").
    placement, seed: which chips form a group; most of compiler/place/ choose the group of each block too.
    objective: "latency": one step at a time, as short as can be; "throughput": a new step (of other users)
    enters every interval of cycles; "pareto" is a comparison of programs, none of its own.
    interval_slack: the interval is at least so many times its resource bound (throughput).
    users: groups of `batch` sequences whose KV is kept (throughput); None: as many as fit.
    """

    tp: int | None = None
    pp: int | None = None
    cp: int | None = None
    layout: str = "column"
    placement: str = "contiguous"
    seed: int = 0
    objective: str = "latency"
    interval_slack: float = 1.0
    users: int | None = None

    def __post_init__(self) -> None:
        counts = (("--tp", self.tp), ("--pp", self.pp), ("--cp", self.cp), ("--users", self.users))
        for name, value in counts:
            if value is not None and value < 1:
                raise OptionError(
                    "options", name, f"is {value}, must be at least 1", "Give a positive count."
                )
        for name, value, choices in (
            ("--layout", self.layout, LAYOUTS),
            ("--objective", self.objective, OBJECTIVES),
        ):
            if value not in choices:
                raise OptionError(
                    "options", name, f"'{value}' is unknown", f"Choose one of {', '.join(choices)}."
                )
        if not 1 <= self.interval_slack <= MOST_SLACK:
            raise OptionError(
                "options",
                "--interval-slack",
                f"is {self.interval_slack:g}, must be from 1 to {MOST_SLACK}",
                "Give 1.1 for an interval ten percent above its bound.",
            )
        if self.objective == "latency" and (self.users is not None or self.interval_slack != 1):
            raise OptionError(
                "options",
                "--users" if self.users is not None else "--interval-slack",
                "means nothing for a program that runs one step at a time",
                "Add --objective throughput.",
            )
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
