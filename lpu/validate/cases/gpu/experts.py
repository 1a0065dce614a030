"""Experts and MLA decode on GPUs: each model predicted without its rows, each GPU without its rows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from lpu.gpu.experts.all_to_all import H200_NODE, H800_CX7, AllToAll
from lpu.gpu.experts.kernel import BYTES
from lpu.validate.cases.gpu.expert_rows import BLACKWELL, MeasuredLaunch, predicted, rows
from lpu.validate.cases.point import Kind, PublishedPoint
from lpu.validate.cases.suite import Case, Suite

MOST = 12  # percent, mean
LEAST_ROWS = 20  # of other models, to fit a kernel to; with fewer a kernel counts as another
MODELS, DEVICES, LATENT, SKEW, EXCHANGE = 201, 202, 203, 204, 205
HIDDEN, TOPK = 7168, 8
SKEWED = 0.03  # share by which a skew must help or hurt

NODE = {
    "dispatch": {1: 11.9, 32: 16.5, 128: 35.0, 1024: 211.0},
    "combine": {1: 12.6, 32: 24.6, 128: 67.7, 1024: 481.0},
}
"""Microseconds by tokens per GPU, one node of H200. Source: facts gpu_model.md 1.3."""

NODES = {
    "dispatch": {8: 77, 16: 118, 32: 155, 64: 173, 128: 192, 256: 194},
    "combine": {8: 114, 16: 195, 32: 273, 64: 314, 128: 369, 256: 360},
}
"""Microseconds by GPUs, 128 tokens per GPU, H800 with CX7. Source: facts moe.md 3.1 (DeepEP V1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The table. of: the rows that a case may use, those beyond the datasheet left out."""

    rows: tuple[MeasuredLaunch, ...]

    def of(self, op: str) -> list[MeasuredLaunch]:
        """Rows of an op whose bytes its memory can have read."""
        return [row for row in self.rows if row.operator == op and not row.beyond_datasheet]


def table() -> Measured:
    """The table of the package."""
    return Measured(rows=rows())


def model_points(measured: Measured) -> tuple[PublishedPoint, ...]:
    """By GPU and model: rows of kernels that other models have too. Then those that have to be carried."""
    every = measured.of("moe")
    own: dict[str, list[float]] = {}
    carried: dict[str, list[float]] = {}
    for gpu, model, group in dict.fromkeys((row.gpu, row.model, row.group) for row in every):
        test = [row for row in every if (row.gpu, row.model, row.group) == (gpu, model, group)]
        train, same = _others(every, test[0])
        into = own if same else carried
        into.setdefault(f"{model} on {gpu}", []).extend(errors(train, test))
    left = [row.id for row in measured.rows if row.operator == "moe" and row.beyond_datasheet]
    return (
        *(_mean(MODELS, f"{name}, without its rows", found) for name, found in own.items()),
        _mean(MODELS, "all of them", [one for found in own.values() for one in found], gate=True),
        *(_mean(MODELS, f"{name}, kernel of no other model", found) for name, found in carried.items()),
        _count(MODELS, f"left out: faster than its memory ({left[0]} ... {left[-1]})", len(left)),
    )


def device_points(measured: Measured) -> tuple[PublishedPoint, ...]:
    """By GPU: its rows by kernels that are fitted to other GPUs."""
    return tuple(_by_device(DEVICES, measured.of("moe")))


def latent_points(measured: Measured) -> tuple[PublishedPoint, ...]:
    """The same of MLA decode."""
    return tuple(_by_device(LATENT, measured.of("mla_decode")))


def skew_points(measured: Measured) -> tuple[PublishedPoint, ...]:
    """Power law over balanced, medians: below 1 at 32-512 tokens on one GPU, above at 1K and more."""
    every = measured.of("moe")
    out: list[PublishedPoint] = []
    for ranks, low, high, helps in ((1, 32, 512, True), (8, 1024, 16384, False), (32, 1024, 16384, False)):
        some = [row for row in every if row.ranks == ranks and low <= row.tokens <= high]
        real, modelled = _ratio(some, lambda row: row.seconds), _ratio(some, _fitted(every))
        name = f"skew, {ranks} GPUs, {low} to {high} tokens"
        out.append(_point(name, "shown", "x", real, modelled, None))
        out.append(
            _point(
                f"{name}: {'helps' if helps else 'hurts'}",
                "check",
                "x",
                1 + SKEWED,
                2 - modelled if helps else modelled,
                0,
            )
        )
    return tuple(out)


def exchange_points(_: Measured) -> tuple[PublishedPoint, ...]:
    """All-to-all of one node of H200 and of many of H800."""
    out: list[PublishedPoint] = []
    for way, figures in NODE.items():
        exchange, size = H200_NODE[way]
        out += [
            _time(f"{way}, 8 H200, {tokens} tokens a GPU", us, exchange, tokens, 8, size)
            for tokens, us in figures.items()
        ]
    for way, figures in NODES.items():
        exchange, size = H800_CX7[way]
        out += [
            _time(f"{way}, {gpus} H800, 128 tokens a GPU", us, exchange, 128, gpus, size)
            for gpus, us in figures.items()
        ]
    return tuple(out)


def errors(train: Sequence[MeasuredLaunch], test: Sequence[MeasuredLaunch]) -> list[float]:
    """Signed errors in percent of rows by a kernel that is fitted to others."""
    measured = np.array([row.seconds for row in test])
    return (100 * (predicted(train, test) / measured - 1)).tolist()


def _others(every: Sequence[MeasuredLaunch], row: MeasuredLaunch) -> tuple[list[MeasuredLaunch], bool]:
    """Rows of other models to predict a model's from, and whether their kernel is the same."""
    others = [one for one in every if one.model != row.model]
    gpus = BLACKWELL if row.gpu in BLACKWELL else (row.gpu,)
    for near in ((row.gpu,), gpus):
        same = [one for one in others if one.gpu in near and one.group == row.group]
        if len(same) >= LEAST_ROWS:
            return same, True
    here = [one for one in others if one.gpu == row.gpu and BYTES[one.format] >= BYTES[row.format]]
    alike = [one for one in here if one.kernel == row.kernel] or here
    least = min(BYTES[one.format] for one in alike)
    return [one for one in alike if BYTES[one.format] == least], False


def _by_device(case: int, every: Sequence[MeasuredLaunch]) -> Iterable[PublishedPoint]:
    what = "experts" if case == DEVICES else "MLA decode"
    near: list[float] = []
    for gpu in dict.fromkeys(row.gpu for row in every):
        mine = [row for row in every if row.gpu == gpu]
        others = [row for row in every if row.gpu != gpu and (gpu not in BLACKWELL or row.gpu in BLACKWELL)]
        found: list[float] = []
        for group in dict.fromkeys(row.group for row in mine):
            train = [row for row in others if row.group == group]
            if len(train) >= LEAST_ROWS:
                found += errors(train, [row for row in mine if row.group == group])
        if gpu in BLACKWELL:
            near += found
        yield _mean(case, f"{what} on {gpu}, from {'its sister' if gpu in BLACKWELL else 'Blackwell'}", found)
    yield _mean(case, f"{what}, GPUs of one generation", near, gate=True)


def _fitted(every: Sequence[MeasuredLaunch]) -> Callable[[MeasuredLaunch], float]:
    """The seconds of each row by the kernel of the package."""
    from lpu.gpu.experts.kernel import kernels
    from lpu.validate.cases.gpu.expert_rows import by_numbers

    numbers = {(one.gpu, one.kernel, one.format): one.numbers for one in kernels()}
    return lambda row: float(by_numbers(numbers[row.gpu, row.kernel, row.format], [row])[0])


def _ratio(some: Sequence[MeasuredLaunch], seconds: Callable[[MeasuredLaunch], float]) -> float:
    balanced = {shape_key(row): seconds(row) for row in some if row.alpha == 0}
    return median(
        seconds(row) / balanced[shape_key(row)] for row in some if row.alpha and shape_key(row) in balanced
    )


def shape_key(row: MeasuredLaunch) -> tuple[object, ...]:
    """What rows that differ in their skew alone have in common."""
    return row.gpu, row.group, row.model, row.tokens, row.ranks


def _mean(case: int, name: str, found: Sequence[float], gate: bool = False) -> PublishedPoint:
    mean = float(np.mean(np.abs(found)))
    return PublishedPoint(
        case=case,
        name=f"{name}: {len(found)} rows",
        kind="gate",
        unit="% MAPE",
        published=MOST,
        modelled=mean,
        tolerance_percent=0 if gate else None,
    )


def _count(case: int, name: str, count: int) -> PublishedPoint:
    return PublishedPoint(
        case=case,
        name=name,
        kind="shown",
        unit="rows",
        published=count,
        modelled=count,
        tolerance_percent=None,
    )


def _time(name: str, us: float, exchange: AllToAll, tokens: int, gpus: int, size: float) -> PublishedPoint:
    modelled = 1e6 * exchange.seconds(tokens, HIDDEN, TOPK, gpus, size)
    return _point(name, "fit", "us", us, modelled, 16, EXCHANGE)


def _point(
    name: str,
    kind: Kind,
    unit: str,
    published: float,
    modelled: float,
    tolerance: float | None,
    case: int = SKEW,
) -> PublishedPoint:
    return PublishedPoint(
        case=case,
        name=name,
        kind=kind,
        unit=unit,
        published=published,
        modelled=modelled,
        tolerance_percent=tolerance,
        at_least=kind == "check",
    )


SUITE = Suite(
    cases=(
        Case(
            number=MODELS,
            title="experts of one layer, each model predicted without its rows",
            points=model_points,
            remark="kernels are fitted to other models' rows of the same GPU and kernel; a kernel that no "
            "other model has is carried from the nearest format and counts in no mean",
        ),
        Case(
            number=DEVICES,
            title="experts of one layer, each GPU predicted without its rows",
            points=device_points,
            remark="with datasheet ratios, from the other GPU of the generation; Blackwell to H200 is shown, "
            "and is what a projection to Rubin may be off by",
        ),
        Case(
            number=LATENT,
            title="MLA decode, each GPU predicted without its rows",
            points=latent_points,
            remark="as for experts; all rows are of one model",
        ),
        Case(
            number=SKEW,
            title="skewed routing against balanced",
            points=skew_points,
            remark="medians over all shapes; skew means fewer experts to read on one GPU, and one GPU with "
            "more rows on many; `2 - x` is compared where it helps",
        ),
        Case(
            number=EXCHANGE,
            title="all-to-all to experts and back",
            points=exchange_points,
            remark="latency and rates were fitted to these figures, four numbers for twelve of many nodes",
        ),
    ),
    machine=table,
    sources=lambda _: (),
    figure="measured",
)
