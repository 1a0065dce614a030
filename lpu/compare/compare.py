"""Comparisons: the same model, machine and budget, many placement strategies, one table."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from compiler.options import SEEDED, STRATEGIES
from compiler.place.registry import strategy
from lpu.compare.point import DEFAULT, Point, Task
from lpu.compare.results import results
from lpu.compare.runner import run_tasks
from lpu.figures.drawing import Drawing
from lpu.figures.results import Spot, points_figure
from lpu.figures.shown import Shown
from lpu.folder import Progress, quiet
from lpu.inputs.document import FileError
from lpu.inputs.files import read_rack
from lpu.report.words import CAUTION_FACTOR, EXACT, caution, kind
from lpu.screen import OnScreen

HEADERS = (
    "strategy",
    "points",
    "latency us",
    "spread us",
    "of best",
    "of bound",
    "period us",
    "max MB",
    "hop MB",
    "link peak us",
    "model us",
    "compile s",
    "evaluations/s",
)
MB = 1e6
MOST_SEEDS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RackComparison(OnScreen):
    """All points on one rack; the first is the default of `lpu compile`. Cycles are exact for the machine."""

    rack: str
    points: tuple[Point, ...]
    chip: str = ""

    @property
    def good(self) -> list[Point]:
        """The points that have a program."""
        return [point for point in self.points if not point.error]

    @property
    def default(self) -> Point:
        """The point of `lpu compile` without `--placement`."""
        return self.points[0]

    @property
    def best(self) -> Point:
        """The point of least latency, the first of equal ones."""
        return min(self.good, key=lambda point: point.latency_cycles)

    @property
    def front(self) -> list[Point]:
        """The points that no other dominates in latency and period, by latency."""
        return front(self.good)

    @property
    def agreement(self) -> float | None:
        """Spearman's rank correlation of latencies by the cost model and by the real scheduler."""
        searched = [point for point in self.good if point.estimate]
        return spearman(
            [point.estimate["latency"] for point in searched], [point.latency_cycles for point in searched]
        )

    def strategies(self) -> dict[str, list[Point]]:
        """The points of each strategy, in the order asked for."""
        out: dict[str, list[Point]] = {}
        for point in self.points:
            out.setdefault(point.strategy, []).append(point)
        return out

    def latencies(self) -> dict[str, float]:
        """The median latency in microseconds of every strategy that has a program."""
        return {
            name: median(point.microseconds for point in points if not point.error)
            for name, points in self.strategies().items()
            if not all(point.error for point in points)
        }

    def rows(self) -> list[list[str]]:
        """The cells of a table under HEADERS: medians over seeds, fastest first, then what failed."""
        latencies = self.latencies()
        order = sorted(self.strategies(), key=lambda name: latencies.get(name, float("inf")))
        return [self._row(name, self.strategies()[name]) for name in order]

    def _row(self, name: str, points: list[Point]) -> list[str]:
        good = [point for point in points if not point.error]
        count = f"{len(good)}/{len(points)}"
        if not good:
            return [name, count, *["-"] * (len(HEADERS) - 2)]

        def mid(figure: Callable[[Point], float], digits: int = 2) -> str:
            return f"{median(map(figure, good)):,.{digits}f}"

        def us(cycles: Callable[[Point], int]) -> str:
            return mid(lambda point: cycles(point) * 1e6 / point.clock_hz)

        times = sorted(point.microseconds for point in good)
        searched = bool(good[0].estimate)
        return [
            name,
            count,
            mid(lambda point: point.microseconds),
            f"{times[0]:.2f}..{times[-1]:.2f}" if times[0] < times[-1] else "0",
            mid(lambda point: point.latency_cycles / self.best.latency_cycles, 3),
            mid(lambda point: point.latency_cycles / max(point.bound_cycles, 1), 3),
            us(lambda point: point.period_cycles),
            mid(lambda point: point.max_bytes / MB, 1),
            mid(lambda point: point.hop_bytes / MB, 1),
            us(lambda point: point.link_peak_cycles),
            us(lambda point: point.estimate["latency"]) if searched else "-",
            mid(lambda point: point.measured["compile_seconds"], 1),
            mid(lambda point: point.measured["evaluations_per_second"], 0) if searched else "-",
        ]

    def __str__(self) -> str:
        best, default = self.best, self.default
        lines = [f"weights     {best.weights}"] if best.weights else []
        lines.append(f"best        {best.strategy}, seed {best.seed}: {best.microseconds:.2f} us")
        lines.append(
            f"kinds       {kind(self.chip)}; model us (cost model) modelled; "
            "compile s, evaluations/s measured"
        )
        if said := caution(self.chip):
            lines.append(f"caution     {said}")
        lines += [
            f"front       {point.strategy}{f', seed {point.seed}' if point.strategy in SEEDED else ''}: "
            f"{point.microseconds:.2f} us a token, period {point.period_cycles * 1e6 / point.clock_hz:.2f} us"
            for point in self.front
        ]
        if not default.error:
            ratio = best.latency_cycles / default.latency_cycles
            lines.append(
                f"default     {default.microseconds:.2f} us, tp {default.tp}; the best is {ratio:.4f} of it"
            )
        agreement = self.agreement
        if agreement is not None:
            lines.append(f"agreement   {agreement:.3f} (ranks by the cost model and by the real scheduler)")
        lines += [
            f"proved      {name}: no placement on its groups has a lower value in the cost model"
            for name in dict.fromkeys(point.strategy for point in self.good if point.proved)
        ]
        failed = dict.fromkeys(f"{point.strategy}: {point.error}" for point in self.points if point.error)
        lines += [f"failed      {text}" for text in failed]
        digests = {point.logits_sha256 for point in self.good} - {""}
        if digests:
            same = digests == {self.default.reference_sha256}
            words = "equal for every placement and to the single-device reference" if same else "DIFFER"
            lines.append(f"logits      {words}: {', '.join(sorted(one[:16] for one in digests))}")
        return "\n".join(lines)

    @property
    def bits_equal(self) -> bool | None:
        """Whether all logits have the digest of the single-device reference; None if nothing was run."""
        digests = {point.logits_sha256 for point in self.good} - {""}
        return digests == {self.default.reference_sha256} if digests else None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values. `measured` of a point was timed, all else is exact for the machine."""
        return {
            "rack": self.rack,
            "caution_factor": CAUTION_FACTOR if caution(self.chip) else None,
            "best": {"strategy": self.best.strategy, "seed": self.best.seed},
            "front": [{"strategy": point.strategy, "seed": point.seed} for point in self.front],
            "rank_agreement": self.agreement,
            "bits_equal": self.bits_equal,
            "points": [
                asdict(point)
                | {
                    "error": point.error or None,
                    "of_best": point.latency_cycles / self.best.latency_cycles if not point.error else None,
                    "of_bound": point.latency_cycles / max(point.bound_cycles, 1)
                    if not point.error
                    else None,
                }
                for point in self.points
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Comparison(Shown):
    """A comparison on one or more racks."""

    model: str
    racks: tuple[RackComparison, ...]

    def across(self) -> list[str]:
        """How the ranking on every further rack differs from that on the first."""
        first = self.racks[0].latencies()
        out: list[str] = []
        for other in self.racks[1:]:
            found = other.latencies()
            names = [name for name in first if name in found and name != DEFAULT]
            ranks = [_places([one[name] for name in names]) for one in (first, found)]
            agreement = spearman([first[name] for name in names], [found[name] for name in names])
            ratios = [{name: one[name] / min(one.values()) for name in names} for one in (first, found)]
            moved = [
                f"{name} {ranks[0][i]:g} to {ranks[1][i]:g} "
                f"({ratios[0][name]:.3f} to {ratios[1][name]:.3f} of the best)"
                for i, name in enumerate(names)
                if ranks[0][i] != ranks[1][i]
            ]
            text = "not defined" if agreement is None else f"{agreement:.3f}"
            out.append(
                f"ranking     {other.rack} against {self.racks[0].rack}: rank correlation {text}; "
                + (f"places moved: {', '.join(moved)}" if moved else "no strategy moved")
            )
        return out

    def __str__(self) -> str:
        parts = [f"{self.model} on {one.rack}\n{one}" for one in self.racks]
        return "\n".join([*parts, *self.across()])

    def drawing(self) -> Drawing:
        """Latency against period of every point, by strategy, and the front of the first rack."""
        few = len(self.racks) == 1
        series: dict[str, list[Spot]] = {}
        for one in self.racks:
            for point in one.good:
                name = point.strategy if few else f"{point.strategy} on {one.rack}"
                series.setdefault(name, []).append(_spot(point))
        title = f"{self.model} on {', '.join(one.rack for one in self.racks)}"
        front = [_spot(point) for point in self.racks[0].front]
        return points_figure(title, series, front, "latency of a token, us", "period, us")

    def records(self) -> list[dict[str, Any]]:
        """A line for each point; what was timed has `measured_` before its name."""
        return [
            {"model": self.model, "rack": one.rack}
            | {key: value for key, value in asdict(point).items() if not isinstance(value, list | dict)}
            | {f"measured_{key}": value for key, value in point.measured.items()}
            for one in self.racks
            for point in one.points
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "lpu-compare/1",
            "kind": EXACT,
            "model": self.model,
            "racks": [one.to_json() for one in self.racks],
            "rankings": self.across(),
        }


def compare(
    task: Task,
    racks: Sequence[str],
    strategies: Sequence[str],
    seeds: int,
    *,
    folder: Path | None = None,
    jobs: int = 2,
    scheduler: str | None = None,
    progress: Progress = quiet,
) -> Comparison:
    """Compare strategies on racks; `task` says the model, layout, budget, alpha and, if not 0, tp.

    A strategy that ignores the seed runs once. Raises OptionError for an unknown strategy, FileError for a
    rack on which `lpu compile` finds no program.
    """
    if not strategies or not racks:
        raise FileError(
            "compare: needs strategies and a rack. Write --strategies contiguous,annealing --rack lpx."
        )
    if seeds > MOST_SEEDS:
        raise FileError(f"compare: --seeds is {seeds}, must be at most {MOST_SEEDS}.")
    for name in strategies:
        strategy(name)
    out: list[RackComparison] = []
    with results(folder) as kept:
        for rack in racks:
            first = replace(task, rack=rack, strategy=DEFAULT)
            (default,) = run_tasks([first], kept, jobs, scheduler, progress)
            if default.error and not task.tp:
                raise FileError(f"compare: {rack}: {default.error}")
            tasks = [
                replace(first, strategy=name, seed=seed, tp=default.tp or task.tp)
                for name in dict.fromkeys(strategies)
                for seed in range(seeds if name in SEEDED or name not in STRATEGIES else 1)
            ]
            points = run_tasks(tasks, kept, jobs, scheduler, progress)
            found = RackComparison(rack=rack, points=(default, *points), chip=read_rack(rack).chip.name)
            if not found.good:
                raise FileError(
                    f"compare: {rack}: no strategy has a program; the first says {points[0].error}"
                )
            out.append(found)
    return Comparison(model=task.model, racks=tuple(out))


def _spot(point: Point) -> Spot:
    us = 1e6 / point.clock_hz
    return Spot(point.microseconds, point.period_cycles * us, f"{point.strategy}, seed {point.seed}")


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other dominates in latency and period, by latency; of equal ones the first."""
    out: list[Point] = []
    for point in sorted(points, key=lambda one: (one.latency_cycles, one.period_cycles)):
        if not out or point.period_cycles < out[-1].period_cycles:
            out.append(point)
    return out


def spearman(ones: Sequence[float | int], others: Sequence[float | int]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None if one side has one rank only."""
    a, b = _places(ones), _places(others)
    mean = (len(a) + 1) / 2
    spread = [sum((rank - mean) ** 2 for rank in ranks) for ranks in (a, b)]
    if not all(spread):
        return None
    return sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True)) / (spread[0] * spread[1]) ** 0.5


def _places(values: Sequence[float | int]) -> list[float]:
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]
