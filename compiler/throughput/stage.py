"""A stage: the consecutive blocks of one group of chips, lowered together, and emitted block by block."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from compiler.lower.block import Plan, lower
from compiler.lower.blocks import ModelBlock
from compiler.lower.context import Group, Lowering
from compiler.lower.layout import Lines
from compiler.lower.rows import FIELDS, Kernels, Rows
from compiler.program.isa import TAG_SHIFT, TAGS, Columns
from compiler.program.packed import PLACE
from compiler.program.ranges import ramp
from compiler.route.route import Router
from compiler.schedule.allocate import FOREVER, Addresses, PerRank, allocate
from compiler.schedule.emit import emit, rename
from compiler.schedule.handed import arrived
from compiler.schedule.list_schedule import Spans, Times, spans
from compiler.schedule.template import Template, outputs, residual_lines, template_of
from compiler.throughput.modulo import PlacedRows
from compiler.throughput.problem import StageRows, stage_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class StageBody:
    """The rows of a stage for one context bucket, as one problem.

    cuts: first row of each block, and the end. offsets: what each block's value numbers are raised by.
    values: all values, residuals between the blocks once. lows: what was lowered, block by block.
    """

    problem: StageRows
    cuts: list[int]
    offsets: list[int]
    values: list[Lines]
    lows: list[Lowering]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoweredStage:
    """The blocks of a stage on the ranks of its router, by context bucket."""

    blocks: tuple[ModelBlock, ...]
    router: Router
    bodies: dict[int, StageBody]

    @property
    def ranks(self) -> int:
        """Ranks that it runs on; those behind them only take its result, or pass it on."""
        return self._group.ranks

    @property
    def targets(self) -> list[int]:
        """Ranks that its result goes to."""
        return list(self._group.targets)

    @property
    def _group(self) -> Group:
        return next(iter(self.bodies.values())).lows[-1].group


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """Where the transients of a stage begin on each rank, apart from those of other stages on the same chips.

    here: first word of its own. there: of the stage that its result goes to, -1 on ranks that it does not.
    """

    here: Int[np.ndarray, " ranks"]
    there: Int[np.ndarray, " ranks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lives:
    """Of transient lines by rank and first word: a wave's first write there, and its last write or read."""

    rank: np.ndarray
    word: np.ndarray
    first: np.ndarray
    last: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class EmittedStage:
    """Templates of a stage's blocks; the cycle of the stage at which each begins, and lives, by bucket."""

    templates: list[Template]
    starts: list[dict[int, int]]
    lives: dict[int, Lives]


def lower_stage(
    plan: Plan, blocks: tuple[ModelBlock, ...], groups: tuple[Group, ...], router: Router
) -> LoweredStage:
    """Lower the blocks, each with the group that says where its result goes."""
    bodies: dict[int, StageBody] = {}
    kernels = Kernels()
    for context in plan.contexts:
        parts: list[Rows] = []
        cuts, offsets, lows = [0], [0], list[Lowering]()
        values: dict[int, Lines] = {}
        result: Lines | None = None
        for block, group in zip(blocks, groups, strict=True):
            if result is not None:
                own = tuple(range(group.ranks))
                from_ = arrived(
                    plan.demands, block, own, parts[-1], offsets[-1], tuple(range(len(router.chips)))
                )
                group = replace(group, arrived=from_, held=result.held[: group.ranks])
            low, result = lower(plan, block, group, router, context, kernels)
            parts.append(_raised(rename(low.rows.build(), result.uid, low.uids), offsets[-1], cuts[-1]))
            for value in low.all_values(result):
                uid = value.uid + offsets[-1]
                held = value.held | values[uid].held if uid in values else value.held
                values[uid] = replace(value, uid=uid, held=held)
            cuts.append(cuts[-1] + low.rows.count)
            offsets.append(offsets[-1] + low.uids)
            lows.append(low)
        fields = (*FIELDS, "edges")
        rows = Rows(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in fields})
        bodies[context] = StageBody(
            problem=stage_rows(rows, kernels, router, plan.chip, plan.graph.batch),
            cuts=cuts,
            offsets=offsets,
            values=list(values.values()),
            lows=lows,
        )
    return LoweredStage(blocks=blocks, router=router, bodies=bodies)


def _raised(rows: Rows, uids: int, first: int) -> Rows:
    """The rows with their values numbered from `uids` on, and themselves from `first` on."""
    fields = {name: getattr(rows, name) for name in FIELDS}
    for name in TAGS:
        fields[name] = np.where(fields[name] < 0, fields[name], fields[name] + (uids << TAG_SHIFT))
    return Rows(edges=rows.edges + first, **fields)


def emit_stage(
    plan: Plan, stage: LoweredStage, placed: Mapping[int, PlacedRows], parity: int, area: Area
) -> EmittedStage:
    """Allocate and emit a placed stage; `parity` names the buffer at which its input lies in its `area`.

    The token has a line of its own: it returns to the first stage long after that one has used its buffers.
    """
    columns: list[dict[int, Columns]] = [{} for _ in stage.blocks]
    starts: list[dict[int, int]] = [{} for _ in stage.blocks]
    cycles: list[dict[int, int]] = [{} for _ in stage.blocks]
    lives: dict[int, Lives] = {}
    used = np.zeros(len(stage.router.chips), np.int64)
    addresses: Addresses | None = None
    for context, body in stage.bodies.items():
        rows, times = body.problem.times(placed[context])
        addresses, lives[context] = _addresses(plan, stage, body, rows, times, parity, area)
        used = np.maximum(used, addresses.words)
        whole = emit(rows, times, addresses)
        for i in range(len(stage.blocks)):
            part = whole.take(np.arange(body.cuts[i], body.cuts[i + 1]))
            start = int(part.t0.min(initial=int(part.t0[0]) if len(part) else 0))
            starts[i][context], cycles[i][context] = start, int(part.t1.max(initial=start)) - start
            columns[i][context] = _lowered(part, start, body.offsets[i])
    assert addresses is not None
    body = stage.bodies[plan.contexts[-1]]
    templates: list[Template] = []
    for i, (block, low) in enumerate(zip(stage.blocks, body.lows, strict=True)):
        made = template_of(low, columns[i], cycles[i], used)
        if block.result == plan.graph.token.value:
            logits, token = outputs(plan, low, addresses, body.offsets[i], body.offsets[i + 1])
            made = replace(made, logits=logits, token=token)
        templates.append(made)
    return EmittedStage(templates=templates, starts=starts, lives=lives)


def _lowered(part: Columns, start: int, uids: int) -> Columns:
    """The rows of one block from cycle 0, its values numbered from 0."""
    tags = {name: getattr(part, name) for name in TAGS}
    tags = {name: np.where(tag < 0, tag, tag - (uids << TAG_SHIFT)) for name, tag in tags.items()}
    return replace(part, t0=part.t0 - start, t1=part.t1 - start, **tags)


def _addresses(
    plan: Plan, stage: LoweredStage, body: StageBody, rows: Rows, times: Times, parity: int, area: Area
) -> tuple[Addresses, Lives]:
    """The address of every line, and for how long each word is needed.

    What a stage hands on lies in the reader's area where the reader is, and anywhere on its own ranks.
    """
    batch, ranks = plan.graph.batch, len(stage.router.chips)
    buffer = residual_lines(plan.graph) * batch
    token = stage.blocks[-1].result == plan.graph.token.value
    handed = 2 * buffer if token else (1 - parity) * buffer
    fixed: dict[int, PerRank] = {body.offsets[-1]: np.where(area.there < 0, -1, area.there + handed)}
    if stage.blocks[0].source >= 0:
        fixed[0] = area.here + parity * buffer
    floor = area.here + 2 * buffer + batch
    if token and len(plan.contexts) > 1:  # the logits lie at one place in all buckets
        logits = body.lows[-1].where[plan.graph.logits][0]
        fixed[logits.uid + body.offsets[-2]] = floor
        floor = floor + logits.lines * batch
    wrote, read = spans(rows, body.lows[0].kernels, True), spans(rows, body.lows[0].kernels, False)
    keep = [uid + offset for low, offset in zip(body.lows, body.offsets, strict=False) for uid in low.keep]
    keep += [body.offsets[-1]] if token else []  # the host reads it when the wave ends
    found = allocate(
        body.values,
        wrote,
        read,
        times,
        ranks=ranks,
        batch=batch,
        fixed=fixed,
        floor=floor,
        keep=tuple(uid for uid in keep if any(uid == value.uid for value in body.values)),
    )
    return found, _lives(found, wrote, read, times)


def _lives(addresses: Addresses, wrote: Spans, read: Spans, times: Times) -> Lives:
    """From when to when each line of SRAM belongs to a wave."""
    parts: list[tuple[np.ndarray, ...]] = []
    for span, when in ((wrote, times.t1), (read, times.t0)):
        piece = np.repeat(np.arange(len(span.row)), span.lines)
        step = ramp(span.lines)
        rank = span.rank[piece]
        parts.append((rank, addresses.of(rank, span.tag[piece] + step), when[span.row[piece]]))
    key = [PLACE.pack(rank, word) for rank, word, _ in parts]
    place, index = np.unique(np.concatenate(key), return_inverse=True)
    first, last = np.full(len(place), FOREVER), np.full(len(place), -1)
    np.minimum.at(first, index[: len(key[0])], parts[0][2])
    np.maximum.at(last, index, np.concatenate([parts[0][2], parts[1][2]]))
    rank, word = PLACE.unpack(place)
    return Lives(rank=rank, word=word, first=first, last=last)
