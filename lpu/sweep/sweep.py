"""Sweeps: a model compiled again with assumed numbers changed one at a time, which gives a figure its band.

Each point is compiled separately: without `tp` in the options the layout is searched again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from compiler.analyse.bounds import bounds
from compiler.errors import CompileError
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.rack import Rack
from lpu.check.check import require
from lpu.figures.drawing import Drawing
from lpu.figures.results import bands_figure
from lpu.figures.shown import Shown
from lpu.folder import Progress, check_program, quiet
from lpu.inputs.document import FileError
from lpu.inputs.model import OpenModel
from lpu.report.words import CAUTION_FACTOR, EXACT, caution, kind, label_of
from lpu.sweep.keys import changed, default, planes_keep_rates

HEADERS = ("number", "value", "context", "tp", "pp", "cycles", "us", "of the default", "of the bound")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """One machine and context bucket: `value` of the number `key`, and the length of a step.

    groups: groups of the pipeline. error: why this machine cannot hold the model; figures are 0 then.
    """

    key: str
    value: str
    context: int
    tp: int = 0
    groups: int = 0
    cycles: int = 0
    microseconds: float = 0.0
    bound_cycles: int = 0
    error: str = ""

    @property
    def quality(self) -> float:
        """Cycles over the largest lower bound."""
        return self.cycles / max(self.bound_cycles, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The least and the largest microseconds of a step while one number varies, the default among them."""

    key: str
    default: str
    context: int
    least_microseconds: float
    default_microseconds: float
    most_microseconds: float
    failed: int

    def __str__(self) -> str:
        low, high = (
            us / self.default_microseconds for us in (self.least_microseconds, self.most_microseconds)
        )
        failed = f"; {self.failed} cannot be compiled" if self.failed else ""
        return (
            f"{self.key} (default {self.default}) at context {self.context}: "
            f"{self.least_microseconds:.2f} to {self.most_microseconds:.2f} us, "
            f"{low:.2f} to {high:.2f} x the default{failed}"
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sweep(Shown):
    """The default machine and every changed one; `start` gives the default value of each number swept.

    Every figure is exact for the machine of its point.
    """

    model: str
    rack: str
    chip: str
    defaults: tuple[SweepPoint, ...]
    points: tuple[SweepPoint, ...]
    start: tuple[tuple[str, str], ...]
    planes_keep_rates: bool

    def ratio(self, point: SweepPoint) -> float:
        """Microseconds over those of the default at the same context."""
        return point.microseconds / self._default(point.context).microseconds

    def bands(self) -> tuple[Band, ...]:
        """The band of every number and context."""
        out: list[Band] = []
        for key, context in dict.fromkeys((point.key, point.context) for point in self.points):
            mine = [point for point in self.points if (point.key, point.context) == (key, context)]
            usual = self._default(context).microseconds
            took = [usual, *(point.microseconds for point in mine if not point.error)]
            out.append(
                Band(
                    key=key,
                    default=dict(self.start)[key],
                    context=context,
                    least_microseconds=min(took),
                    default_microseconds=usual,
                    most_microseconds=max(took),
                    failed=sum(bool(point.error) for point in mine),
                )
            )
        return tuple(out)

    def rows(self) -> list[list[str]]:
        """The cells of a table under HEADERS."""
        return [
            [
                point.key,
                point.value,
                f"{point.context:,}",
                *(
                    ["-"] * (len(HEADERS) - 3)
                    if point.error
                    else [
                        str(point.tp),
                        str(point.groups),
                        f"{point.cycles:,}",
                        f"{point.microseconds:.2f}",
                        f"{self.ratio(point):.3f}",
                        f"{point.quality:.3f}",
                    ]
                ),
            ]
            for point in (*self.defaults, *self.points)
        ]

    def __str__(self) -> str:
        failed = {f"{point.key}={point.value}: {point.error}": None for point in self.points if point.error}
        lines = [f"kind        {kind(self.chip)}, that of each point"]
        lines += [f"band        {band}" for band in self.bands()]
        if said := caution(self.chip):
            lines.append(f"caution     {said}")
        if self.planes_keep_rates and "planes" in dict(self.start):
            lines.append(
                "planes      clock, SRAM bytes and lane slots per cycle follow: the rates are the same"
            )
        return "\n".join([*(f"failed      {line}" for line in failed), *lines])

    def drawing(self) -> Drawing:
        """The band of every number, at each context."""
        bands = [
            (
                f"{band.key} (default {band.default}), context {band.context}",
                band.least_microseconds,
                band.default_microseconds,
                band.most_microseconds,
            )
            for band in self.bands()
        ]
        return bands_figure(f"{self.model} on {self.rack}: a step while one number varies", bands, "us")

    def records(self) -> list[dict[str, Any]]:
        """A line for each point, the default ones first."""
        return [asdict(point) for point in (*self.defaults, *self.points)]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; keys carry their units."""

        def body(point: SweepPoint) -> dict[str, Any]:
            if point.error:
                return {name: getattr(point, name) for name in ("key", "value", "context", "error")}
            return asdict(point) | {
                "of_default": self.ratio(point),
                "cycles_over_bound": point.quality,
                "error": None,
            }

        return {
            "schema": "lpu-sweep/1",
            "kind": EXACT,
            "label": label_of(self.chip),
            "caution_factor": CAUTION_FACTOR if caution(self.chip) else None,
            "model": self.model,
            "rack": self.rack,
            "planes_keep_rates": self.planes_keep_rates,
            "defaults": [body(point) for point in self.defaults],
            "points": [body(point) for point in self.points],
            "bands": [asdict(band) for band in self.bands()],
        }

    def _default(self, context: int) -> SweepPoint:
        return next(point for point in self.defaults if point.context == context)


def parse_sweeps(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`planes=4,6,8` and the like, by key. Raises FileError."""
    out: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, _, rest = text.partition("=")
        values = tuple(word.strip() for word in rest.split(","))
        key = key.strip()
        if not key or not all(values):
            raise FileError(f"sweep: {text!r} is no key with values. Write --sweep planes=4,6,8.")
        if key in out:
            raise FileError(f"sweep: {key} is there twice. Write all its values behind one --sweep.")
        out[key] = values
    return out


def sweep(
    model: OpenModel,
    rack: Rack,
    values: Mapping[str, Sequence[Any]],
    options: CompileOptions,
    check: bool = True,
    progress: Progress = quiet,
) -> Sweep:
    """Compile (and check) the model for the rack, then for the rack with each value of each number.

    A machine that cannot hold the model is a point with an error; if the rack itself cannot, CompileError.
    Raises FileError for a number or a value that the rack cannot have, before anything is compiled.
    """
    asked = [(key, str(value)) for key, some in values.items() for value in some]
    racks = [changed(rack, key, value) for key, value in asked]
    progress("sweep", 0, len(asked) + 1)
    usual = _points(model, rack, options, check, "default", "")
    points: list[SweepPoint] = []
    for i, ((key, value), machine) in enumerate(zip(asked, racks, strict=True), 1):
        progress(f"sweep {key}={value}", i, len(asked) + 1)
        if machine is rack:
            points += [_renamed(point, key, value) for point in usual]
            continue
        try:
            points += _points(model, machine, options, check, key, value)
        except CompileError as error:
            points += [
                SweepPoint(key=key, value=value, context=point.context, error=str(error)) for point in usual
            ]
    return Sweep(
        model=model.name,
        rack=rack.name,
        chip=rack.chip.name,
        defaults=tuple(usual),
        points=tuple(points),
        start=tuple((key, default(rack, key)) for key in values),
        planes_keep_rates=planes_keep_rates(rack.chip),
    )


def _points(
    model: OpenModel, rack: Rack, options: CompileOptions, check: bool, key: str, value: str
) -> list[SweepPoint]:
    program = compile_program(model.source(), rack, options)
    if check:
        for report in check_program(program).values():
            require(report)
    manifest = program.manifest
    out: list[SweepPoint] = []
    for context in manifest.contexts:
        cycles = manifest.cycles[context]
        out.append(
            SweepPoint(
                key=key,
                value=value,
                context=context,
                tp=manifest.tp,
                groups=len(manifest.groups),
                cycles=cycles,
                microseconds=cycles * 1e6 / manifest.clock_hz,
                bound_cycles=max(bound.cycles for bound in bounds(program, context)),
            )
        )
    return out


def _renamed(point: SweepPoint, key: str, value: str) -> SweepPoint:
    return replace(point, key=key, value=value)
