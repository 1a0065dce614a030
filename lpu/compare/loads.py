"""Load of every chip and link for one token, and the pipeline stage of each chip."""

import numpy as np
from jaxtyping import Int64

from compiler.analyse.holds import holds, link_rows
from compiler.program.program import Program


def loads(program: Program, context: int) -> tuple[Int64[np.ndarray, " chips"], int, int]:
    """Cycles of each chip's busiest unit class; cycles of the most loaded link; sum of words times links."""
    manifest = program.manifest
    planes, chains, chips = manifest.chip.planes, manifest.chip.vxm_chains, manifest.chips
    busy = np.zeros((3, chips), np.int64)
    lanes = manifest.link_table()[:, 2]
    links = np.zeros(len(lanes), np.int64)
    hop_words = 0
    for call in program.calls:
        columns = program.expand_call(call, context)
        if not len(columns):
            continue
        hold = holds(columns, manifest)
        moved = columns.peer >= 0
        unit = np.minimum(columns.unit // planes, 2)
        for kind in range(3):
            mine = ~moved & (unit == kind)
            busy[kind] += np.bincount(columns.chip[mine], hold[mine], chips).astype(np.int64)
        rows = link_rows(manifest, columns.chip[moved], columns.peer[moved])
        links += np.bincount(rows, (hold * columns.aux)[moved], len(lanes)).astype(np.int64)
        hop_words += int(columns.n[moved].sum()) * manifest.rows
    each = -(-busy // np.array([planes, planes, chains])[:, None])
    return each.max(axis=0), int((-(-links // lanes)).max(initial=0)), hop_words


def stages(program: Program) -> list[int]:
    """Per chip the index of the first pipeline stage that uses it, in order of the step; -1: unused."""
    stage = [-1] * program.manifest.chips
    count = 0
    for call in program.calls:
        if call.name == "angles":
            continue
        block = program.blocks[call.block]
        rows = next(iter(block.columns.values()))
        own = np.unique(rows.chip[rows.peer < 0]).tolist()
        fresh = [call.chips[rank] for rank in own if stage[call.chips[rank]] < 0]
        for chip in fresh:
            stage[chip] = count
        count += bool(fresh)
    return stage
