"""What a replay reports: spans with percentiles, goodput, and what was busy."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isinf
from typing import Any, ClassVar

import numpy as np

from lpu.afd.report import PROJECTION
from lpu.figures.distributions import Curve, distributions_figure
from lpu.figures.drawing import Drawing
from lpu.figures.shown import Shown
from lpu.report.words import EXACT, caution_of, label_of, percent
from lpu.screen import fact_lines
from lpu.traffic.outcome import REFUSED, TOO_LONG, Outcome
from lpu.traffic.reports.percentiles import QUANTILES, Quantiles, over_seeds, spread

SPANS = (
    ("TTFT", "ttft"),
    ("TPOT", "tpot"),
    ("end to end", "end_to_end"),
    ("queue", "queue"),
    ("prefill to first step", "slot_wait"),
)
CURVE_POINTS = 400
HEADERS = ("span", "mean", *(f"p{100 * q:g}" for q in QUANTILES), "p99, 95 % confidence", "most")


@dataclass(frozen=True, slots=True, kw_only=True)
class BusyPart:
    """A part of the machine: the share of the span that it was busy for, and what that means."""

    name: str
    share: float
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ReplayReport(Shown):
    """A replay. machine: in names and values. spans: in seconds, by name.

    curves: their distributions. arrivals: of the first seed, seconds of an arrival and milliseconds to the
    first token of requests that were served, at most MOST_POINTS of them. asked: every value that was chosen,
    by name (`lpu/traffic/asked.py`).

    good: share of all requests that met the targets. hits, blocks: of the prefix cache, in blocks of prompts.
    kept: blocks that slots still held. by_lpus: prompts that the LPUs took where load decides, else None.
    basis: how times to the first token are known; steps_basis: those of later ones. assumptions: names of the
    numbers that times rest on, by confidence.
    """

    machine: tuple[tuple[str, str], ...]
    chip: str
    digest: str
    seeds: tuple[int, ...]
    requests: int
    left_out: int
    too_long: int
    refused: int
    span_seconds: float
    tokens: int
    spans: dict[str, Quantiles]
    targets: tuple[float | None, float | None, float | None]
    good: float
    hits: int
    blocks: int
    users: float
    most_users: int
    kv_share: float
    waited: int
    drains: int
    resources: tuple[BusyPart, ...]
    basis: str
    gpus: bool
    steps_basis: str = EXACT
    kept: int = 0
    by_lpus: int | None = None
    assumptions: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    warnings: tuple[str, ...] = ()
    curves: tuple[Curve, ...] = ()
    arrivals: tuple[tuple[float, float], ...] = ()
    asked: dict[str, Any] = field(default_factory=dict[str, Any])
    MOST_POINTS: ClassVar[int] = 2000

    @property
    def served(self) -> int:
        """Requests that were served."""
        return self.requests - self.too_long - self.refused

    @property
    def requests_per_second(self) -> float:
        """Served requests by the time from the first arrival to the last token."""
        return self.served / self.span_seconds if self.span_seconds else 0.0

    @property
    def goodput(self) -> float:
        """Requests a second that met the targets."""
        return self.good * self.requests / self.span_seconds if self.span_seconds else 0.0

    @property
    def target_words(self) -> str:
        """The targets in words; nothing if none is stated."""
        named = zip(("TTFT", "TPOT", "end to end"), self.targets, strict=True)
        return ", ".join(f"{name} {_ms(value)}" for name, value in named if value is not None)

    @property
    def label(self) -> str | None:
        """What stands above all figures; None for a chip of which measurements are public."""
        return PROJECTION if self.gpus else label_of(self.chip)

    @property
    def kinds(self) -> str:
        """How times are known."""
        exact = self.steps_basis == EXACT
        later = "TPOT is exact for the stated machine" if exact else f"TPOT is {self.steps_basis}"
        return f"{later}, TTFT {self.basis}"

    def rows(self) -> list[list[str]]:
        """The cells of a table under HEADERS."""
        found: list[list[str]] = []
        for name, one in self.spans.items():
            last = one.percentiles[-1]
            found.append(
                [
                    name,
                    _ms(one.mean),
                    *(_ms(p.value) for p in one.percentiles),
                    f"{_ms(last.low)} to {_ms(last.high)}",
                    _ms(one.most),
                ]
            )
        return found

    def facts(self) -> list[tuple[str, str]]:
        """What came of it beside the spans, in names and values."""
        targets = self.target_words
        met = f"{percent(self.good)} met {targets}" if targets else "every served one, no target stated"
        out = [
            ("requests", self._requests()),
            ("served", f"{self.requests_per_second:,.3f} a second over {self.span_seconds:,.3f} s"),
            ("tokens/s", f"{self.tokens / self.span_seconds if self.span_seconds else 0:,.1f} new ones"),
            ("goodput", f"{self.goodput:,.3f} requests a second, {met}"),
            (
                "users",
                f"{self.users:.3f} in slots on average, {self.most_users} at most; {self.waited} waited",
            ),
            ("kv", f"{percent(self.kv_share)} of the slots' tokens held on average"),
        ]
        if self.blocks:
            share = f"{100 * self.hits / self.blocks:.1f} %"
            out.append(("cache hits", f"{self.hits:,} of {self.blocks:,} prefix blocks, {share}"))
        if self.kept:
            out.append(("in slots", f"{self.kept:,} of those in the slot that the prompt took"))
        if self.by_lpus is not None:
            out.append(("share", f"{self.by_lpus:,} prompts by the LPUs, the others by the GPUs"))
        if self.drains:
            out.append(("drains", f"{self.drains:,} changes of the context bucket"))
        out += [("busy", f"{one.name} {percent(one.share)} ({one.remark})") for one in self.resources]
        return [*out, *((("caution", said),) if (said := caution_of(self.label)) else ())]

    def _requests(self) -> str:
        parts = [f"{self.requests:,}"]
        if self.left_out:
            parts.append(f"{self.left_out:,} more without an answer left out")
        if self.too_long:
            parts.append(f"{self.too_long:,} longer than the largest bucket, not served")
        if self.refused:
            parts.append(f"{self.refused:,} refused by a full queue")
        return "; ".join(parts)

    def __str__(self) -> str:
        spans = [(row[0], f"mean {row[1]}, p50 {row[2]}, p99 {row[-3]}") for row in self.rows()]
        return fact_lines([*self.machine, *spans, *self.facts(), ("label", str(self.label))])

    def drawing(self) -> Drawing:
        """The share of requests within a time, for each span."""
        about = (
            f"Of requests that were served, over all seeds. {self.kinds[0].upper()}{self.kinds[1:]}. "
            "Marks are targets."
        )
        return distributions_figure(self.curves, about, HEADERS, self.rows())

    def records(self) -> list[dict[str, Any]]:
        """A line for each percentile of each span."""
        return [
            {
                "span": name,
                "count": one.count,
                "mean_seconds": one.mean,
                "most_seconds": one.most,
                "percent": 100 * each.quantile,
                "seconds": each.value,
                "low_95_seconds": each.low,
                "high_95_seconds": each.high,
            }
            for name, one in self.spans.items()
            for each in one.percentiles
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; keys carry their units."""
        ttft, tpot, whole = self.targets
        return {
            "schema": "lpu-replay/1",
            "label": self.label,
            "kind": {"tpot": self.steps_basis, "ttft": self.basis, "end_to_end": self.basis},
            "machine": dict(self.machine),
            "program_sha256": self.digest,
            "seeds": list(self.seeds),
            "requests": self.requests,
            "left_out": self.left_out,
            "too_long": self.too_long,
            "refused": self.refused,
            "span_seconds": self.span_seconds,
            "requests_per_second": self.requests_per_second,
            "new_tokens": self.tokens,
            "spans_seconds": {dict(SPANS).get(name, name): _body(one) for name, one in self.spans.items()},
            "targets_seconds": {"ttft": ttft, "tpot": tpot, "end_to_end": whole},
            "good_share": self.good,
            "goodput_requests_per_second": self.goodput,
            "cache_hit_blocks": self.hits,
            "prompt_blocks": self.blocks,
            "kept_in_slot_blocks": self.kept,
            "prompts_by_lpus": self.by_lpus,
            "users_mean": self.users,
            "users_most": self.most_users,
            "kv_share_mean": self.kv_share,
            "waiting_most": self.waited,
            "bucket_changes": self.drains,
            "busy_shares": {one.name: one.share for one in self.resources},
            "assumptions": self.assumptions,
            "warnings": list(self.warnings),
            "asked": self.asked,
        }


def _body(found: Quantiles) -> dict[str, Any]:
    return {
        "count": found.count,
        "mean": found.mean,
        "most": found.most,
        "percentiles": [
            {
                "percent": 100 * one.quantile,
                "value": one.value,
                "low_95": one.low,
                "high_95": None if isinf(one.high) else one.high,
            }
            for one in found.percentiles
        ],
    }


def _ms(seconds: float) -> str:
    return "more" if isinf(seconds) else f"{seconds * 1000:,.3f} ms"


def spans_of(outcomes: Sequence[Outcome]) -> dict[str, Quantiles]:
    """The spans of one run, or over several seeds; without those that nobody has."""
    found: dict[str, Quantiles] = {}
    for name, attribute in SPANS:
        each = [one for one in (spread(getattr(outcome, attribute)) for outcome in outcomes) if one]
        if each:
            found[name] = over_seeds(each)
    return found


def curves_of(
    outcomes: Sequence[Outcome], targets: tuple[float | None, float | None, float | None]
) -> tuple[Curve, ...]:
    """The distributions of the spans over all seeds, in at most CURVE_POINTS points each.

    targets: in seconds, of TTFT, TPOT and end to end.
    """
    asked: dict[str, float | None] = dict(zip(("TTFT", "TPOT", "end to end"), targets, strict=True))
    found: list[Curve] = []
    for name, attribute in SPANS:
        values = np.sort(np.concatenate([getattr(one, attribute) for one in outcomes]))
        if not len(values):
            continue
        at = np.unique(np.linspace(0, len(values) - 1, CURVE_POINTS).astype(int))
        target = asked.get(name)
        found.append(
            Curve(
                name=name,
                milliseconds=tuple((values[at] * 1000).tolist()),
                shares=tuple(((at + 1) / len(values)).tolist()),
                target=None if target is None else 1000 * target,
                within=0.0 if target is None else float((values <= target).mean()),
            )
        )
    return tuple(found)


def arrivals_of(first: Outcome, most: int) -> tuple[tuple[float, float], ...]:
    """Second of arrival and milliseconds to the first token, of served requests that are evenly chosen."""
    seconds, ttft = first.arrived[first.served] / first.clock_hz, first.ttft * 1000
    step = -(-len(ttft) // most) or 1
    return tuple(zip(seconds[::step].tolist(), ttft[::step].tolist(), strict=True))


def spans_by_class(outcomes: Sequence[Outcome]) -> dict[str, Quantiles]:
    """TTFT of each class of priority, where there are several."""
    classes = outcomes[0].classes
    if classes is None:
        return {}
    found: dict[str, Quantiles] = {}
    for number in range(int(classes.max()) + 1):
        each = [spread(one.ttft[_class_of(one)[one.served] == number]) for one in outcomes]
        if known := [one for one in each if one]:
            found[f"TTFT class {number}"] = over_seeds(known)
    return found


def _class_of(outcome: Outcome) -> np.ndarray:
    return np.zeros(len(outcome.status)) if outcome.classes is None else outcome.classes


def mean(values: Sequence[float]) -> float:
    """Over seeds."""
    return float(np.mean(values)) if values else 0.0


def refused_of(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    """Requests that were too long, and those that a full queue refused."""
    return sum(one.count(TOO_LONG) for one in outcomes), sum(one.count(REFUSED) for one in outcomes)
