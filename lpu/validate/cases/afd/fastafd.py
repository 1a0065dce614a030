"""Cases 105 and 112: the identity of FastAFD on GB200, and what it projects for Rubin with LPX."""

from dataclasses import dataclass
from fractions import Fraction

from lpu.pingpong.closed_forms import fastafd_speedup
from lpu.validate.cases.point import PublishedPoint

CASE, PROJECTION_CASE = 105, 112
BATCH_RATIO, MICRO_BATCHES = Fraction(3, 2), 2
TOLERANCE = 0.5  # percent: the paper prints three digits, and shares of 0.1 %


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Shares of FMHA, dense layers and experts in percent; attention devices per FFN device; speedups.

    moe_only, with_dense: what the paper projects for Rubin and LPX. Source: facts/afd.md sections 1.3 and 2.
    """

    fmha: Fraction
    dense: Fraction
    experts: Fraction
    ratio: int
    paper: float
    measured: float
    moe_only: float
    with_dense: float


def _system(shares: str, ratio: int, *figures: float) -> System:
    fmha, dense, experts = (Fraction(share) / 100 for share in shares.split("/"))
    paper, measured, moe_only, with_dense = figures
    return System(
        fmha=fmha,
        dense=dense,
        experts=experts,
        ratio=ratio,
        paper=paper,
        measured=measured,
        moe_only=moe_only,
        with_dense=with_dense,
    )


SYSTEMS = {
    "MiniMax-M2.5 8K": _system("43.4/16.2/40.5", 17, 1.45, 1.45, 1.68, 2.31),
    "MiniMax-M2.5 16K": _system("48.2/15.3/36.4", 17, 1.38, 1.35, 1.57, 2.07),
    "Qwen3-235B 8K": _system("41.4/15.7/43.0", 7, 1.41, 1.41, 1.75, 2.42),
    "Qwen3-235B 16K": _system("42.4/16.0/41.6", 11, 1.44, 1.44, 1.71, 2.36),
}


def points() -> tuple[PublishedPoint, ...]:
    """The identity against the paper's own figure, and beside what the paper measured."""
    out: list[PublishedPoint] = []
    for name, one in SYSTEMS.items():
        modelled = float(fastafd_speedup(BATCH_RATIO, one.fmha, one.dense, MICRO_BATCHES, one.ratio))
        out.append(_point(CASE, f"{name}, identity", "anchor", one.paper, modelled))
        out.append(_point(CASE, f"{name}, measured on GB200", "shown", one.measured, modelled))
    return tuple(out)


def projections() -> tuple[PublishedPoint, ...]:
    """Rubin with LPX: no link, no exposed LPU time. A projection beside a projection, so no verdict."""
    out: list[PublishedPoint] = []
    for name, one in SYSTEMS.items():
        moe_only, with_dense = 1 / (1 - one.experts), 1 / one.fmha
        for what, published, modelled in (
            ("experts", one.moe_only, moe_only),
            ("experts and dense", one.with_dense, with_dense),
        ):
            title = f"projection, {name}, {what} on LPX"
            out.append(_point(PROJECTION_CASE, title, "shown", published, float(modelled)))
    return tuple(out)


def _point(case: int, name: str, kind: str, published: float, modelled: float) -> PublishedPoint:
    return PublishedPoint(
        case=case,
        name=name,
        kind="anchor" if kind == "anchor" else "shown",
        unit="x",
        published=published,
        modelled=modelled,
        tolerance_percent=TOLERANCE if kind == "anchor" else None,
    )
