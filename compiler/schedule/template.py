"""Templates: one block lowered, scheduled, allocated and emitted for one group of chips."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from compiler.graph.graph import Graph, width
from compiler.lower.block import Plan, lower
from compiler.lower.blocks import ModelBlock
from compiler.lower.context import Group, Lowering
from compiler.lower.layout import Lines
from compiler.lower.rows import Kernels, Rows
from compiler.lower.rules import rule_of
from compiler.program.isa import F32_LANES, TAG_SHIFT, Columns, Kernel, ceil_div
from compiler.program.program import LOADS, Loads
from compiler.route.route import Router
from compiler.schedule.allocate import Addresses, allocate
from compiler.schedule.emit import emit, rename
from compiler.schedule.list_schedule import Times, schedule, spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A block in ranks and offsets, for every context bucket.

    `kernels` is what `aux` of a row indexes. `weight_words` are by rank of the group, `kv_words` of those
    beside it too, `transient_words` by every rank that it touches; `logits` (rank, address, line) and
    `token` (rank, address) are the outputs of the last block.
    """

    columns: dict[int, Columns]
    kernels: tuple[Kernel, ...]
    cycles: dict[int, int]
    loads: Loads
    maps: tuple[np.ndarray, ...]
    slots: tuple[tuple[int, int], ...]
    params: tuple[int, ...]
    weight_words: np.ndarray
    kv_words: np.ndarray
    transient_words: np.ndarray
    uids: int
    logits: list[tuple[int, int, int]]
    token: tuple[int, int] | None
    angles: tuple[str, ...]
    router: Router


def residual_lines(graph: Graph) -> int:
    """Lines of the widest value that blocks may hand on."""
    return max(
        (
            int(ceil_div(width(graph.values[n.outputs[0]]), F32_LANES))
            for n in graph.nodes
            if rule_of(n).residual
        ),
        default=0,
    )


def template(plan: Plan, block: ModelBlock, group: Group, router: Router, parity: int) -> Template:
    """Lower, schedule, allocate and emit a block for every context bucket."""
    columns: dict[int, Columns] = {}
    cycles: dict[int, int] = {}
    kernels = Kernels()
    low, logits, token, used = None, [], None, np.zeros(0, np.int64)
    for context in plan.contexts:
        low, result, rows, times = _fastest(plan, block, group, router, context, kernels)
        router = low.router
        uids = low.uids
        addresses = _addresses(plan, low, block, result, rows, times, parity)
        columns[context], cycles[context] = emit(rows, times, addresses), times.cycles
        used = np.maximum(used, addresses.words) if len(used) else addresses.words
        if block.result == plan.graph.token.value:
            logits, token = outputs(plan, low, addresses, 0, uids)
    assert low is not None
    made = template_of(low, columns, cycles, used)
    return made if token is None else replace(made, logits=logits, token=token)


def template_of(
    low: Lowering, columns: dict[int, Columns], cycles: dict[int, int], transient_words: np.ndarray
) -> Template:
    """The template of a lowered block, without outputs."""
    parts = low.weights.parts
    return Template(
        columns=columns,
        kernels=tuple(low.kernels.items),
        cycles=cycles,
        loads=Loads(**{name: _joined(parts, name) for name in LOADS}),
        maps=tuple(low.weights.maps),
        slots=tuple(low.weights.slots),
        params=tuple(int(name) for name in low.weights.tensors),
        weight_words=low.weights.words,
        kv_words=low.kv_words,
        transient_words=transient_words,
        uids=low.uids,
        logits=[],
        token=None,
        angles=tuple(sorted(low.angles)),
        router=low.router,
    )


def _fastest(
    plan: Plan, block: ModelBlock, group: Group, router: Router, context: int, kernels: Kernels
) -> "_Made":
    """A block lowered and scheduled over detours where they are no slower, else over the shortest trees.

    Its router knows no detours where none is taken: the template is then for all groups of its trees.
    """
    wide = router.copy()
    low, result = lower(plan, block, group, wide, context, kernels)
    if not any(question.detours for question in wide.answers):
        return _scheduled(low, result, plan.better)
    straight = lower(replace(plan, detours=False), block, group, router, context, kernels)
    if not low.detoured:
        return _scheduled(*straight, plan.better)
    ways = [_scheduled(*way, False) for way in (straight, (low, result))]
    made = min(ways, key=lambda way: way.times.cycles)
    return _scheduled(made.low, made.result, True) if plan.better else made


class _Made(NamedTuple):
    """A block lowered and scheduled: its rows with the value that it hands on numbered last."""

    low: Lowering
    result: Lines
    rows: Rows
    times: Times


def _scheduled(low: Lowering, result: Lines, better: bool) -> _Made:
    rows = rename(low.rows.build(), result.uid, low.uids)
    better = better and not low.lanes  # where tiles come over lanes, these decide and no order of rows
    times = schedule(rows, low.kernels, low.router, low.chip, low.batch, better=better)
    return _Made(low, result, rows, times)


def _joined(parts: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    return np.concatenate([part[name] for part in parts]) if parts else np.zeros(0, np.int64)


def _addresses(
    plan: Plan, low: Lowering, block: ModelBlock, result: Lines, rows: Rows, times: Times, parity: int
) -> Addresses:
    batch = plan.graph.batch
    buffer = residual_lines(plan.graph) * batch
    fixed = {} if block.wire else {low.uids: (1 - parity) * buffer}  # the values of a hop may lie anywhere
    if block.source >= 0 and not block.wire:
        fixed[0] = parity * buffer
    return allocate(
        low.all_values(result),
        spans(rows, low.kernels, True),
        spans(rows, low.kernels, False),
        times,
        ranks=len(low.router.chips),
        batch=batch,
        fixed=fixed,
        floor=2 * buffer,
        keep=tuple(uid for uid in low.keep if uid != result.uid),
    )


def outputs(
    plan: Plan, low: Lowering, addresses: Addresses, first_uid: int, token_uid: int
) -> tuple[list[tuple[int, int, int]], tuple[int, int]]:
    """Where the logits lie, as (rank, address, padded line), and the token as (rank, address).

    first_uid: what the block's values are numbered from in `addresses`; token_uid: the token's number there.
    """
    logits = low.where[plan.graph.logits][0]
    line = np.arange(logits.lines)
    at = addresses.of(logits.owner, logits.tag(line) + (first_uid << TAG_SHIFT))
    places = [(int(r), int(a), int(i)) for r, a, i in zip(logits.owner, at, line, strict=True)]
    return places, (0, int(addresses.of(np.zeros(1, np.int64), np.array([token_uid << TAG_SHIFT]))[0]))
