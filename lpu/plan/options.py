"""What a plan is asked: targets, the load, and the configurations that are tried."""

import re
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Annotated, NamedTuple

from compiler.errors import OptionError
from compiler.options import Option
from lpu.afd.options import GpuKind

if TYPE_CHECKING:
    from lpu.traffic.readers.drawn import Lengths

_LENGTH = re.compile(r"(\d{1,9})(?:(?:\+-|\u00b1|,)(\d{1,9}))?")
_GPUS = re.compile(r"\d{1,5}(,\d{1,5})*")
OBJECTIVES = ("latency", "throughput")
PLANNED = ("pd", "afd", "draft")


class TokenCount(NamedTuple):
    """Tokens on average, and their standard deviation."""

    mean: int
    sd: int

    @property
    def most(self) -> int:
        """Three deviations above the mean; longer ones are cut to it."""
        return self.mean + 3 * self.sd

    def lengths(self) -> "Lengths":
        """What is drawn."""
        from lpu.traffic.readers.drawn import Lengths  # numpy

        if not self.sd:
            return Lengths(kind="fixed", mean=self.mean)
        return Lengths(kind="normal", mean=self.mean, sd=self.sd, most=self.most)


def token_count(text: str) -> TokenCount:
    """`4000`, or `4000+-1000` for a mean and a standard deviation."""
    found = _LENGTH.fullmatch(text.replace(" ", ""))
    if found is None or int(found[1]) < 1:
        raise ValueError(f"{text!r} is no number of tokens such as 4000 or 4000+-1000")
    return TokenCount(int(found[1]), int(found[2] or 0))


def gpu_counts(text: str) -> tuple[int, ...]:
    """Counts of GPUs, 0 among them."""
    if not _GPUS.fullmatch(text):
        raise ValueError(f"{text!r} is no list of counts")
    return tuple(sorted({int(word) for word in text.split(",")}))


def batch_counts(text: str) -> tuple[int, ...]:
    """Batches, each at least 1."""
    found = gpu_counts(text)
    if 0 in found:
        raise ValueError("0 is no batch")
    return found


def words(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    found = tuple(dict.fromkeys(word for word in text.split(",") if word))
    if not found:
        raise ValueError("names nothing")
    return found


def objective_names(text: str) -> tuple[str, ...]:
    """Objectives that programs are compiled for."""
    found = words(text)
    if wrong := [word for word in found if word not in OBJECTIVES]:
        raise ValueError(f"{wrong[0]!r} is none of {', '.join(OBJECTIVES)}")
    return found


def mode_names(text: str) -> tuple[str, ...]:
    """Modes of GPUs beside LPUs that a plan may try."""
    found = words(text)
    if wrong := [word for word in found if word not in PLANNED]:
        raise ValueError(f"{wrong[0]!r} is none of {', '.join(PLANNED)}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions(GpuKind):
    """The question of a plan. Times are milliseconds, of the percentile; rate is requests a second."""

    rate: Annotated[float, Option("--rate", "Requests a second (Poisson).")]
    isl: Annotated[
        TokenCount, Option("--isl", "Tokens in: 4000, or 4000+-1000.", metavar="N[+-SD]", parse=token_count)
    ]
    osl: Annotated[
        TokenCount, Option("--osl", "Tokens out: 300, or 300+-50.", metavar="N[+-SD]", parse=token_count)
    ]
    ttft: Annotated[float, Option("--ttft", "Milliseconds to the first token.")]
    tpot: Annotated[float, Option("--tpot", "Milliseconds per later token.")]
    percentile: Annotated[float, Option("--percentile", "Of requests that must meet both.")] = 99.0
    racks: Annotated[tuple[str, ...], Option("--racks", "Racks to try.", "RACK,RACK", parse=words)] = ("lpx",)
    gpus: Annotated[tuple[int, ...], Option("--gpus", "Numbers of GPUs to try.", "N,N", parse=gpu_counts)] = (
        0,
        1,
        2,
        4,
        8,
        16,
        32,
    )
    batches: Annotated[tuple[int, ...], Option("--batches", "Batches.", "N,N", parse=batch_counts)] = (1,)
    objectives: Annotated[
        tuple[str, ...],
        Option("--objectives", "latency, throughput, or both.", "NAME,NAME", parse=objective_names),
    ] = OBJECTIVES
    modes: Annotated[
        tuple[str, ...], Option("--modes", "pd, afd, draft: any of them.", "NAME,NAME", parse=mode_names)
    ] = ("pd",)
    drafter: Annotated[str | None, Option("--drafter", "The small model of mode draft.")] = None
    requests: Annotated[int, Option("--requests", "Requests of each replay.", least=100)] = 20_000
    seed: Annotated[int, Option("--seed", "Of the requests.", least=0)] = 0

    def __post_init__(self) -> None:
        GpuKind.__post_init__(self)
        bounds = (("--rate", self.rate), ("--ttft", self.ttft), ("--tpot", self.tpot))
        for name, value in bounds:
            if not 0 < value < inf:
                raise OptionError("plan", name, f"is {value:g}, must be above 0 and finite", "Give a number.")
        if self.percentile not in PERCENTILES:
            known = ", ".join(f"{one:g}" for one in PERCENTILES)
            raise OptionError("plan", "--percentile", f"is {self.percentile:g}", f"Choose one of {known}.")
        if "draft" in self.modes and self.drafter is None:
            raise OptionError("plan", "--modes draft", "needs a small model", "Give one with --drafter.")
        if self.isl.mean < 2:
            raise OptionError("plan", "--isl", f"is {self.isl.mean}, must be at least 2", "Give more tokens.")


PERCENTILES = (50.0, 90.0, 95.0, 99.0)
