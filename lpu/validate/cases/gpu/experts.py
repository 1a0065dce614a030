"""Experts and MLA decode on GPUs: each model predicted without its rows, each GPU without its rows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from lpu.gpu.experts.all_to_all import H200_NODE, H800_CX7, AllToAll
from lpu.gpu.generation import SISTER, UNSEEN
from lpu.validate.cases.gpu.expert_rows import BLACKWELL, MeasuredLaunch, counted, rows
from lpu.validate.cases.gpu.left_out import OTHER_FORMATS, OTHER_KERNELS, SAME, LeftOut, left_out
from lpu.validate.cases.point import Kind, PublishedPoint
from lpu.validate.cases.suite import Case, Suite

MOST = 12  # percent, mean
ONE_MODEL = "w4a16_mxfp4"
"""A format whose kernels only one model of the table has, bound neither by bytes nor by products (by turning
4-bit weights to 16, probably): B200 takes twice as long as H200, though its memory is 1.6 times faster."""
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
    """The table. of: the rows that a case may use."""

    rows: tuple[MeasuredLaunch, ...]

    def of(self, op: str) -> list[MeasuredLaunch]:
        """Rows of an op that count."""
        return counted(op, self.rows)


def table() -> Measured:
    """The table of the package."""
    return Measured(rows=rows())


def model_points(measured: Measured) -> tuple[PublishedPoint, ...]:
    """By GPU and model; all whose kernel other models have; all but the kernel that is one model's own."""
    every = measured.of("moe")
    found = left_out(every, "model")
    counted = {row.id for row in every}
    left = [row.id for row in measured.rows if row.operator == "moe" and row.id not in counted]
    lines: list[PublishedPoint] = []
    for nearness, how in (
        (SAME, "without its rows"),
        (OTHER_FORMATS, "by other formats of its kernel"),
        (OTHER_KERNELS, "by other kernels"),
    ):
        some = [one for one in found if one.nearness == nearness]
        key = [
            f"{one.row.model}{'' if nearness == SAME else ' ' + one.row.format} on {one.row.gpu}"
            for one in some
        ]
        lines += [
            _mean(MODELS, f"{name}, {how}", [one for one, own in zip(some, key, strict=True) if own == name])
            for name in dict.fromkeys(key)
        ]
    same = [one for one in found if one.nearness == SAME]
    return (
        *lines,
        _mean(MODELS, "all whose kernel other models have", same, gate=True),
        _mean(
            MODELS, f"all but {ONE_MODEL}", [one for one in found if one.row.format != ONE_MODEL], gate=True
        ),
        _mean(MODELS, "all", found),
        _count(MODELS, f"left out: balanced, faster than its memory ({left[0]} ... {left[-1]})", len(left)),
    )


def device_points(measured: Measured) -> tuple[PublishedPoint, ...]:
    """By GPU: its rows by kernels that are fitted to other GPUs; what an unseen GPU may be off by."""
    found = left_out(measured.of("moe"), "gpu")
    apart = {one.row.id for one in found if one.row.gpu not in BLACKWELL and one.row.format == ONE_MODEL}
    other = [one for one in found if one.row.id in apart]
    return (
        *_by_device(DEVICES, "experts", [one for one in found if one.row.id not in apart]),
        _mean(DEVICES, f"experts in {ONE_MODEL} on h200, another kernel in Blackwell", other),
        _mean(DEVICES, "experts, all", found, gate=True),
    )


def latent_points(measured: Measured) -> tuple[PublishedPoint, ...]:
    """The same of MLA decode."""
    return tuple(_by_device(LATENT, "MLA decode", left_out(measured.of("mla_decode"), "gpu")))


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


def _by_device(case: int, what: str, found: Sequence[LeftOut]) -> Iterable[PublishedPoint]:
    for gpu in dict.fromkeys(one.row.gpu for one in found):
        mine = [one for one in found if one.row.gpu == gpu]
        name = f"{what} on {gpu}, from {'its sister' if gpu in BLACKWELL else 'Blackwell'}"
        yield _mean(case, name, mine, gate=True)
    for relation, band in UNSEEN[what].items():
        some = [one for one in found if (one.row.gpu in BLACKWELL) == (relation == SISTER)]
        yield PublishedPoint(
            case=case,
            name=f"{what} by {relation}, 90 % of {len(some)} rows within",
            kind="gate",
            unit="%",
            published=100 * band,
            modelled=float(np.quantile([abs(one.error) for one in some], 0.9)),
            tolerance_percent=0,
        )


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


def _mean(case: int, name: str, found: Sequence[LeftOut], gate: bool = False) -> PublishedPoint:
    mean = float(np.mean([abs(one.error) for one in found])) if found else 0.0
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
            remark="kernels are fitted to other models' rows; without 20 of the kernel on that GPU or its "
            "sister to its other formats, without those to the next wider format of other kernels. None of "
            "them predicts a kernel that one model alone has and that neither bytes nor products bind",
        ),
        Case(
            number=DEVICES,
            title="experts of one layer, each GPU predicted without its rows",
            points=device_points,
            remark="by datasheet ratios, from the sister of its generation or, H200, from both of Blackwell; "
            "fp8_block on H200 from other formats of the same kernel. The bands are those of `lpu gpus`",
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
