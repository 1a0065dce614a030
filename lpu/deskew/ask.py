"""`deskew`: whether no transfer of a program misses its cycle under a drift, and how much it stands."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compiler.program.manifest import Step, Waves
from lpu.compiled import ProgramLike, programs_of
from lpu.deskew.drift import PPM, crossings, tolerated_ppm
from lpu.deskew.options import DeskewOptions
from lpu.inputs.document import FileError
from lpu.legal import taken_as_legal
from lpu.report.words import kind, label_of
from lpu.screen import OnScreen, fact_lines


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Deskewed(OnScreen):
    """The verdict for a program. missed: transfers that can be late, first: the worst of them in words.

    tolerated_ppm: at these resynchronisations, infinite (None in JSON) without transfers. skew_cycles: the
    largest between two chips. cycles, with_cost: of a step, without and with the resynchronisations.
    """

    digest: str
    chip: str
    context: int
    options: DeskewOptions
    transfers: int
    missed: int
    first: str
    tolerated_ppm: float
    skew_cycles: float
    resynchronised: int
    cycles: int
    with_cost: int

    @property
    def ok(self) -> bool:
        """Whether every word is there at its cycle, whatever the clocks do within the drift."""
        return self.missed == 0

    def __str__(self) -> str:
        how = self.options
        often = "once a step" if how.every is None else f"every {how.every:,} cycles"
        most = "any" if math.isinf(self.tolerated_ppm) else f"{self.tolerated_ppm:,.2f} ppm"
        rows = [
            (
                "drift",
                f"{how.drift_ppm:g} ppm between two clocks, margin {how.margin} cycles a hop (assumed)",
            ),
            ("deskew", f"{often}, {how.cost} cycles each (assumed): {self.resynchronised:,} in a step"),
            ("skew", f"at most {self.skew_cycles:,.3f} cycles between two chips before the next one"),
            (
                "step",
                f"{self.cycles:,} cycles, {self.with_cost:,} with them at context {self.context} "
                f"({kind(self.chip)})",
            ),
            ("tolerates", f"{most}: the largest drift at which no word is late"),
            (
                "verdict",
                f"no transfer of {self.transfers:,} misses its cycle"
                if self.ok
                else f"{self.missed:,} of {self.transfers:,} transfers can miss theirs; {self.first}",
            ),
        ]
        return fact_lines(rows)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = asdict(self) | {"schema": "lpu-deskew/1", "ok": self.ok, "label": label_of(self.chip)}
        found["program_sha256"] = found.pop("digest")
        found["tolerated_ppm"] = None if math.isinf(self.tolerated_ppm) else self.tolerated_ppm
        return found


def deskew(program: ProgramLike, how: DeskewOptions | None = None) -> Deskewed:
    """Whether no transfer of a program's longest context misses its cycle while clocks drift.

    Raises FileError for waves without resynchronisations every so many cycles.
    """
    loaded, _ = programs_of(program)
    how, manifest = how or DeskewOptions(), loaded.manifest
    if not isinstance(manifest.body, Step | Waves):
        raise FileError(f"deskew: a program of kind {manifest.kind!r} has no steps. Give one that decodes.")
    if manifest.waves is not None and how.every is None:
        raise FileError("deskew: waves follow one another without an end, so --every is needed. Give cycles.")
    context = manifest.longest
    with taken_as_legal(loaded):
        rows = loaded.expand(context)
        found = crossings(rows, manifest, how.every)
    late = found.late(how.drift_ppm, how.margin)
    missed = np.flatnonzero(late > 0)
    cycles = manifest.cycles[context]
    period = how.every or cycles
    count = -(-cycles // period)
    return Deskewed(
        digest=manifest.digest,
        chip=manifest.chip.name,
        context=context,
        options=how,
        transfers=len(found.row),
        missed=len(missed),
        first=_words(found, late) if len(missed) else "",
        tolerated_ppm=tolerated_ppm(found, how.margin),
        skew_cycles=how.drift_ppm * PPM * period,
        resynchronised=count,
        cycles=cycles,
        with_cost=cycles + count * how.cost,
    )


def _words(found: Any, late: Any) -> str:
    worst = int(np.argmax(late))
    return (
        f"the worst is row {found.row[worst]} from chip {found.chip[worst]} to chip {found.peer[worst]}, due "
        f"at cycle {found.due[worst]}, up to {late[worst]:.3f} cycles late"
    )
