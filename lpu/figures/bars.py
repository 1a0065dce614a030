"""Bounds, levers and sensitivities as bars."""

from collections.abc import Sequence
from typing import Any

from compiler.analyse.bounds import Bound
from compiler.analyse.chain import PARTS
from compiler.program.manifest import Manifest
from compiler.program.program import Program
from lpu.figures.drawing import LEGEND, PALETTE, Drawing, axis, label
from lpu.report.walk import BlockChain
from lpu.report.words import kind_of, percent

NEXT = 0.10  # what the levers are asked for, as a share of the step
STEP = 0.10  # by how much a number is moved

# Which part of a chain is proportional to which number of the chip or of a level, and which way.
# Source: docs/timing.md: hold and t1 - t0 of each row.
LEVERS: tuple[tuple[str, str, int], ...] = (
    ("link hops", "hop_ns", 1),
    ("link slots", "slot_cycles", 1),
    ("link slots", "lanes", -1),
    ("VXM latency", "vxm_latency_cycles", 1),
    ("MXM fill", "mxm_fill_cycles", 1),
    ("MXM", "weight_install_frac", -1),
    ("MXM", "sram_bytes_per_cycle", -1),
)


def bounds_figure(bounds: Sequence[Bound], cycles: int) -> Drawing:
    """Lower bounds beside the schedule. Exact for the stated machine."""
    rows = [
        *((one.name, one.cycles, one.reason) for one in bounds),
        ("the schedule", cycles, "what a step takes"),
    ]
    return Drawing(
        name="bounds",
        title="Bounds: what no order of these rows can beat",
        about="Cycles of each lower bound, and of the schedule. Exact for the stated machine.",
        data=[
            {
                "type": "bar",
                "orientation": "h",
                "y": [name for name, _, _ in rows],
                "x": [count for _, count, _ in rows],
                "marker": {"color": [PALETTE[0]] * len(bounds) + [PALETTE[3]]},
                "text": [percent(count / max(cycles, 1)) for _, count, _ in rows],
                "hovertemplate": "%{y}: %{x:,} cycles<extra></extra>",
            }
        ],
        layout=_lying(axis("cycles", rangemode="tozero"), len(rows)),
        headers=("bound", "cycles", "of the schedule", "reason"),
        table=tuple((n, f"{c:,}", percent(c / max(cycles, 1)), r) for n, c, r in rows),
    )


def levers_figure(chains: Sequence[BlockChain], cycles: int) -> Drawing:
    """Where the cycles of the critical path are, and how much less of each gives the next ten percent."""
    cells: dict[tuple[str, str], int] = {}
    for block in chains:
        for part in block.parts:
            key = part.part, block.kind
            cells[key] = cells.get(key, 0) + block.calls * part.cycles
    totals = {part: sum(c for (name, _), c in cells.items() if name == part) for part in PARTS}
    parts = sorted((part for part in PARTS if totals[part]), key=lambda part: -totals[part])
    kinds = list(dict.fromkeys(kind for _, kind in cells))
    table = [
        (part, f"{totals[part]:,}", percent(totals[part] / max(cycles, 1)), _less(totals[part], cycles))
        for part in parts
    ]
    return Drawing(
        name="levers",
        title="Where the next 10 % would come from",
        about=(
            "The rows of the critical path: what they do and what they wait for, by kind of block. The table "
            "says by how much each part would have to shrink for a step that is 10 % shorter, if the rest of "
            "the path stayed as it is. Exact for the stated machine; that the path stays is modelled."
        ),
        data=[
            {
                "type": "bar",
                "orientation": "h",
                "name": label(kind),
                "y": parts,
                "x": [cells.get((part, kind), 0) for part in parts],
                "marker": {"color": PALETTE[i % len(PALETTE)]},
                "hovertemplate": f"%{{y}} in {label(kind)}: %{{x:,}} cycles<extra></extra>",
            }
            for i, kind in enumerate(kinds)
        ],
        layout=_lying(axis("cycles of a step"), len(parts), barmode="stack", legend=LEGEND),
        headers=("part of the critical path", "cycles", "of the step", "for the next 10 %"),
        table=tuple(table),
    )


def _less(part: int, cycles: int) -> str:
    need = NEXT * cycles
    return (
        f"{percent(need / part)} less of it"
        if part >= need
        else f"not alone: at most {percent(part / cycles)}"
    )


def tornado_figure(program: Program, chains: Sequence[BlockChain], cycles: int) -> Drawing:
    """What a step takes if a number of the machine is ten percent off, the critical path kept: modelled."""
    manifest = program.manifest
    totals = {p: sum(b.calls * q.cycles for b in chains for q in b.parts if q.part == p) for p in PARTS}
    found: list[tuple[str, str, str, float, float]] = []
    for part, number, way in LEVERS:
        moved = totals[part]
        if moved:
            low, high = (_changed(moved, 1 + sign * STEP, way) for sign in (-1, 1))
            kind, source = _source(manifest, number)
            found.append((number, kind, source, low / cycles, high / cycles))
    found.append(("clock_hz", *_source(manifest, "clock_hz"), STEP / (1 - STEP), -STEP / (1 + STEP)))
    found.sort(key=lambda one: max(abs(one[3]), abs(one[4])))
    names = [f"{name} ({kind})" for name, kind, _, _, _ in found]
    return Drawing(
        name="tornado",
        title="Sensitivity: if a number of the machine is 10 % off",
        about=(
            "By how much a step is longer or shorter if one number is 10 % smaller or larger. Modelled: the "
            "critical path is kept, the schedule is not made again; lpu compile --sweep makes it again. Of "
            "clock_hz: time, not cycles, all cycle counts kept."
        ),
        data=[
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "y": names,
                "x": [round(100 * change, 4) for change in changes],
                "marker": {"color": tint, "pattern": {"shape": shape}},
                "hovertemplate": f"%{{y}}, {name}: %{{x:+.2f}} %<extra></extra>",
            }
            for name, changes, tint, shape in (
                ("10 % smaller", [one[3] for one in found], PALETTE[0], ""),
                ("10 % larger", [one[4] for one in found], PALETTE[1], "/"),
            )
        ],
        layout=_lying(
            axis("change of a step, %", zeroline=True),
            len(found),
            barmode="overlay",
            legend=LEGEND,
        ),
        headers=("number", "kind", "10 % smaller", "10 % larger", "source"),
        table=tuple(
            (name, kind, f"{100 * low:+.2f} %", f"{100 * high:+.2f} %", source)
            for name, kind, source, low, high in reversed(found)
        ),
    )


def _changed(cycles: int, factor: float, way: int) -> float:
    return cycles * (factor - 1 if way > 0 else 1 / factor - 1)


def _source(manifest: Manifest, number: str) -> tuple[str, str]:
    """The kind and the source of a number; of levels the first that has it."""
    for one in manifest.sources:
        if one.field == number or one.field.endswith(f".{number}"):
            return kind_of(one), one.source
    return "assumed", "no source is stated"


def _lying(x: dict[str, Any], bars: int, **more: Any) -> dict[str, Any]:
    return {
        "xaxis": x,
        "yaxis": axis("", automargin=True),
        "height": 120 + 30 * max(bars, 2),
        "margin": {"l": 10, "r": 10, "t": 40, "b": 40},
        **more,
    }
