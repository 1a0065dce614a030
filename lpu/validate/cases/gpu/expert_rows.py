"""Measured rows of experts and of MLA decode, as the formulas ask for them.

NVIDIA aiconfigurator (Apache-2.0, commit 095f58a51c4ca8e61b66ec108d86f223f8d559ce), facts gpu_moe_mla.md 7.2.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from fabric.catalog import gpu_spec
from lpu.gpu import latent
from lpu.gpu.experts import kernel
from lpu.gpu.experts.kernel import ExpertShape
from lpu.gpu.fit import Form
from lpu.inputs.document import read_text

POINTS = Path(__file__).with_name("expert_points.csv")
BLACKWELL = ("b200", "gb200")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLaunch:
    """One measured launch. asked: what it asks for; alpha: of its power law, 0 for balanced.

    kernel and format tell the groups apart that are fitted by themselves.
    """

    id: str
    operator: str
    gpu: str
    kernel: str
    format: str
    model: str
    tokens: int
    ranks: int
    alpha: float
    seconds: float
    asked: tuple[float, ...]

    @property
    def beyond_datasheet(self) -> bool:
        """Whether it read the bytes that its routing names faster than the memory is: not that routing."""
        return self.asked[0] > self.seconds

    @property
    def series(self) -> tuple[object, ...]:
        """Experts: rows that differ in their tokens alone. MLA: the row."""
        if self.operator != "moe":
            return (self.id,)
        return self.gpu, self.group, self.model, self.ranks, self.alpha

    @property
    def group(self) -> tuple[str, str, str]:
        """Rows that one kernel made."""
        return self.operator, self.kernel, self.format


FORMS: dict[str, tuple[Form, Callable[[Sequence[tuple[float, ...]]], object]]] = {
    "moe": (kernel.FORM, kernel.columns),
    "mla_decode": (latent.FORM, latent.columns),
}


@cache
def rows() -> tuple[MeasuredLaunch, ...]:
    """All rows of the table, in its order."""
    return tuple(_row(one) for one in csv.DictReader(read_text(POINTS).splitlines()))


def counted(operator: str, every: Sequence[MeasuredLaunch]) -> list[MeasuredLaunch]:
    """Rows of an op that count: all but the balanced series of which a row is beyond the datasheet.

    A balanced routing is known to the expert, so that its other rows were not routed so either. Of a power
    law the experts are means over draws: a row a little beyond tells of the draw.
    """
    mine = [row for row in every if row.operator == operator]
    wrong = {row.series for row in mine if row.beyond_datasheet and row.alpha == 0}
    return [row for row in mine if row.series not in wrong]


def predicted(train: Sequence[MeasuredLaunch], test: Sequence[MeasuredLaunch]) -> np.ndarray:
    """Seconds of rows by a kernel that is fitted to others of the same op."""
    form, columns = FORMS[test[0].operator]
    numbers = form.fit(columns([row.asked for row in train]), [row.seconds for row in train])
    return form.seconds(numbers, columns([row.asked for row in test]))


def by_numbers(numbers: dict[str, float], test: Sequence[MeasuredLaunch]) -> np.ndarray:
    """Seconds of rows by given numbers."""
    form, columns = FORMS[test[0].operator]
    return form.seconds(numbers, columns([row.asked for row in test]))


def _row(cells: dict[str, str]) -> MeasuredLaunch:
    moe, spec = cells["op"] == "moe", gpu_spec(cells["device"].lower())
    tokens = int(cells["tokens_or_batch"])
    alpha = (
        0.0 if not moe or cells["distribution"] == "balanced" else float(cells["distribution"].split("_")[-1])
    )
    if moe:
        names = ("hidden", "inter", "experts", "topk")
        shape = ExpertShape(**{name: int(cells[name]) for name in names}, ranks=int(cells["ep"]))
        asked = kernel.asked(spec, shape, tokens, cells["dtype"], alpha)
    else:
        size = 1 if cells["kv_dtype"] == "fp8" else 2
        asked = latent.asked(spec, tokens, int(cells["kv_len"]), int(cells["heads"]), size)
    return MeasuredLaunch(
        id=cells["id"],
        operator=cells["op"],
        gpu=spec.name,
        kernel=cells["kernel"],
        format=cells["dtype"] if moe else "fp8" if cells["kv_dtype"] == "fp8" else "bf16",
        model=cells["model"],
        tokens=tokens,
        ranks=int(cells["ep"] or 1),
        alpha=alpha,
        seconds=1e-6 * float(cells["latency_us"]),
        asked=asked,
    )
