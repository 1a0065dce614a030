"""Ratios of GPUs to LPUs, batches and micro-batches side by side: what is best, and where AFD loses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Unpack

from compiler.errors import CompileError
from compiler.hops import compile_hops
from compiler.options import CompileOptions
from fabric.rack import Rack
from lpu.afd.machines import LPUS_PER_RACK, lpus_of, machines
from lpu.afd.options import GpuKind, RatioPoints
from lpu.afd.report import CAUTION, PROJECTION
from lpu.afd.times.hops import HopTimes, hop_times, pace
from lpu.folder import Progress, quiet
from lpu.gpu.share import GpuShare, fastest
from lpu.gpu.units import PS_PER_SECOND
from lpu.inputs.model import of_micro_batch
from lpu.inputs.open import Model, open_model
from lpu.keywords import ModelKeywords, model_keywords
from lpu.screen import OnScreen, fact_lines

GPUS_PER_RACK = 72
"""So that GPUs and LPUs can be counted in racks. Source: NVL72; facts/afd.md section 1.3 counts racks too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One configuration (GPUs, LPUs, batch, micro-batches). refused: the reason if it could not be timed.

    tpot, alone: seconds per token with the LPUs, and on the same GPUs without them (None: they do not fit).
    binding: what sets the pace. racks: 72 GPUs or 256 LPUs count as one.
    """

    gpus: int
    lpus: int
    batch: int
    micro_batches: int
    tpot: float | None = None
    alone: float | None = None
    binding: str = ""
    refused: str = ""

    @property
    def racks(self) -> float:
        """GPUs and LPUs in racks."""
        return self.gpus / GPUS_PER_RACK + self.lpus / LPUS_PER_RACK

    @property
    def per_rack(self) -> float:
        """Tokens per second and rack; 0 if refused."""
        return self.batch / self.tpot / self.racks if self.tpot else 0.0

    @property
    def alone_per_rack(self) -> float:
        """The same of the GPUs without LPUs."""
        return self.batch / self.alone / (self.gpus / GPUS_PER_RACK) if self.alone else 0.0

    @property
    def over_alone(self) -> float | None:
        """Tokens per second and rack over those of the GPUs alone; None where one of them is missing."""
        return self.per_rack / self.alone_per_rack if self.tpot and self.alone_per_rack else None

    def verdict(self, target: float | None) -> str:
        """Whether dividing wins here: `loses` where GPUs alone give more per rack within the target."""
        if self.tpot is None:
            return "refused"
        alone_meets = self.alone is not None and (target is None or self.alone <= target)
        if target is not None and self.tpot > target:
            return "loses" if alone_meets else "too slow"
        return "loses" if alone_meets and self.alone_per_rack >= self.per_rack else "wins"

    def to_json(self, target: float | None) -> dict[str, Any]:
        """For `--json`."""
        return {
            "gpus": self.gpus,
            "lpus": self.lpus,
            "batch": self.batch,
            "micro_batches": self.micro_batches,
            "tpot_seconds": self.tpot,
            "alone_tpot_seconds": self.alone,
            "racks": self.racks,
            "tokens_per_second_per_rack": self.per_rack,
            "alone_tokens_per_second_per_rack": self.alone_per_rack or None,
            "per_rack_over_alone": self.over_alone,
            "set_by": self.binding,
            "refused": self.refused,
            "verdict": self.verdict(target),
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RatioSweep(OnScreen):
    """All points. target: seconds per token that a point may take; None: any. machine: in words."""

    points: tuple[Ratio, ...]
    target: float | None
    machine: str = ""

    @property
    def best(self) -> Ratio | None:
        """The point with most tokens per second and rack that meets the target, if there is one."""
        fitting = [
            point
            for point in self.points
            if point.tpot is not None and (self.target is None or point.tpot <= self.target)
        ]
        return max(fitting, key=lambda point: point.per_rack, default=None)

    @property
    def best_line(self) -> str:
        """The best point in words."""
        best = self.best
        if best is None:
            return "none meets the target"
        return (
            f"{best.gpus} GPUs : {best.lpus} LPUs, batch {best.batch}, m {best.micro_batches}: "
            f"{best.per_rack:,.1f} tokens/s a rack"
        )

    def __str__(self) -> str:
        return fact_lines(
            [
                ("best", self.best_line),
                ("losing", self.losing),
                ("machine", self.machine),
                ("label", PROJECTION),
                ("caution", CAUTION),
            ]
        )

    @property
    def losing(self) -> str:
        """Where AFD loses to not splitting, in words."""
        lost = [point for point in self.points if point.verdict(self.target) == "loses"]
        timed = [point for point in self.points if point.tpot is not None]
        if not lost:
            return f"AFD loses at none of {len(timed)} points"
        bound = sorted({point.binding for point in lost})
        parts = [f"AFD loses at {len(lost)} of {len(timed)} points"]
        for name in bound:
            own = [point for point in lost if point.binding == name]
            batches = sorted({point.batch for point in own})
            parts.append(f"{REGIMES[name]}: batch {batches[0]} to {batches[-1]} ({len(own)} points)")
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "label": PROJECTION,
            "machine": self.machine,
            "target_seconds": self.target,
            "points": [point.to_json(self.target) for point in self.points],
            "best": self.best.to_json(self.target) if self.best else None,
            "losing": self.losing,
        }


REGIMES = {
    "attention": "attention-bound (the LPUs wait for kernels and launches of the GPUs)",
    "ffn": "FFN-bound (past a few rows per weight tile an LPU is bound by compute)",
    "down": "bound by the link down",
    "up": "bound by the link up",
    "latency": "latency-bound (too few micro-batches to fill the round trip)",
}


def ratio_sweep(
    shares: Sequence[Sequence[GpuShare]],
    hops: Callable[[int], tuple[HopTimes, int]],
    batches: Sequence[int],
    micro_batches: Sequence[int],
    kv_len: int,
    target: float | None = None,
    machine: str = "",
) -> RatioSweep:
    """Every number of GPUs, dealt as is best, with every batch and number of micro-batches that divides it.

    GPUs that share hold no FFN: prefill is done elsewhere here. GPUs alone hold all weights.

    hops: times of the hops for this many rows, and the LPUs that hold them. What does not fit is a point too.
    """
    points = [
        _point(share, hops, batch, m, kv_len)
        for share in shares
        for batch in batches
        for m in micro_batches
        if batch % m == 0
    ]
    return RatioSweep(points=tuple(points), target=target, machine=machine)


def _point(
    every: Sequence[GpuShare],
    hops: Callable[[int], tuple[HopTimes, int]],
    batch: int,
    m: int,
    kv_len: int,
) -> Ratio:
    lpus = 0
    try:
        times, lpus = hops(batch // m)
        rows, kept = batch // m, every[0].config.layers - len(times.cycles)
        share = fastest(every, lambda one: sum(one.before_hops(rows, kv_len, kept)), batch, kv_len, kept)
        alone = _alone(every, batch, kv_len)
        found = pace(share, times, batch, m, kv_len, alone=alone or 0)
    except CompileError as error:
        return Ratio(gpus=every[0].gpus, lpus=lpus, batch=batch, micro_batches=m, refused=str(error))
    return Ratio(
        gpus=share.gpus,
        lpus=lpus,
        batch=batch,
        micro_batches=m,
        tpot=float(found.period) / PS_PER_SECOND,
        alone=alone and alone / PS_PER_SECOND,
        binding=found.binding,
    )


def _alone(every: Sequence[GpuShare], batch: int, kv_len: int) -> int | None:
    """Picoseconds of a step on the GPUs alone; None if they cannot hold the model and its KV."""
    try:
        best = fastest(every, lambda one: one.step(batch, kv_len), batch, kv_len)
    except CompileError:
        return None
    return best.step(batch, kv_len)


def ratios(
    model: Model,
    points: RatioPoints,
    *,
    kind: GpuKind | None = None,
    rack: str | Path | Rack = "lpx",
    options: CompileOptions | None = None,
    progress: Progress = quiet,
    **keywords: Unpack[ModelKeywords],
) -> RatioSweep:
    """Every number of GPUs with every batch and number of micro-batches; hops are compiled once per rows.

    The tp of the hops is searched at the fewest rows if the options leave it open.
    Raises FileError, and CompileError where no point at all can be made.
    """
    kind, rows = kind or GpuKind(), points.rows
    given: dict[str, Any] = {"ffn_down": points.ffn_down, "ffn_up": points.ffn_up, "divided": True}
    given |= model_keywords("ratios", keywords)
    given |= {"batch": 1, "context": (points.kv_tokens,)}
    opened = open_model(model, **given)
    sides = [machines(rack, kind, count) for count in points.gpus]
    shares = [side.shares(opened) for side in sides]
    there, link, plan = sides[0], sides[0].bridge, options or CompileOptions()
    if plan.tp is None:
        source = of_micro_batch(opened, rows[0]).source()
        first, _ = compile_hops(source, there.rack, plan, link, layers=points.lpu_layers)
        plan = replace(plan, tp=first.manifest.tp)

    @cache
    def hops(count: int) -> tuple[HopTimes, int] | CompileError:
        progress("hops", rows.index(count), len(rows))
        try:
            program, split = compile_hops(
                of_micro_batch(opened, count).source(), there.rack, plan, link, layers=points.lpu_layers
            )
        except CompileError as error:
            return error
        return hop_times(program, split), lpus_of(program)

    def times(count: int) -> tuple[HopTimes, int]:
        found = hops(count)
        if isinstance(found, CompileError):
            raise found
        return found

    spec, target_ms = there.gpu, points.target_ms
    words = (
        f"{spec.name}{f' ({spec.band_text})' if spec.band else ''}, {there.gemm}, kv {opened.step.kv}, "
        f"{link.name} with {link.latency_ns / 1000:g} us one way (assumed), hops at tp {plan.tp} on "
        f"{there.rack.name}, {points.kv_tokens} tokens of KV a sequence; prefill is done elsewhere"
    )
    target = None if target_ms is None else target_ms / 1000
    return ratio_sweep(shares, times, points.batches, points.micro_batches, points.kv_tokens, target, words)
