"""The rack: chips and links on their topology, coloured by what a program does with them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.program.isa import WORD_BYTES
from compiler.program.manifest import Manifest
from compiler.program.program import Program
from lpu.figures.drawing import LEGEND, NAME, PALETTE, SCALE, Drawing
from lpu.figures.machine import MachineUse, machine_use
from lpu.figures.places import Point, places
from lpu.report.words import percent, size
from lpu.screen import plain

BINS = 4  # widths of used links, by load
WIDE, LEGEND_HIGH = 1100, 90  # pixels of the drawing across, and of what is above it
MOST_HIGH, LEAST_HIGH = 700, 300
SHOWN = 20  # links in the table
FEW = 16  # chips of a rack of which cables without traffic are drawn from the start
WHOLE = 10  # stages of which each has its number


def rack_figure(program: Program, context: int, use: MachineUse | None = None) -> Drawing:
    """Chips by stage, load or memory, links by load. Every figure is exact for the stated machine."""
    manifest = program.manifest
    use = use or machine_use(program, context)
    at = places(manifest.levels, manifest.chips)
    metrics = _metrics(manifest, use, manifest.cycles[context])
    return Drawing(
        name="rack",
        title=f"The rack: {plain(manifest.rack, NAME)}",
        about=(
            "Every chip and every link, as they are wired. Chips without work are hollow. Links are drawn "
            "thicker the more of their lane slots are reserved; links without traffic can be shown from the "
            "legend. Exact for the stated machine."
        ),
        data=[*_links(manifest, use, at), *_chips(manifest, use, at, metrics)],
        layout={
            "xaxis": {"visible": False},
            "yaxis": {"visible": False, "scaleanchor": "x"},
            "hovermode": "closest",
            "height": _height(at),
            "legend": LEGEND,
            "margin": {"l": 10, "r": 10, "t": 40, "b": 10},
        },
        headers=("link", "lane slots reserved", "of those there are", "moved"),
        table=tuple(_busiest(manifest, use)),
    )


def _height(at: Sequence[Point]) -> int:
    """Pixels: as high as the rack is for its width, so that nothing stays empty."""
    wide, high = (max(axis) - min(axis) + 2 for axis in zip(*at, strict=True))
    return round(min(max(LEGEND_HIGH + WIDE * high / wide, LEAST_HIGH), MOST_HIGH))


def _metrics(manifest: Manifest, use: MachineUse, cycles: int) -> dict[str, list[float]]:
    """What chips can be coloured by, a number for each."""
    units = {"MXM planes": manifest.chip.planes, "VXM chains": manifest.chip.vxm_chains}
    out: dict[str, list[float]] = {"stage": use.stage.tolist()}
    for name, busy in use.busy.items():
        out[f"{name} busy, %"] = (100 * busy / max(cycles * units[name], 1)).tolist()
    total = np.sum(list(use.regions.values()), axis=0)
    out["SRAM used, %"] = (100 * total / manifest.chip.sram_bytes).tolist()
    return out


def _chips(
    manifest: Manifest, use: MachineUse, at: Sequence[Point], metrics: dict[str, list[float]]
) -> list[dict[str, Any]]:
    """A trace per metric, of which one is seen, and one of idle chips."""
    lost = list(manifest.broken.lost) if manifest.broken else []
    used = np.flatnonzero(use.stage >= 0).tolist()
    idle = [chip for chip in np.flatnonzero(use.stage < 0).tolist() if chip not in lost]
    side = 15 if manifest.chips <= 64 else 9 if manifest.chips <= 300 else 5
    words = [
        "<br>".join(
            [
                f"chip {chip}",
                *(f"{name} {values[chip]:.4g}" for name, values in metrics.items()),
                *(f"{name} {size(int(bytes_[chip]))}" for name, bytes_ in use.regions.items()),
            ]
        )
        for chip in range(manifest.chips)
    ]
    spots: dict[str, Any] = {"type": "scatter", "mode": "markers", "hoverinfo": "text"}
    out = [
        {
            **spots,
            "name": f"chips by {name}",
            "meta": name,
            "visible": i == 0,
            "x": [round(at[chip][0], 3) for chip in used],
            "y": [round(at[chip][1], 3) for chip in used],
            "text": [words[chip] for chip in used],
            "showlegend": False,
            "marker": {
                "symbol": "square",
                "size": side,
                "color": [round(values[chip], 4) for chip in used],
                "colorscale": SCALE,
                "cmin": 0,
                "cmax": max((values[chip] for chip in used), default=0) or 1,
                "colorbar": _bar(name, values),
                "line": {"width": 0.5, "color": "#555"},
            },
        }
        for i, (name, values) in enumerate(metrics.items())
    ]
    return [
        *out,
        {
            **spots,
            "name": f"{len(idle)} chips without work",
            "x": [round(at[chip][0], 3) for chip in idle],
            "y": [round(at[chip][1], 3) for chip in idle],
            "text": [words[chip] for chip in idle],
            "marker": {"symbol": "square-open", "size": side, "color": "#888"},
        },
        *([_lost(lost, manifest, at, side)] if manifest.broken else []),
    ]


def _bar(name: str, values: Sequence[float]) -> dict[str, Any]:
    """What colours mean; stages are whole numbers."""
    whole = {"tickformat": "d"} | ({"dtick": 1} if max(values) <= WHOLE else {}) if name == "stage" else {}
    return {"title": {"text": name, "side": "right"}, "thickness": 12, **whole}


def _lost(lost: list[int], manifest: Manifest, at: Sequence[Point], side: int) -> dict[str, Any]:
    """Chips that are lost, crossed; the legend names all faults."""
    assert manifest.broken is not None
    return {
        "type": "scatter",
        "mode": "markers",
        "hoverinfo": "text",
        "name": f"{len(lost)} chips lost to {plain(' '.join(manifest.broken.faults), NAME)}",
        "x": [round(at[chip][0], 3) for chip in lost],
        "y": [round(at[chip][1], 3) for chip in lost],
        "text": [f"chip {chip}: lost" for chip in lost],
        "marker": {"symbol": "x", "size": side, "color": "#c00"},
    }


def _links(manifest: Manifest, use: MachineUse, at: Sequence[Point]) -> list[dict[str, Any]]:
    """Cables in classes of load by the busier direction, and those without traffic."""
    table = manifest.link_table()
    share = use.slots / use.available
    ends: dict[tuple[int, int], float] = {}
    for (a, b), load in zip(table[:, :2].tolist(), share.tolist(), strict=True):
        key = (min(a, b), max(a, b))
        ends[key] = max(load, ends.get(key, 0.0))
    most = max(ends.values(), default=0.0)
    classes: list[list[tuple[int, int]]] = [[] for _ in range(BINS + 1)]
    for key, load in ends.items():
        classes[0 if load == 0 else min(BINS, 1 + int(BINS * load / most))].append(key)
    thin = 1.0 if manifest.chips <= 64 else 0.5 if manifest.chips <= 300 else 0.3  # else a tray is one blot
    out: list[dict[str, Any]] = []
    for index, cables in enumerate(classes):
        if not cables:
            continue
        low, high = (most * (index + i - 1) / BINS for i in (0, 1))
        load = f"{percent(low)} to {percent(high)} of lane slots" if index else "no traffic"
        name = f"{load}: {len(cables)} cable{'s' * (len(cables) > 1)}"
        out.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "visible": True if index or manifest.chips <= FEW else "legendonly",
                "hoverinfo": "skip",
                "x": [c for a, b in cables for c in (round(at[a][0], 3), round(at[b][0], 3), None)],
                "y": [c for a, b in cables for c in (round(at[a][1], 3), round(at[b][1], 3), None)],
                "line": {
                    "width": (0.6 + 1.4 * index) * thin,
                    "color": "#999999" if not index else PALETTE[(0, 5, 1, 3)[index - 1]],
                },
            }
        )
    loaded = [(key, load) for key, load in ends.items() if load]
    out.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "loads of cables",
            "showlegend": False,
            "hoverinfo": "text",
            "x": [round((at[a][0] + at[b][0]) / 2, 3) for (a, b), _ in loaded],
            "y": [round((at[a][1] + at[b][1]) / 2, 3) for (a, b), _ in loaded],
            "text": [f"{a} - {b}: {percent(load)} of lane slots" for (a, b), load in loaded],
            "marker": {"size": 6, "opacity": 0},
        }
    )
    return out


def _busiest(manifest: Manifest, use: MachineUse) -> list[tuple[str, ...]]:
    table = manifest.link_table()
    order = np.argsort(-(use.slots / use.available), kind="stable")[:SHOWN]
    return [
        (
            f"{int(table[i, 0])} -> {int(table[i, 1])}",
            f"{int(use.slots[i]):,}",
            percent(float(use.slots[i] / use.available[i])),
            size(int(use.words[i]) * WORD_BYTES),
        )
        for i in order.tolist()
        if use.slots[i]
    ]
