"""Areas: the transients of each stage on its chips, apart from those of other stages on the same chips.

A wave passes two stages of a chip at different times. Words that both used would be a wave's from the first
to the second, and the chip would need as many copies of all its transients as waves enter in between.
"""

from collections.abc import Mapping

import numpy as np

from compiler.throughput.cache import StageCache
from compiler.throughput.interval import Interval
from compiler.throughput.stage import Area, LoweredStage, emit_stage


def areas(stages: StageCache, found: Mapping[int, Interval]) -> list[Area]:
    """The area of every call of a stage: behind those of the calls before it that share chips with it."""
    own = [chips[: stages.lowered[index].ranks] for index, chips in stages.calls]
    shared = np.bincount(np.concatenate([np.array(chips) for chips in own])).max() > 1
    top = np.zeros(stages.rack.chips, np.int64)
    bases: list[np.ndarray] = []
    known: dict[tuple[int, ...], np.ndarray] = {}
    for i, (index, _) in enumerate(stages.calls):
        base = np.zeros(stages.rack.chips, np.int64)
        base[list(own[i])] = top[list(own[i])]
        bases.append(base)
        if shared:
            key = (index, i % 2, *(one.placed[i][0] for one in found.values()))
            if key not in known:
                known[key] = _words(stages, stages.lowered[index], found, i)
            top[list(own[i])] += known[key][: len(own[i])]
    out: list[Area] = []
    for i, (index, chips) in enumerate(stages.calls):
        there, reader = np.full(len(chips), -1), bases[(i + 1) % len(bases)]
        targets = stages.lowered[index].targets
        there[targets] = reader[np.array(chips)[targets]]
        out.append(Area(here=bases[i][list(chips)], there=there))
    return out


def _words(stages: StageCache, stage: LoweredStage, found: Mapping[int, Interval], i: int) -> np.ndarray:
    """Words of a call's transients by rank."""
    none = np.zeros(len(stage.router.chips), np.int64)
    placed = {context: one.placed[i][1] for context, one in found.items()}
    made = emit_stage(stages.plan, stage, placed, i % 2, Area(here=none, there=none - 1))
    return made.templates[-1].transient_words
