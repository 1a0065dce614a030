"""A suite of validation cases, and the machine that they run on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fabric.chip import Sourced
from lpu.validate.cases.constants import Fitted
from lpu.validate.cases.point import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One published workload or figure. remark: what its result does and does not prove, one sentence."""

    number: int
    title: str
    points: Callable[[Any], tuple[Point, ...]]
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Cases that run on one machine. machine: what `points` of every case takes, as the catalog has it.

    sources: of the machine's numbers that no case fits. fitted: the others.
    figure: what stands beside the model, for the head of the table.
    """

    cases: tuple[Case, ...]
    machine: Callable[[], Any]
    sources: Callable[[Any], Sequence[Sourced]]
    fitted: Callable[[Any], tuple[Fitted, ...]] = lambda _: ()
    figure: str = "published"
