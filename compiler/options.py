"""What a user may choose about a compilation: read by the command line, the passes and the content hash."""

from dataclasses import dataclass

from compiler.errors import OptionError

LAYOUTS = ("column", "row", "2d")
PLACEMENTS = ("contiguous", "round-robin", "random")
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
    """

    tp: int | None = None
    pp: int | None = None
    cp: int | None = None
    layout: str = "column"
    placement: str = "contiguous"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("--tp", self.tp), ("--pp", self.pp), ("--cp", self.cp)):
            if value is not None and value < 1:
                raise OptionError(
                    "options", name, f"is {value}, must be at least 1", "Give a positive count."
                )
        for name, value, choices in (("--layout", self.layout, LAYOUTS),):
            if value not in choices:
                raise OptionError(
                    "options", name, f"'{value}' is unknown", f"Choose one of {', '.join(choices)}."
                )
        if self.placement not in PLACEMENTS and self.pp is not None:
            raise OptionError(
                "options",
                f"--pp {self.pp}",
                f"placement {self.placement} chooses the groups of blocks itself",
                f"Leave out --pp, or choose one of {', '.join(PLACEMENTS)}.",
            )
