"""What each chip and each link of a program does in a step: the numbers behind the picture of a rack."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from compiler.analyse.holds import holds, link_rows
from compiler.program.isa import WORD_BYTES, is_transfer
from compiler.program.program import Program
from lpu.report.occupancy import REGIONS
from lpu.report.traffic import link_levels


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineUse:
    """By chip: the stage (-1 for a chip without work), cycles of its units, bytes of its regions.

    busy: cycles that all units of a class together are held, by class. slots: by link, lane slots reserved;
    words: moved over it. live: by chip, the most bytes of transients at once is at most its region.
    """

    stage: Int64[np.ndarray, " chips"]
    busy: dict[str, Int64[np.ndarray, " chips"]]
    regions: dict[str, Int64[np.ndarray, " chips"]]
    slots: Int64[np.ndarray, " links"]
    available: Int64[np.ndarray, " links"]
    words: Int64[np.ndarray, " links"]
    level: Int64[np.ndarray, " links"]


def machine_use(program: Program, context: int) -> MachineUse:
    """The use of every chip and link in one step."""
    manifest = program.manifest
    links, chips = manifest.link_table(), manifest.chips
    planes = manifest.chip.planes
    busy = {name: np.zeros(chips, np.int64) for name in ("MXM planes", "VXM chains")}
    slots, words = np.zeros(len(links), np.int64), np.zeros(len(links), np.int64)
    stage = np.full(chips, -1, np.int64)
    count = 0
    for call in program.calls:
        columns = program.expand_call(call, context)
        if not len(columns):
            continue
        hold, moved = holds(columns, manifest), is_transfer(columns.op)
        for name, rows in (
            ("MXM planes", ~moved & (columns.unit < planes)),
            ("VXM chains", ~moved & (columns.unit >= 2 * planes)),
        ):
            busy[name] += np.bincount(columns.chip[rows], hold[rows], chips).astype(np.int64)
        which = link_rows(manifest, columns.chip[moved], columns.peer[moved])
        slots += np.bincount(which, hold[moved] // links[which, 4] * columns.aux[moved], len(links)).astype(
            np.int64
        )
        words += np.bincount(which, columns.n[moved] * manifest.rows, len(links)).astype(np.int64)
        own = np.unique(columns.chip[~moved])
        fresh = own[stage[own] < 0]
        stage[fresh] = count
        count += bool(len(fresh))
    regions = manifest.region_table()[:, :, 1] * WORD_BYTES
    return MachineUse(
        stage=stage,
        busy=busy,
        regions={name: regions[:, i] for i, name in enumerate(REGIONS)},
        slots=slots,
        available=np.maximum(manifest.cycles[context] // links[:, 4] * links[:, 2], 1),
        words=words,
        level=link_levels(manifest),
    )
