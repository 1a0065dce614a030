"""The GPU model against measured operators of the H200: error per row, mean absolute error per operator.

The table is a part of NVIDIA's aiconfigurator (Apache-2.0, commit 095f58a51c4ca8e61b66ec108d86f223f8d559ce).
Source: facts/gpu_model.md sections 3 and 4.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric.catalog import gpu_spec
from fabric.gpu import GpuSpec
from lpu.gpu import operators as gpu
from lpu.gpu.table import GpuTable, MeasuredPoint, read_table
from lpu.inputs.document import FileError
from lpu.validate.cases.point import PublishedPoint
from lpu.validate.cases.suite import Case, Suite

POINTS = Path(__file__).with_name("h200_points.csv")
HELD_OUT = (
    "held out from fitting, not blind: the rows were in no fit, but the form of the model was chosen on the "
    "whole table and neighbours of the rows were fitted; the limit was set after seeing the errors"
)
GATED = {
    "decode_attn": (1, "decode attention", 10),
    "decode_mla": (2, "MLA decode attention", 12),
    "context_attn": (3, "prefill attention", 10),
    "gemm": (4, "matrix products", 10),
}
"""Per operator: case, title, mean absolute error at most, percent. Source: facts/gpu_model.md section 4."""

FAR_OP, FAR_PERCENT, FAR_ROWS = "decode_attn", 25, 2
OTHERS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A GPU and the rows measured on it."""

    spec: GpuSpec
    table: GpuTable

    def rows(self, *ops: str) -> tuple[MeasuredPoint, ...]:
        """The rows of these operators. Raises FileError if there are none."""
        found = tuple(row for row in self.table.points if row.op in ops)
        if not found:
            raise FileError(f"{self.table.path}: has 0 rows of {', '.join(ops)}, the case needs 1 or more")
        return found


def catalog_bench() -> Bench:
    """The catalog's H200 and the table in this folder."""
    return Bench(spec=gpu_spec("h200"), table=read_table(POINTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Modelled:
    """An operator that the model has: the seconds of a row (None: not in its formats), and the row's name."""

    seconds: Callable[[GpuSpec, MeasuredPoint], float | None]
    name: Callable[[MeasuredPoint], str]


def modelled_seconds(spec: GpuSpec, row: MeasuredPoint) -> float | None:
    """The model's time for a row; None for an operator that it does not have."""
    known = OPERATORS.get(row.op)
    return None if known is None else known.seconds(spec, row)


def _decode(spec: GpuSpec, row: MeasuredPoint) -> float | None:
    kv = _known(row.kv_dtype, gpu.KV_BYTES)
    shape = (row.heads, row.kv_heads, row.head_dim)
    return gpu.decode_attention(spec, row.batch, row.kv_len, *shape, kv) if kv else None


def _decode_mla(spec: GpuSpec, row: MeasuredPoint) -> float | None:
    kv = _known(row.kv_dtype, gpu.KV_BYTES)
    return gpu.decode_mla(spec, row.batch, row.kv_len, row.heads, kv) if kv else None


def _context(spec: GpuSpec, row: MeasuredPoint) -> float | None:
    kv = _known(row.kv_dtype, gpu.KV_BYTES)
    shape = (row.heads, row.kv_heads, row.head_dim)
    return gpu.context_attention(spec, row.batch, row.q_len, *shape, kv, row.prefix) if kv else None


def _gemm(spec: GpuSpec, row: MeasuredPoint) -> float | None:
    kind = _known(row.compute_dtype, gpu.WEIGHT_BYTES)
    return gpu.gemm(spec, row.gemm_m, row.gemm_n, row.gemm_k, kind) if kind else None


def _all_reduce(spec: GpuSpec, row: MeasuredPoint) -> float | None:
    found = re.match(r"(\d+) GPUs.*message_size=(\d+) elements", row.extra)
    if not found or not _known(row.compute_dtype, gpu.WEIGHT_BYTES):
        return None
    count, elements = map(int, found.groups())
    return gpu.all_reduce(spec, count, elements * gpu.ACTIVATION_BYTES)


def _gemm_name(row: MeasuredPoint) -> str:
    return f"{row.id} {row.gemm_m} x {row.gemm_n} x {row.gemm_k}, {row.compute_dtype}"


def _decode_name(row: MeasuredPoint) -> str:
    return f"{row.id} batch {row.batch}, kv {row.kv_len}, {row.heads}/{row.kv_heads} heads, {row.kv_dtype}"


def _context_name(row: MeasuredPoint) -> str:
    after = f" after {row.prefix}" if row.prefix else ""
    shape = f"batch {row.batch}, {row.q_len} tokens{after}, {row.heads}/{row.kv_heads} heads"
    return f"{row.id} {shape}, {row.kv_dtype}"


def _filed_name(row: MeasuredPoint) -> str:
    return f"{row.id} {row.extra.split(' as filed')[0]}"


OPERATORS = {
    "decode_attn": Modelled(seconds=_decode, name=_decode_name),
    "decode_mla": Modelled(seconds=_decode_mla, name=_decode_name),
    "context_attn": Modelled(seconds=_context, name=_context_name),
    "gemm": Modelled(seconds=_gemm, name=_gemm_name),
    "allreduce_custom": Modelled(seconds=_all_reduce, name=_filed_name),
}


def operator_points(
    case: int, op: str, most_percent: int | float
) -> Callable[[Bench], tuple[PublishedPoint, ...]]:
    """The points of a case: every row of `op`, and their mean absolute error, at most `most_percent`.

    For decode attention also the number of rows with an error above 25 %, at most 2.
    """

    def points(bench: Bench) -> tuple[PublishedPoint, ...]:
        rows = tuple(p for row in bench.rows(op) if (p := _shown(case, bench.spec, row)))
        errors = [abs(p.error_percent) for p in rows]
        beyond = sum(error > FAR_PERCENT for error in errors)
        gates = [_gate(case, f"MAPE of {len(rows)} rows", "%", most_percent, sum(errors) / len(errors))]
        if op == FAR_OP:
            gates.append(_gate(case, f"rows beyond {FAR_PERCENT} %", "rows", FAR_ROWS, beyond))
        return (*rows, *gates)

    return points


def other_points(bench: Bench) -> tuple[PublishedPoint, ...]:
    """All-reduces for comparison, and how many rows of each other operator the model does not have."""
    rows = [row for row in bench.table.points if GATED.get(row.op) is None]
    shown = [p for row in rows if (p := _shown(OTHERS, bench.spec, row))]
    left = [row.op for row in rows if modelled_seconds(bench.spec, row) is None]
    return (
        *shown,
        *(_point(OTHERS, f"{op}, not modelled", "rows", left.count(op), 0) for op in dict.fromkeys(left)),
    )


def _shown(case: int, spec: GpuSpec, row: MeasuredPoint) -> PublishedPoint | None:
    seconds = modelled_seconds(spec, row)
    return None if seconds is None else _point(case, _name(row), "us", 1e6 * row.seconds, 1e6 * seconds)


def _point(case: int, name: str, unit: str, measured: int | float, modelled: int | float) -> PublishedPoint:
    return PublishedPoint(
        case=case,
        name=name,
        kind="shown",
        unit=unit,
        published=measured,
        modelled=modelled,
        tolerance_percent=None,
    )


def _gate(case: int, name: str, unit: str, most: int | float, value: int | float) -> PublishedPoint:
    return PublishedPoint(
        case=case,
        name=name,
        kind="gate",
        unit=unit,
        published=most,
        modelled=value,
        tolerance_percent=0,
    )


def _name(row: MeasuredPoint) -> str:
    known = OPERATORS.get(row.op)
    return _filed_name(row) if known is None else known.name(row)


def _known(name: str, names: dict[Any, Any]) -> Any:
    return name if name in names else None


CASES = (
    *(
        Case(number=number, title=title, points=operator_points(number, op, most), remark=HELD_OUT)
        for op, (number, title, most) in GATED.items()
    ),
    Case(
        number=OTHERS,
        title="all-reduce, and what is not modelled",
        points=other_points,
        remark="no verdict: the model interpolates measured all-reduces, so a row among them agrees by "
        "construction; experts and their traffic have no model",
    ),
)
SUITE = Suite(
    cases=CASES,
    machine=catalog_bench,
    sources=lambda bench: bench.spec.sources,
    figure="measured",
)
