"""Waves: placed stages -> templates, calls, and what a wave needs to follow another."""

import numpy as np

from compiler.options import CompileOptions
from compiler.program.isa import ceil_div
from compiler.program.packed import PLACE
from compiler.schedule.allocate import FOREVER
from compiler.schedule.template import Template
from compiler.scheduled import Scheduled, TemplateCall, WaveSchedule
from compiler.throughput.areas import areas
from compiler.throughput.cache import StageCache
from compiler.throughput.interval import Interval
from compiler.throughput.stage import EmittedStage, emit_stage


def emit_waves(stages: StageCache, found: dict[int, Interval], options: CompileOptions) -> Scheduled:
    """Templates and calls of all stages, and what a wave needs to follow another."""
    templates: list[Template] = []
    calls: list[TemplateCall] = []
    bases: list[dict[int, int]] = []
    made: dict[tuple[int | bytes, ...], tuple[int, EmittedStage]] = {}
    where = areas(stages, found)
    lives: dict[int, list[np.ndarray]] = {context: [] for context in stages.plan.contexts}
    for i, (index, chips) in enumerate(stages.calls):
        area, stage = where[i], stages.lowered[index]
        numbers = (one.placed[i][0] for one in found.values())
        key = (index, i % 2, area.here.tobytes(), area.there.tobytes(), *numbers)
        if key not in made:
            placed = {context: one.placed[i][1] for context, one in found.items()}
            made[key] = (len(templates), emit_stage(stages.plan, stage, placed, i % 2, area))
            templates += made[key][1].templates
        number, emitted = made[key]
        for j, block in enumerate(stages.blocks[i]):
            calls.append(TemplateCall(block=block, template=number + j, chips=chips))
            bases.append({c: one.bases[i] + emitted.starts[j][c] for c, one in found.items()})
        for context, one in found.items():
            life = emitted.lives[context]
            place = PLACE.pack(np.array(chips)[life.rank], life.word)
            lives[context].append(np.stack([place, life.first + one.bases[i], life.last + one.bases[i]]))
    out = templates[calls[-1].template]
    outputs = [PLACE.pack(calls[-1].chips[rank], word) for rank, word, _ in out.logits]
    arenas = np.ones(stages.rack.chips, np.int64)
    for context, one in found.items():
        kept = np.array(outputs, np.int64)  # until the host has read them, when the wave ends
        ends = np.stack([kept, np.full(len(kept), one.cycles), np.full(len(kept), one.cycles)])
        chip, span = _spans(np.concatenate([*lives[context], ends], axis=1))
        np.maximum.at(arenas, chip, ceil_div(span, one.interval))
    return Scheduled(
        assignment=stages.assignment,
        options=options,
        templates=templates,
        calls=calls,
        waves=WaveSchedule(
            bases=bases,
            arenas=arenas,
            cycles={context: one.cycles for context, one in found.items()},
            interval={context: one.interval for context, one in found.items()},
            bound={context: one.bound for context, one in found.items()},
            bound_of={context: one.what for context, one in found.items()},
        ),
    )


def _spans(lives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(chip, cycles that a wave needs the line) of every line; `lives` has rows place, first and last."""
    place, index = np.unique(lives[0], return_inverse=True)
    first, last = np.full(len(place), FOREVER), np.full(len(place), -1)
    np.minimum.at(first, index, lives[1])
    np.maximum.at(last, index, lives[2])
    return PLACE.unpack(place)[0], last - first + 1
