"""What lies in the SRAM of each chip, and how much of it is transient while a block runs."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int64

from compiler.analyse.live import Curve, fullest, live_words
from compiler.program.isa import WORD_BYTES
from compiler.program.manifest import Manifest
from compiler.program.program import Call, Program
from lpu.figures.drawing import LEGEND, PALETTE, Drawing, axis, colour, label
from lpu.report.occupancy import REGIONS
from lpu.report.words import size

POINTS = 400  # of a curve, at most
MOST_EVENTS = 60_000  # of all curves of a page


def memory_figure(program: Program) -> Drawing:
    """Bytes of weights, KV and transients by chip. Exact for the stated machine."""
    manifest = program.manifest
    words = manifest.region_table()[:, :, 1] * WORD_BYTES
    chips = list(range(manifest.chips))
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "name": name,
            "x": chips,
            "y": (words[:, i] / 1e6).round(4).tolist(),
            "marker": {"color": tint, "line": {"width": 0}},
            "hovertemplate": f"chip %{{x}}: {name} %{{y}} MB<extra></extra>",
        }
        for i, name, tint in ((2, "weights", PALETTE[0]), (1, "kv", PALETTE[1]), (0, "transient", PALETTE[3]))
    ]
    full = manifest.chip.sram_bytes / 1e6
    return Drawing(
        name="memory",
        title="The memory: SRAM of each chip",
        about=(
            f"Bytes of each region by chip; the line is what a chip has, {size(manifest.chip.sram_bytes)}. "
            "Exact for the stated machine."
        ),
        data=data,
        layout={
            "barmode": "stack",
            "bargap": 0,
            "xaxis": axis("chip", tickformat="d"),
            "yaxis": axis("MB"),
            "shapes": [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": full, "y1": full}],
            "legend": LEGEND,
            "height": 360,
            "margin": {"l": 60, "r": 10, "t": 40, "b": 40},
        },
        headers=("region", "on the fullest chip", "on all chips"),
        table=tuple(_totals(manifest)),
    )


def _totals(manifest: Manifest) -> list[tuple[str, ...]]:
    words = manifest.region_table()[:, :, 1]
    fullest = int(np.argmax(words.sum(axis=1)))
    return [
        (name, size(int(words[fullest, i]) * WORD_BYTES), size(int(words[:, i].sum()) * WORD_BYTES))
        for i, name in enumerate(REGIONS)
    ]


LiveBlock = tuple[Call, int, dict[int, Curve]]
"""A block's first call, how many ranks it has, and the words that wait for a reader on each chip of it."""


def live_blocks(program: Program, context: int) -> dict[int, LiveBlock]:
    """Every block that a step runs, with the transient words of its chips over its cycles."""
    first = {call.block: call for call in reversed(program.calls)}
    out: dict[int, LiveBlock] = {}
    for block, call in sorted(first.items()):
        columns = program.expand_call(call, context)
        if len(columns):
            out[block] = call, len(call.chips), live_words(columns, program.manifest)
    return out


def live_curves(live: Mapping[int, LiveBlock], context: int) -> dict[str, list[Any]]:
    """The curves of every rank of every block, from the block's first cycle: [rank, cycles, words] each.

    The page puts them where the calls are, and so has the transients of every chip over a whole step.
    """
    most = max(MOST_EVENTS // max(sum(ranks for _, ranks, _ in live.values()), 1), 16)
    out: dict[str, list[Any]] = {}
    for block, (call, _, found) in live.items():
        ranks = {chip: rank for rank, chip in enumerate(call.chips)}
        curves = out.setdefault(str(block), [])
        for chip, (times, words) in found.items():
            keep = _few(words, min(most, POINTS))
            curves.append([ranks[chip], (times[keep] - call.base[context]).tolist(), words[keep].tolist()])
    return out


def transient_figure(program: Program, context: int, live: Mapping[int, LiveBlock]) -> Drawing:
    """Transient bytes that wait for a reader on the fullest chip of each block, over its cycles.

    A value counts on a chip from its first commit there to its last read there: derived from tags, so
    lines of a value that are read early count until its last one is.
    """
    data: list[dict[str, Any]] = []
    peaks: list[tuple[str, ...]] = []
    for block, (call, _, found) in live.items():
        chip, times, words = fullest(found)
        keep = _few(words, POINTS)
        name = label(program.blocks[block].name)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "line": {"shape": "hv", "color": colour(len(data)), "width": 1.5},
                "x": (times[keep] - call.base[context]).tolist(),
                "y": (words[keep] * WORD_BYTES / 1e3).round(2).tolist(),
                "hovertemplate": f"{name}, chip {chip}<br>cycle %{{x}}: %{{y}} kB<extra></extra>",
            }
        )
        peak = int(words.max(initial=0)) * WORD_BYTES
        held = int(program.manifest.region_table()[chip, 0, 1]) * WORD_BYTES
        peaks.append((program.blocks[block].name, str(chip), size(peak), size(held)))
    return Drawing(
        name="transients",
        title="Transients over time",
        about=(
            "Transient bytes that are live on the fullest chip of each block, from the block's first cycle. "
            "A value counts from its first commit to its last read: derived from the rows."
        ),
        data=data,
        layout={
            "xaxis": axis("cycle of the block"),
            "yaxis": axis("kB", rangemode="tozero"),
            "legend": LEGEND,
            "height": 340,
            "margin": {"l": 60, "r": 10, "t": 40, "b": 40},
        },
        headers=("block", "chip", "most at once", "region"),
        table=tuple(peaks),
    )


def _few(words: Int64[np.ndarray, " events"], most: int) -> Int64[np.ndarray, " some"]:
    """Events that show the curve: the largest of each of `most` equal runs, the first and the last."""
    if len(words) <= most:
        return np.arange(len(words))
    cuts = np.linspace(0, len(words), most, dtype=np.int64)
    peaks = [int(a + np.argmax(words[a:b])) for a, b in pairwise(cuts.tolist()) if b > a]
    return np.array(sorted({0, *peaks, len(words) - 1}), np.int64)
