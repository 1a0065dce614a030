"""Occupancy of a program: what keeps units and links busy, where a step's cycles go, its lower bounds.

All of it follows from the program and the chip's datasheet: it is exact for that machine, nothing was timed.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from compiler.analyse.bounds import Bound, Work, bounds, work
from compiler.analyse.chain import Chain, chain_totals, chains
from compiler.analyse.holds import holds
from compiler.program.isa import WORD_BYTES, Columns, is_transfer
from compiler.program.manifest import Manifest
from compiler.program.program import Program
from lpu.report.traffic import LinkUse, link_use
from lpu.report.words import EXACT, kind, label_of, percent, size
from lpu.screen import OnScreen

REGIONS = ("transient", "kv", "weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitUse:
    """Use of one class of units. busy_cycles: by chip, summed over its `units`.

    busy_share: share of the unit-cycles of all used chips over the whole step.
    active_share: share of the unit-cycles while a chip's own blocks run.
    """

    name: str
    units: int
    busy_cycles: tuple[int, ...]
    busy_share: float
    active_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockUse:
    """Cycles of a step in blocks of one kind, without their hand-overs, which are a separate kind."""

    kind: str
    calls: int
    cycles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionUse:
    """Bytes of one SRAM region: on the fullest chip (all regions together), and on all chips."""

    region: str
    fullest_chip_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Occupancy(OnScreen):
    """What one step of a program keeps busy. Every figure is exact for the stated machine.

    hops: number of AFD hops, counted one after another, of a program of hops; 0 for a step.
    """

    context: int
    batch: int
    chunk: int
    cycles: int
    clock_hz: int
    chip: str
    chips: int
    chips_used: int
    blocks: tuple[BlockUse, ...]
    units: tuple[UnitUse, ...]
    links: tuple[LinkUse, ...]
    fullest_chip: int
    sram_bytes: int
    regions: tuple[RegionUse, ...]
    weight_bytes: int
    kv_bytes: int
    macs: int
    sram_bandwidth_share: float
    bounds: tuple[Bound, ...]
    chains: tuple[Chain, ...]
    hops: int = 0

    @property
    def microseconds(self) -> float:
        """How long the step takes at the chip's (assumed) clock."""
        return self.cycles * 1e6 / self.clock_hz

    @property
    def title(self) -> str:
        """What `cycles` measures, for a heading."""
        if self.hops:
            return f"{self.hops} hops of {self.batch} rows"
        tokens = f" of {self.chunk} tokens" if self.chunk > 1 else ""
        return f"context {self.context}, batch {self.batch}{tokens}"

    @property
    def quality(self) -> float:
        """Cycles over the largest lower bound; 1 is a schedule that cannot be beaten with these rows."""
        return self.cycles / max([bound.cycles for bound in self.bounds] + [1])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; keys carry their units."""
        body = asdict(self)
        derived = {
            "step_microseconds": self.microseconds,
            "cycles_over_bound": self.quality,
            "chain_cycles": chain_totals(self.chains),
        }
        return {"schema": "lpu-occupancy/1", "kind": EXACT, "label": label_of(self.chip), **derived, **body}

    def __str__(self) -> str:
        return "\n".join(
            [
                f"occupancy ({kind(self.chip)}): {self.title}: {self.cycles:,} cycles = "
                f"{self.microseconds:.2f} us "
                f"{'one after another' if self.hops else 'a step'} "
                f"on {self.chips_used} of {self.chips} chips",
                "  cycles    "
                + ", ".join(f"{b.kind} {percent(b.cycles / self.cycles)}" for b in self.blocks),
                "  units     busy on all used chips | while a chip's own blocks run",
                *(
                    f"    {u.name:<12}{percent(u.busy_share):>9} | {percent(u.active_share)}"
                    for u in self.units
                ),
                "  links     lane slots reserved | busiest link | moved",
                *(str(link) for link in self.links),
                f"  sram      fullest is chip {self.fullest_chip}, of {size(self.sram_bytes)}: "
                + ", ".join(f"{r.region} {size(r.fullest_chip_bytes)}" for r in self.regions),
                f"  work      {size(self.weight_bytes)} weights and {size(self.kv_bytes)} KV installed, "
                f"{self.macs / 1e9:.3f} G MACs; "
                f"{percent(self.sram_bandwidth_share)} of the used chips' SRAM bandwidth",
                *(f"  bound     {b.name} {b.cycles:,} cycles ({b.reason})" for b in self.bounds),
                f"  quality   {self.quality:.2f} x the largest bound",
                "  chain     " + chain_line(self.chains),
            ]
        )


def occupancy(program: Program, context: int) -> Occupancy:
    """The occupancy of one step of a context bucket."""
    manifest = program.manifest
    columns = program.expand(context)
    cycles, chips = manifest.cycles[context], manifest.chips
    hold = holds(columns, manifest)
    asked = work(columns, manifest.kernels, manifest.rows, chips)
    used = np.unique(np.append(columns.chip, columns.peer[columns.peer >= 0]))
    rate = manifest.chip.sram_bytes_per_cycle * max(len(used) * cycles, 1)
    installed = int(asked.weight_bytes.sum() + asked.kv_bytes.sum())
    fullest, regions = _regions(manifest)
    return Occupancy(
        context=context,
        batch=manifest.rows // manifest.chunk,
        chunk=manifest.chunk,
        cycles=cycles,
        clock_hz=manifest.clock_hz,
        chips=chips,
        chip=manifest.chip.name,
        chips_used=len(used),
        blocks=_blocks(program, context),
        units=_units(program, context, columns, hold, used),
        links=link_use(manifest, columns, hold, cycles),
        fullest_chip=fullest,
        sram_bytes=manifest.chip.sram_bytes,
        regions=regions,
        sram_bandwidth_share=installed / rate,
        bounds=bounds(program, context),
        chains=chains(program, context),
        hops=len(manifest.hops),
        **_totals(asked),
    )


def chain_line(found: Sequence[Chain]) -> str:
    """Work and waits of the chain of rows that ends each block, as shares of the step."""
    totals = chain_totals(found)
    step = max(sum(totals.values()), 1)
    return ", ".join(f"{part} {percent(cycles / step)}" for part, cycles in totals.items() if cycles)


def call_of_rows(program: Program, context: int) -> Int64[np.ndarray, " rows"]:
    """Index of the call that each expanded row belongs to."""
    sizes = [len(program.blocks[call.block].columns[context]) for call in program.calls]
    return np.repeat(np.arange(len(sizes)), sizes)


def kind_of(name: str) -> str:
    """The kind of a block by its name: `layers.3.ffn` is an `ffn`."""
    words = [word.strip() for word in re.split(r"[._]?\d+|\.", name) if word.strip()]
    return words[-1] if words else name


def _totals(asked: Work) -> dict[str, int]:
    return {name: int(getattr(asked, name).sum()) for name in ("weight_bytes", "kv_bytes", "macs")}


def _blocks(program: Program, context: int) -> tuple[BlockUse, ...]:
    """Cycles by kind of block; the end of a block in which its result only travels on is `hand-over`."""
    calls: dict[str, int] = {}
    cycles: dict[str, int] = {}
    travel = 0
    hand_overs = 0
    for call in program.calls:
        block = program.blocks[call.block]
        columns, length = block.columns[context], block.cycles[context]
        if not len(columns):
            continue
        moved = is_transfer(columns.op)
        own = np.unique(columns.chip[~moved])
        leaves = moved & ~np.isin(columns.peer, own)
        tail = length - int(columns.t1[~moved].max(initial=0)) if leaves.any() else 0
        kind = kind_of(call.name)
        calls[kind] = calls.get(kind, 0) + 1
        cycles[kind] = cycles.get(kind, 0) + length - tail
        travel, hand_overs = travel + tail, hand_overs + bool(leaves.any())
    found = [BlockUse(kind=kind, calls=calls[kind], cycles=cycles[kind]) for kind in calls]
    return (*found, BlockUse(kind="hand-over", calls=hand_overs, cycles=travel))


def _units(
    program: Program,
    context: int,
    columns: Columns,
    hold: Int[np.ndarray, " rows"],
    used: Int[np.ndarray, " used_chips"],
) -> tuple[UnitUse, ...]:
    """Use of each class of units on the chips `used`, by rows that hold their unit for `hold` cycles."""
    manifest = program.manifest
    planes, chains = manifest.chip.planes, manifest.chip.vxm_chains
    active = _active_cycles(program, context)
    lanes = [("host lanes", 2 * planes + chains, 2)] if manifest.bridge else []
    out: list[UnitUse] = []
    for name, first, units in (
        ("MXM planes", 0, planes),
        ("drains", planes, planes),
        ("VXM chains", 2 * planes, chains),
        *lanes,
    ):
        rows = (columns.unit >= first) & (columns.unit < first + units)
        busy = np.bincount(columns.chip[rows], hold[rows], manifest.chips).astype(np.int64)
        over = len(used) * units * manifest.cycles[context]
        share = int(busy.sum()) / max(over, 1), int(busy.sum()) / max(active * units, 1)
        out.append(
            UnitUse(
                name=name,
                units=units,
                busy_cycles=tuple(busy.tolist()),
                busy_share=share[0],
                active_share=share[1],
            )
        )
    return tuple(out)


def _active_cycles(program: Program, context: int) -> int:
    """Sum over chips of the cycles in which a block with compute rows on the chip runs."""
    total = 0
    for call in program.calls:
        block = program.blocks[call.block]
        columns = block.columns[context]
        total += block.cycles[context] * len(np.unique(columns.chip[~is_transfer(columns.op)]))
    return total


def _regions(manifest: Manifest) -> tuple[int, tuple[RegionUse, ...]]:
    """The fullest chip, and the bytes of each region there and everywhere."""
    words = manifest.region_table()[:, :, 1]
    fullest = int(np.argmax(words.sum(axis=1)))
    sizes = zip(REGIONS, words[fullest].tolist(), words.sum(axis=0).tolist(), strict=True)
    return fullest, tuple(
        RegionUse(region=name, fullest_chip_bytes=here * WORD_BYTES, total_bytes=total * WORD_BYTES)
        for name, here, total in sizes
    )
