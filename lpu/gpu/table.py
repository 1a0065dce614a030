"""Measured operator times of one GPU, read from a CSV file; looked up, never extrapolated.

Columns: facts/gpu_model.md section 3. A table that supplies times is no evidence for them: the validation
compares the model with such a table and never takes times from it.
"""

import csv
from dataclasses import dataclass
from math import exp, isfinite, log
from pathlib import Path
from typing import Any

from lpu.inputs.document import FileError, read_text

FORMATS = {"bfloat16": "bf16", "float16": "fp16"}
COUNTS = ("batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim", "gemm_m", "gemm_n", "gemm_k")
TEXTS = ("id", "op", "framework", "fw_version", "kernel", "compute_dtype", "kv_dtype", "extra")
AXES = {
    "decode_attn": ("batch", "kv_len"),
    "decode_mla": ("batch", "kv_len"),
    "context_attn": ("batch", "q_len"),
    "gemm": ("gemm_m", "gemm_n", "gemm_k"),
}
"""Per operator: the axes along which a time is interpolated, one at a time."""

KEYS = {
    "decode_attn": ("kv_dtype", "heads", "kv_heads", "head_dim", "batch", "kv_len"),
    "decode_mla": ("kv_dtype", "heads", "batch", "kv_len"),
    "context_attn": ("kv_dtype", "heads", "kv_heads", "head_dim", "prefix", "batch", "q_len"),
    "gemm": ("compute_dtype", "gemm_m", "gemm_n", "gemm_k"),
}
"""Per operator: the columns that identify a point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPoint:
    """One row: a measured operator on one GPU. Counts that the operator does not have are 0."""

    line: int
    id: str
    op: str
    framework: str
    fw_version: str
    kernel: str
    compute_dtype: str
    kv_dtype: str
    extra: str
    batch: int
    q_len: int
    kv_len: int
    heads: int
    kv_heads: int
    head_dim: int
    gemm_m: int
    gemm_n: int
    gemm_k: int
    seconds: float

    @property
    def prefix(self) -> int:
        """Keys before the first query."""
        return self.kv_len - self.q_len

    def key(self) -> tuple[Any, ...]:
        """The values of `KEYS` that identify the point among those of its operator."""
        return tuple(getattr(self, name) for name in KEYS[self.op])


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuTable:
    """The points of a table. path: where it was read from."""

    path: Path
    points: tuple[MeasuredPoint, ...]

    def seconds(self, op: str, **want: int | str) -> float | None:
        """The measured time, or log-log between two points that differ in one of `AXES`; None if neither."""
        near: list[tuple[float, float]] = []
        own = [point for point in self.points if point.op == op]
        for axis in AXES[op]:
            line = [p for p in own if all(getattr(p, k) == v for k, v in want.items() if k != axis)]
            x = int(want[axis])
            below = max(
                (p for p in line if getattr(p, axis) <= x), key=lambda p: getattr(p, axis), default=None
            )
            above = min(
                (p for p in line if getattr(p, axis) >= x), key=lambda p: getattr(p, axis), default=None
            )
            if below and above:
                a, b = getattr(below, axis), getattr(above, axis)
                share = log(x / a) / log(b / a) if b > a else 0.0
                near.append((b / a, exp(log(below.seconds) + share * log(above.seconds / below.seconds))))
        return min(near)[1] if near else None

    def lookup(self, op: str, **want: int | str) -> float:
        """Like `seconds`; raises a FileError that names the operator outside the range of the table."""
        found = self.seconds(op, **want)
        if found is None:
            text = ", ".join(f"{name} {value}" for name, value in want.items())
            raise FileError(
                f"{self.path}: {op}: {text}: no measured point, nor two around it that differ in "
                f"{' or '.join(AXES[op])} alone. Use the model there."
            )
        return found


def read_table(path: Path) -> GpuTable:
    """The table in that file. Raises FileError with the line of the first bad row."""
    reader = csv.DictReader(read_text(path).splitlines(), restkey="more")
    missing = [name for name in (*TEXTS, *COUNTS, "latency_us") if name not in (reader.fieldnames or ())]
    if missing:
        raise FileError(f"{path}:1: columns are missing: {', '.join(missing)}")
    points: list[MeasuredPoint] = []
    seen: dict[tuple[Any, ...], int] = {}
    for row in reader:
        point = _point(path, reader.line_num, row)
        keyed = KEYS.get(point.op) is not None
        for key in (("id", point.id), (point.op, *point.key()) if keyed else ("id", point.id, "")):
            if key in seen:
                raise FileError(
                    f"{path}:{point.line}: {point.id}: {key} is in line {seen[key]} too; keep one of them"
                )
            seen[key] = point.line
        points.append(point)
    return GpuTable(path=path, points=tuple(points))


def _point(path: Path, line: int, row: dict[str, Any]) -> MeasuredPoint:
    if "more" in row or None in row.values():
        raise FileError(
            f"{path}:{line}: has {'more' if 'more' in row else 'fewer'} cells than the first line"
        )
    counts = {name: _number(path, line, name, row[name] or "0") for name in COUNTS}
    texts = {name: FORMATS.get(str(row[name]), str(row[name])) for name in TEXTS}
    needed = [name for name in KEYS.get(texts["op"], ()) if name in COUNTS and not counts[name]]
    if needed:
        raise FileError(f"{path}:{line}: {needed[0]}: is empty or 0, {texts['op']} needs 1 or more")
    seconds = 1e-6 * _number(path, line, "latency_us", row["latency_us"], float)
    if not seconds > 0:
        raise FileError(f"{path}:{line}: latency_us: is {row['latency_us']}, must be above 0")
    return MeasuredPoint(line=line, seconds=seconds, **texts, **counts)


def _number(path: Path, line: int, name: str, text: str, kind: Any = int) -> Any:
    try:
        value = kind(text)
    except ValueError:
        raise FileError(f"{path}:{line}: {name}: {text!r} is no {kind.__name__}") from None
    if not isfinite(value) or value < 0:
        raise FileError(f"{path}:{line}: {name}: is {text}, must be a finite number from 0 on")
    return value
