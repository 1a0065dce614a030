"""Occupancy of a program: what keeps units and links busy, where a step's cycles go, its lower bounds.

All of it follows from the program and the chip's datasheet: it is exact for that machine, nothing was timed.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int64

from compiler.analyse.bounds import Bound, bounds, work
from compiler.analyse.chain import Chain, chain_totals, chains
from compiler.analyse.holds import holds
from compiler.program.isa import WORD_BYTES, is_transfer
from compiler.program.manifest import Manifest
from compiler.program.program import Block, Program
from lpu.report.traffic import LinkUse, Moved, link_use, moved
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
    cycles, chips = manifest.cycles[context], manifest.chips
    asked = _asked(program, context)
    used = np.flatnonzero(asked.used)
    rate = manifest.chip.sram_bytes_per_cycle * max(len(used) * cycles, 1)
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
        units=_units(program, context, asked.busy, len(used)),
        links=link_use(manifest, asked.moved, cycles),
        fullest_chip=fullest,
        sram_bytes=manifest.chip.sram_bytes,
        regions=regions,
        sram_bandwidth_share=(asked.work["weight_bytes"] + asked.work["kv_bytes"]) / rate,
        bounds=bounds(program, context),
        chains=chains(program, context),
        hops=len(manifest.hops),
        **asked.work,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What all rows of a step ask for: which chips they use, cycles of every class of units by chip.

    work: bytes and products of all chips together.
    """

    used: Bool[np.ndarray, " chips"]
    busy: dict[str, Int[np.ndarray, " chips"]]
    moved: Moved
    work: dict[str, int]


def _asked(program: Program, context: int) -> _Asked:
    """Block by block, as often as it is called: its rows differ from call to call in their chips alone."""
    manifest = program.manifest
    classes = _classes(manifest)
    used = np.zeros(manifest.chips, bool)
    busy = {name: np.zeros(manifest.chips, np.int64) for name in classes}
    totals: dict[str, int] = {"weight_bytes": 0, "kv_bytes": 0, "macs": 0}
    parts: list[Moved] = []
    for index, block in enumerate(program.blocks):
        calls = [call for call in program.calls if call.block == index]
        if not calls or not len(ranks := block.columns[context]):
            continue
        columns, count = program.expand_call(calls[0], context), len(calls[0].chips)
        hold = holds(columns, manifest)
        asked = work(ranks, manifest.kernels, manifest.rows, count)
        for name in totals:
            totals[name] += len(calls) * int(getattr(asked, name).sum())
        met = np.unique(np.append(ranks.chip, ranks.peer[ranks.peer >= 0]))
        traffic = moved(manifest, columns, ranks, hold)
        taken: dict[str, np.ndarray] = {}
        for name, (first, units) in classes.items():
            rows = (columns.unit >= first) & (columns.unit < first + units)
            taken[name] = np.bincount(ranks.chip[rows], hold[rows], count).astype(np.int64)[met]
        for call in calls:
            chips = np.array(call.chips)
            used[chips[met]] = True
            parts.append(traffic._replace(chip=chips[traffic.chip], peer=chips[traffic.peer]))
            for name, cycles in taken.items():
                busy[name][chips[met]] += cycles
    none = Moved(*(np.zeros(0, np.int64) for _ in Moved._fields))
    together = Moved(*(np.concatenate(each) for each in zip(none, *parts, strict=True)))
    return _Asked(used=used, busy=busy, moved=together, work=totals)


def _classes(manifest: Manifest) -> dict[str, tuple[int, int]]:
    """The first unit and the number of units of each class that a chip has."""
    planes, chains = manifest.chip.planes, manifest.chip.vxm_chains
    lanes = {"host lanes": (2 * planes + chains, 2)} if manifest.bridge else {}
    return {
        "MXM planes": (0, planes),
        "drains": (planes, planes),
        "VXM chains": (2 * planes, chains),
        **lanes,
    }


def _blocks(program: Program, context: int) -> tuple[BlockUse, ...]:
    """Cycles by kind of block; the end of a block in which its result only travels on is `hand-over`."""
    calls: dict[str, int] = {}
    cycles: dict[str, int] = {}
    travels = {call.block: _travel(program.blocks[call.block], context) for call in program.calls}
    travel = 0
    hand_overs = 0
    for call in program.calls:
        block, tail = program.blocks[call.block], travels[call.block]
        if not len(block.columns[context]):
            continue
        kind = kind_of(call.name)
        calls[kind] = calls.get(kind, 0) + 1
        cycles[kind] = cycles.get(kind, 0) + block.cycles[context] - (tail or 0)
        travel, hand_overs = travel + (tail or 0), hand_overs + (tail is not None)
    found = [BlockUse(kind=kind, calls=calls[kind], cycles=cycles[kind]) for kind in calls]
    return (*found, BlockUse(kind="hand-over", calls=hand_overs, cycles=travel))


def _travel(block: Block, context: int) -> int | None:
    """Cycles at the end of a block in which its result only travels on; None if it stays on its chips."""
    columns = block.columns[context]
    transfer = is_transfer(columns.op)
    leaves = transfer & ~np.isin(columns.peer, np.unique(columns.chip[~transfer]))
    if not leaves.any():
        return None
    return block.cycles[context] - int(columns.t1[~transfer].max(initial=0))


def _units(
    program: Program, context: int, busy: dict[str, Int[np.ndarray, " chips"]], used: int
) -> tuple[UnitUse, ...]:
    """Use of each class of units, of which the rows hold this many cycles by chip, on `used` chips."""
    manifest = program.manifest
    active = _active_cycles(program, context)
    out: list[UnitUse] = []
    for name, (_, units) in _classes(manifest).items():
        total = int(busy[name].sum())
        over = used * units * manifest.cycles[context]
        out.append(
            UnitUse(
                name=name,
                units=units,
                busy_cycles=tuple(busy[name].tolist()),
                busy_share=total / max(over, 1),
                active_share=total / max(active * units, 1),
            )
        )
    return tuple(out)


def _active_cycles(program: Program, context: int) -> int:
    """Sum over chips of the cycles in which a block with compute rows on the chip runs."""
    each: dict[int, int] = {}
    for index in {call.block: None for call in program.calls}:
        block = program.blocks[index]
        rows = block.columns[context]
        each[index] = block.cycles[context] * len(np.unique(rows.chip[~is_transfer(rows.op)]))
    return sum(each[call.block] for call in program.calls)


def _regions(manifest: Manifest) -> tuple[int, tuple[RegionUse, ...]]:
    """The fullest chip, and the bytes of each region there and everywhere."""
    words = manifest.region_table()[:, :, 1]
    fullest = int(np.argmax(words.sum(axis=1)))
    sizes = zip(REGIONS, words[fullest].tolist(), words.sum(axis=0).tolist(), strict=True)
    return fullest, tuple(
        RegionUse(region=name, fullest_chip_bytes=here * WORD_BYTES, total_bytes=total * WORD_BYTES)
        for name, here, total in sizes
    )
