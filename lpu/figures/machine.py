"""What each chip and each link of a program does in a step: the numbers behind the picture of a rack."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from compiler.analyse.holds import holds, link_rows, slot_cycles
from compiler.program.isa import WORD_BYTES, is_transfer
from compiler.program.program import Call, Program
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
    """The use of every chip and link in one step: that of each block, wherever calls place it."""
    manifest = program.manifest
    links, chips = manifest.link_table(), manifest.chips
    busy = {name: np.zeros(chips, np.int64) for name in ("MXM planes", "VXM chains")}
    slots, words = np.zeros(len(links), np.int64), np.zeros(len(links), np.int64)
    stage = np.full(chips, -1, np.int64)
    count = 0
    used: dict[int, _BlockUse | None] = {}
    for call in program.calls:
        if call.block not in used:
            used[call.block] = _of_block(program, call, context)
        own = used[call.block]
        if own is None:
            continue
        there = np.array(call.chips)
        for name, cycles in own.busy.items():
            np.add.at(busy[name], there, cycles)
        which = link_rows(manifest, there[own.a], there[own.b])
        np.add.at(slots, which, own.slots)
        np.add.at(words, which, own.words)
        mine = there[own.computes]
        fresh = mine[stage[mine] < 0]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _BlockUse:
    """What a block's rows take: by rank, and by pair of ranks (a, b) between which they send."""

    busy: dict[str, Int64[np.ndarray, " ranks"]]
    computes: Int64[np.ndarray, " some"]
    a: Int64[np.ndarray, " pairs"]
    b: Int64[np.ndarray, " pairs"]
    slots: Int64[np.ndarray, " pairs"]
    words: Int64[np.ndarray, " pairs"]


def _of_block(program: Program, call: Call, context: int) -> _BlockUse | None:
    """Of the block of a call; None for one without rows."""
    manifest, rows = program.manifest, program.blocks[call.block].columns[context]
    if not len(rows):
        return None
    columns = program.expand_call(call, context)
    ranks, planes = len(call.chips), manifest.chip.planes
    hold, moved = holds(columns, manifest), is_transfer(columns.op)

    def by_rank(some: Bool[np.ndarray, " rows"]) -> Int64[np.ndarray, " ranks"]:
        return np.bincount(rows.chip[some], hold[some], ranks).astype(np.int64)

    pair = rows.chip[moved] * ranks + rows.peer[moved]
    pairs = np.flatnonzero(np.bincount(pair, minlength=1))
    slot = slot_cycles(manifest, columns.chip[moved], columns.peer[moved])
    return _BlockUse(
        busy={
            "MXM planes": by_rank(~moved & (columns.unit < planes)),
            "VXM chains": by_rank(~moved & (columns.unit >= 2 * planes)),
        },
        computes=np.flatnonzero(np.bincount(rows.chip[~moved], minlength=1)),
        a=pairs // ranks,
        b=pairs % ranks,
        slots=np.bincount(pair, hold[moved] // slot * columns.aux[moved], 1)[pairs].astype(np.int64),
        words=np.bincount(pair, columns.n[moved] * manifest.rows, 1)[pairs].astype(np.int64),
    )
