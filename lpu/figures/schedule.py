"""The schedule: the calls of a step on the groups of chips that run them, and every row of every block."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.program.instruction_set import name_of
from compiler.program.program import Call, Program
from lpu.figures.drawing import LEGEND, NAME, Drawing, axis, colour, label
from lpu.report.occupancy import kind_of
from lpu.report.overview import chips_of, named
from lpu.report.walk import ChainedBlock, block_rows
from lpu.screen import plain

MOST_ROWS = 120_000  # of all blocks together, that a page carries


def schedule_figure(program: Program, context: int) -> Drawing:
    """The calls of a step, a line per group of chips. Exact for the stated machine."""
    calls = [call for call in program.calls if len(program.blocks[call.block].columns[context])]
    lines = list(dict.fromkeys(line_of(program, call, context) for call in calls))
    kinds = list(dict.fromkeys(kind_of(call.name) for call in calls))
    data = [
        _bars(kind, colour(i), [c for c in calls if kind_of(c.name) == kind], program, context)
        for i, kind in enumerate(kinds)
    ]
    path = [
        (at, line_of(program, call, context))
        for call in calls
        for at in (call.base[context], call.base[context] + program.blocks[call.block].cycles[context])
    ]
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "critical path",
            "x": [at for at, _ in path],
            "y": [line for _, line in path],
            "line": {"color": "#000000", "width": 1, "dash": "dot"},
            "hoverinfo": "skip",
        }
    )
    return Drawing(
        name="schedule",
        title="The schedule: a step, block by block",
        about=(
            "A bar is a block of the model on the chips of its line; the dotted line is the critical path "
            "from block to block. Choose a block below to see its rows. Exact for the stated machine."
        ),
        data=data,
        layout={
            "barmode": "overlay",
            "bargap": 0.25,
            "xaxis": axis("cycle"),
            "yaxis": axis("chips", range=[len(lines) - 0.4, -0.6], type="category", categoryarray=lines),
            "hovermode": "closest",
            "height": 140 + 18 * max(len(lines), 4),
            "legend": LEGEND,
            "margin": {"l": 80, "r": 10, "t": 40, "b": 40},
        },
        headers=("block", "calls", "cycles of each", "first cycle of the first"),
        table=tuple(_blocks(program, context, calls)),
    )


def _bars(kind: str, tint: str, calls: Sequence[Call], program: Program, context: int) -> dict[str, Any]:
    long = [program.blocks[call.block].cycles[context] for call in calls]
    return {
        "type": "bar",
        "orientation": "h",
        "name": label(kind),
        "y": [line_of(program, call, context) for call in calls],
        "base": [call.base[context] for call in calls],
        "x": long,
        "customdata": [program.calls.index(call) for call in calls],
        "hoverinfo": "text",
        "textposition": "none",
        "text": [
            f"{label(call.name)}<br>cycles {call.base[context]:,} to {call.base[context] + n:,} ({n:,})"
            for call, n in zip(calls, long, strict=True)
        ],
        "marker": {"color": tint, "line": {"width": 0}},
    }


def line_of(program: Program, call: Call, context: int) -> str:
    """The chips that compute a call, as the line of a figure is named."""
    return named(chips_of(program, call, context) or list(call.chips))


def _blocks(program: Program, context: int, calls: Sequence[Call]) -> list[tuple[str, ...]]:
    by: dict[int, list[Call]] = {}
    for call in calls:
        by.setdefault(call.block, []).append(call)
    return [
        (
            program.blocks[block].name,
            f"{len(some)}",
            f"{program.blocks[block].cycles[context]:,}",
            f"{some[0].base[context]:,}",
        )
        for block, some in by.items()
    ]


def rows_of_blocks(program: Program, context: int, most: int = MOST_ROWS) -> dict[str, Any]:
    """Every row of every block, as a page draws them, by ranks and from cycle 0; and where calls put them.

    Where blocks have more than `most` rows together, each keeps those of its chain and the longest of the
    others; `left_out` says how many are missing.
    """
    chip = program.manifest.chip
    blocks = list(block_rows(program, context))
    share = most / max(sum(len(one.columns) for one in blocks), 1)
    ops = sorted({int(op) for one in blocks for op in np.unique(one.columns.op)})
    return {
        "planes": chip.planes,
        "chains": chip.vxm_chains,
        "ops": [name_of(op) for op in ops],
        "blocks": [_rows(program, context, one, ops, share) for one in blocks],
        "calls": [
            {
                "name": plain(call.name, NAME),
                "block": call.block,
                "base": call.base[context],
                "chips": list(call.chips),
            }
            for call in program.calls
        ],
    }


def _rows(
    program: Program, context: int, one: ChainedBlock, ops: Sequence[int], share: float
) -> dict[str, Any]:
    columns = program.blocks[one.block].columns[context]
    chain = [step.row for step in one.chain]
    keep = np.arange(len(columns))
    if share < 1:
        longest = one.hold.astype(np.int64).copy()
        longest[chain] = np.iinfo(np.int64).max
        count = max(int(share * len(columns)), len(chain))
        keep = np.sort(np.argsort(-longest, kind="stable")[:count])
    new = {row: i for i, row in enumerate(keep.tolist())}
    return {
        "index": one.block,
        "name": plain(program.blocks[one.block].name, NAME),
        "cycles": program.blocks[one.block].cycles[context],
        "left_out": len(columns) - len(keep),
        "op": np.searchsorted(np.array(ops), columns.op[keep]).tolist(),
        "chip": columns.chip[keep].tolist(),
        "unit": columns.unit[keep].tolist(),
        "peer": columns.peer[keep].tolist(),
        "lane": columns.lane[keep].tolist(),
        "lanes": np.where(columns.peer[keep] >= 0, columns.aux[keep], 0).tolist(),
        "n": columns.n[keep].tolist(),
        "t0": columns.t0[keep].tolist(),
        "hold": one.hold[keep].tolist(),
        "t1": columns.t1[keep].tolist(),
        "row": keep.tolist(),
        "chain": [[new[step.row], step.wait, step.unit] for step in one.chain],
    }
