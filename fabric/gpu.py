"""The datasheet of one GPU and the efficiencies of its kernels: plain numbers, each with its source."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import pairwise
from math import isfinite
from typing import Any

from fabric.chip import Sourced

ABSENT_AT_ZERO = ("tw_seconds", "s_half")
MAY_BE_ZERO = ("band", "tw_seconds", "s_half", "t0_seconds")
SHARES = {"eb": 1.0, "ef": 2.0, "band": 1.0}  # ef of fp8 kernels is relative to the 16-bit peak: may pass 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """How one kernel uses the GPU: launch, wave and roofline. Source: facts/gpu_model.md section 1.

    t0_seconds: a launch with no work. eb: share of the memory bandwidth. ef: share of the peak FLOP/s
    that the formula names. tw_seconds: one wave of tiles over all SMs (decode attention). s_half: queries
    at which a context kernel reaches half of `ef`. The last two are 0 in operators without such a term.
    """

    t0_seconds: int | float
    eb: int | float
    ef: int | float
    tw_seconds: int | float = 0.0
    s_half: int | float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AllReduce:
    """Measured all-reduces among GPUs of one node. Source: facts/gpu_model.md section 1.3.

    gpus: number of GPUs in the measurement. points: (bytes of the tensor on each GPU, seconds), ascending.
    link_bytes_per_second: of one GPU of the measured machine, one direction. floors: (GPUs, seconds) of the
    smallest message.
    """

    gpus: int
    link_bytes_per_second: int | float
    points: tuple[tuple[int, int | float], ...]
    floors: tuple[tuple[int, int | float], ...]

    def __post_init__(self) -> None:
        for name, least in (("points", 3), ("floors", 1)):
            rows = getattr(self, name)
            if len(rows) < least or any(not (a > 0 and isfinite(t) and t > 0) for a, t in rows):
                raise ValueError(f"all_reduce.{name}: {rows} needs {least} rows or more, all numbers above 0")
            for (a, t), (b, u) in pairwise(rows):
                if a >= b or t > u:
                    raise ValueError(f"all_reduce.{name}: ({b}, {u}) follows ({a}, {t}), both must ascend")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSpec:
    """What one GPU can do, and what its kernels make of it. Which formula uses which number: docs/gpu.md.

    flops_*: dense peaks; a GPU without FP4 leaves flops_fp4 and gemm_nvfp4 out (None).
    nvlink_bytes_per_second, nic_bytes_per_second: one direction. nvlink_gpus: GPUs that reach each other at
    that rate. launch_seconds: of one element-wise kernel. decode, mla and context: by the format of the KV
    cache; gemm: by the format of the product. band: relative half-width to print beside every time (0: none
    is stated). carried_from: GPUs whose efficiencies were carried over, unmeasured here. sources: one entry
    per number, see `sourced_names`.
    """

    name: str
    sms: int
    memory_bytes: int
    memory_bytes_per_second: int | float
    flops_bf16: int | float
    flops_fp8: int | float
    nvlink_bytes_per_second: int | float
    nvlink_gpus: int
    nic_bytes_per_second: int | float
    launch_seconds: int | float
    decode_bf16: Efficiency
    decode_fp8: Efficiency
    mla_bf16: Efficiency
    mla_fp8: Efficiency
    context_bf16: Efficiency
    context_fp8: Efficiency
    gemm_bf16: Efficiency
    gemm_fp8: Efficiency
    gemm_fp8_block: Efficiency
    all_reduce: AllReduce
    flops_fp4: int | float | None = None
    gemm_nvfp4: Efficiency | None = None
    band: int | float = 0.0
    carried_from: tuple[str, ...] = ()
    sources: tuple[Sourced, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.numbers().items():
            last = name.rsplit(".", 1)[-1]
            least = "at least 0" if last in MAY_BE_ZERO else "above 0"
            if not isfinite(value) or value < 0 or (value == 0 and last not in MAY_BE_ZERO):
                raise ValueError(f"{name}: gpu {self.name} has {value}, needs {least}")
            if value > SHARES.get(last, value):
                raise ValueError(f"{name}: gpu {self.name} has {value}, needs at most {SHARES[last]:g}")
        if (self.flops_fp4 is None) != (self.gemm_nvfp4 is None):
            raise ValueError(f"gemm_nvfp4: gpu {self.name} needs flops_fp4 and gemm_nvfp4 both, or neither")

    def numbers(self) -> dict[str, int | float]:
        """Every number by name, dotted inside a record, in field order; the tables of all_reduce left out."""
        return dict(_numbers(self, ""))

    def sourced_names(self) -> list[str]:
        """What needs a source: every number, and the two tables of `all_reduce`."""
        return [*self.numbers(), "all_reduce.points", "all_reduce.floors"]

    def with_numbers(self, reason: str = "set by the user", **numbers: int | float) -> "GpuSpec":
        """The same GPU with other numbers of its datasheet, each marked as assumed for `reason`."""
        sources = tuple(
            Sourced(field=s.field, confidence="assumed", source=reason) if s.field in numbers else s
            for s in self.sources
        )
        return replace(self, sources=sources, **numbers)  # pyright: ignore[reportArgumentType]

    @property
    def band_text(self) -> str:
        """The band as every report prints it: `+-25 %`, or a dash where none is stated."""
        return f"+-{100 * self.band:g} %" if self.band else "-"

    @property
    def parameters_text(self) -> str:
        """Whose kernels were fitted: its own or other GPUs' (then carried over, so assumed)."""
        kernels = {s.field.split(".")[0] for s in self.sources if s.confidence == "D" and "." in s.field}
        own = (self.name,) if kernels else ()
        return ", ".join((*own, *self.carried_from))


def spread(names: list[str], sources: tuple[Sourced, ...]) -> tuple[Sourced, ...]:
    """`sources` with those of a whole record (`decode_bf16`) written out for its numbers without one."""
    own = {s.field for s in sources}
    out: list[Sourced] = []
    for source in sources:
        inside = [n for n in names if n.startswith(f"{source.field}.") and n not in own]
        out += [replace(source, field=n) for n in inside] if inside else [source]
    return tuple(out)


def _numbers(record: Any, prefix: str) -> Iterator[tuple[str, int | float]]:
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(value):
            yield from _numbers(value, f"{prefix}{field.name}.")
        elif isinstance(value, int | float) and not (field.name in ABSENT_AT_ZERO and value == 0):
            yield prefix + field.name, value
