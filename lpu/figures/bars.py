"""Bounds, levers and sensitivities as bars."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from compiler.analyse.bounds import Bound
from compiler.analyse.chain import PARTS
from lpu.figures.drawing import LEGEND, PALETTE, Drawing, axis, label
from lpu.report.walk import BlockChain
from lpu.report.words import percent

NEXT = 0.10  # what the levers are asked for, as a share of the step


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


class Swing(NamedTuple):
    """What a number does to a step if it is smaller, and if it is larger: shares of its time, and words."""

    name: str
    smaller: tuple[float | None, str]
    larger: tuple[float | None, str]


def tornado_figure(
    swings: Sequence[Swing], how: str, headers: tuple[str, ...], table: tuple[tuple[str, ...], ...]
) -> Drawing:
    """What a step takes if a number of the machine is ten percent off. how: how that was found."""
    drawn = [one for one in reversed(swings) if one.smaller[0] or one.larger[0]]
    names = [label(one.name) for one in drawn]
    sides = (
        ("10 % smaller", [one.smaller for one in drawn], PALETTE[0], ""),
        ("10 % larger", [one.larger for one in drawn], PALETTE[1], "/"),
    )
    return Drawing(
        name="tornado",
        title="Sensitivity: if a number of the machine is 10 % off",
        about=(
            "By how much of its time a step is longer or shorter if one number is 10 % smaller or larger, "
            f"whole numbers by one at least, and all others stay. {how[:1].upper()}{how[1:]}. Numbers that "
            "change nothing are in the table alone."
        ),
        data=[
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "y": names,
                "x": [None if share is None else round(100 * share, 4) for share, _ in changes],
                "text": [label(text) for _, text in changes],
                "textposition": "none",
                "marker": {"color": tint, "pattern": {"shape": shape}},
                "hovertemplate": f"%{{y}}, {name}: %{{text}}<extra></extra>",
            }
            for name, changes, tint, shape in sides
        ],
        layout=_lying(
            axis("change of a step, %", zeroline=True),
            len(drawn),
            barmode="overlay",
            legend=LEGEND,
        ),
        headers=headers,
        table=table,
    )


def _lying(x: dict[str, Any], bars: int, **more: Any) -> dict[str, Any]:
    return {
        "xaxis": x,
        "yaxis": axis("", automargin=True),
        "height": 120 + 30 * max(bars, 2),
        "margin": {"l": 10, "r": 10, "t": 40, "b": 40},
        **more,
    }
