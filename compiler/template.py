"""Templates: one block lowered, scheduled, allocated and emitted for one group, reused where nothing differs."""

from dataclasses import dataclass

import numpy as np

from compiler.allocate import Addresses, allocate
from compiler.blocks import ModelBlock
from compiler.emit import emit, rename
from compiler.graph import Graph, View, width
from compiler.isa import F32_LANES, Columns, ceil_div
from compiler.layout import Demands, Lines, Segments, natural
from compiler.lower import Group, Lowering, lower_add, lower_argmax, lower_embed, lower_glu
from compiler.lower import lower_rms_norm, lower_rope, lower_round16
from compiler.lower_attention import lower_attention
from compiler.lower_matmul import lower_matmuls, matmul_views
from compiler.program import LOADS, Loads
from compiler.route import Router
from compiler.rows import Kernels, RowBuilder, WeightArena
from compiler.schedule import schedule, spans
from compiler.errors import UnsupportedOpError
from fabric.chip import ChipSpec

LOWER = {
    "embed": lower_embed,
    "rms_norm": lower_rms_norm,
    "rope": lower_rope,
    "round16": lower_round16,
    "attention": lower_attention,
    "glu": lower_glu,
    "add": lower_add,
    "argmax": lower_argmax,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all blocks of a compilation share."""

    graph: Graph
    demands: Demands
    chip: ChipSpec
    contexts: tuple[int, ...]
    capacity: int
    kernels: Kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A block in ranks and offsets, for every context bucket; `outputs` are kept lines: uid -> addresses [rank, line].

    `weight_words`, `kv_words` are by rank of the group, `transient_words` by every rank it touches.
    """

    columns: dict[int, Columns]
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
        (int(ceil_div(width(graph.values[n.outputs[0]]), F32_LANES)) for n in graph.nodes if n.op in ("embed", "add")),
        default=0,
    )


def lowered(plan: Plan, block: ModelBlock, group: Group, router: Router, context: int) -> tuple[Lowering, Lines]:
    """The block's rows, and the value that it hands on."""
    low = Lowering(
        graph=plan.graph,
        demands=plan.demands,
        params={value: i for i, value in enumerate(block.params)},
        group=group,
        router=router,
        chip=plan.chip,
        context=context,
        capacity=plan.capacity,
        kernels=plan.kernels,
        rows=RowBuilder(),
        weights=WeightArena(group.ranks),
        kv_words=np.zeros(group.ranks, np.int64),
    )
    if block.source >= 0:
        _take_input(low, block.source)
    groups = matmul_views(list(block.nodes))
    for node in block.nodes:
        if node.op == "matmul":
            if groups[node.inputs[0]][0] is node:
                lower_matmuls(low, groups[node.inputs[0]])
        elif node.op in LOWER:
            LOWER[node.op](low, node)
        else:
            raise UnsupportedOpError(
                "lower", f"{node.path}: {node.op} ({node.source})", "no rows are known for this op", "Use another op."
            )
    result = low.where[View(value=block.result, start=0, width=width(plan.graph.values[block.result]))][0]
    need = np.zeros((max(group.targets) + 1, result.lines), bool)
    need[list(group.targets)] = True
    low.gather(result, need)
    return low, result


def _take_input(low: Lowering, source: int) -> None:
    total = width(low.graph.values[source])
    owner, columns = natural(total, low.group.ranks)
    first = np.arange(len(owner))
    value = low.value("f32", owner, columns, first=first, count=np.ones_like(first), uid=0)
    value.held[: low.group.ranks] = True
    segments = Segments(start=0, total=total, width=F32_LANES, first=first, lines=1)
    low.where[View(value=source, start=0, width=total)] = (value, segments)


def template(plan: Plan, block: ModelBlock, group: Group, router: Router, parity: int) -> Template:
    """Lower, schedule, allocate and emit a block for every context bucket."""
    columns: dict[int, Columns] = {}
    cycles: dict[int, int] = {}
    low, logits, token, used = None, [], None, np.zeros(0, np.int64)
    for context in plan.contexts:
        low, result = lowered(plan, block, group, router, context)
        uids = low.uids
        rows = rename(low.rows.build(), result.uid, uids)
        times = schedule(rows, plan.kernels, router, plan.chip, plan.graph.batch)
        addresses = _addresses(plan, low, block, result, rows, times, parity)
        columns[context], cycles[context] = emit(rows, times, addresses), times.cycles
        used = np.maximum(used, addresses.words) if len(used) else addresses.words
        if block.result == plan.graph.token.value:
            logits, token = _outputs(plan, low, addresses, uids)
    assert low is not None
    parts = low.weights.parts
    return Template(
        columns=columns,
        cycles=cycles,
        loads=Loads(**{name: _joined(parts, name) for name in LOADS}),
        maps=tuple(low.weights.maps),
        slots=tuple(low.weights.slots),
        params=tuple(int(name) for name in low.weights.tensors),
        weight_words=low.weights.words,
        kv_words=low.kv_words,
        transient_words=used,
        uids=low.uids,
        logits=logits,
        token=token,
        angles=tuple(sorted(low.angles)),
        router=router,
    )


def _joined(parts: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    return np.concatenate([part[name] for part in parts]) if parts else np.zeros(0, np.int64)


def _addresses(plan, low, block, result, rows, times, parity) -> Addresses:  # noqa: ANN001
    batch = plan.graph.batch
    buffer = residual_lines(plan.graph) * batch
    fixed = {low.uids: (1 - parity) * buffer}
    if block.source >= 0:
        fixed[0] = parity * buffer
    return allocate(
        low.all_values(result),
        spans(rows, plan.kernels, True),
        spans(rows, plan.kernels, False),
        times,
        ranks=len(low.router.chips),
        batch=batch,
        fixed=fixed,
        floor=2 * buffer,
        keep=tuple(uid for uid in low.keep if uid != result.uid),
    )


def _outputs(
    plan: Plan, low: Lowering, addresses: Addresses, token_uid: int
) -> tuple[list[tuple[int, int, int]], tuple[int, int]]:
    """Where the logits lie, as (rank, address, padded line), and the token as (rank, address)."""
    logits = low.where[plan.graph.logits][0]
    line = np.arange(logits.lines)
    at = addresses.of(logits.owner, logits.tag(line))
    places = [(int(r), int(a), int(i)) for r, a, i in zip(logits.owner, at, line, strict=True)]
    return places, (0, int(addresses.of(np.zeros(1, np.int64), np.array([token_uid << 40]))[0]))
