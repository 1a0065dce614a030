"""A suite of validation cases, and the machine that they run on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fabric.chip import Sourced
from lpu.validate.cases.fitted import Fitted
from lpu.validate.cases.point import PublishedPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One published workload or figure. remark: what its result proves and does not prove, one sentence."""

    number: int
    title: str
    points: Callable[[Any], tuple[PublishedPoint, ...]]
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Cases that run on one machine. machine: makes the argument of every case's `points` from the catalog.

    sources: sources of the machine's numbers that no case fits. fitted: the fitted numbers.
    figure: kind of the figures that the model is compared with, for the head of the table.
    """

    cases: tuple[Case, ...]
    machine: Callable[[], Any]
    sources: Callable[[Any], Sequence[Sourced]]
    fitted: Callable[[Any], tuple[Fitted, ...]] = lambda _: ()
    figure: str = "published"
