"""Assembly: templates and their uses -> calls with chips, bases and cycles, SRAM regions, the manifest."""

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import lcm
from typing import Any

import numpy as np

from compiler.errors import CapacityError
from compiler.latency import Scheduled, Waves
from compiler.lower.block import Plan
from compiler.lower.rope_table import angle_block, angle_params, angle_words
from compiler.program.isa import WORD_BYTES, ceil_div
from compiler.program.program import Block, Call, Program, digest
from fabric.rack import Rack

MOST_USERS = 1 << 20  # of a model that keeps no KV


@dataclass(frozen=True, slots=True, kw_only=True)
class SramMap:
    """Words of each region on each chip; they lie in this order from address 0.

    arenas: copies of the transient words, one wave in each; users: copies of the KV words.
    """

    transient: np.ndarray
    kv: np.ndarray
    weights: np.ndarray
    arenas: np.ndarray | int = 1
    users: int = 1

    @property
    def kv_base(self) -> np.ndarray:
        """First KV word by chip."""
        return self.transient * self.arenas

    @property
    def weight_base(self) -> np.ndarray:
        """First weight word by chip."""
        return self.kv_base + self.kv * self.users

    def regions(self) -> list[list[list[int]]]:
        """[[base, words] of transients, KV, weights] by chip."""
        zero = np.zeros_like(self.transient)
        columns = (zero, self.kv_base, self.kv_base, self.kv * self.users, self.weight_base, self.weights)
        return np.stack(columns, axis=-1).reshape(-1, 3, 2).tolist()


def assemble(
    rack: Rack, model: dict[str, Any], scheduled: Scheduled, sram: SramMap, prefill: int = 0
) -> Program:
    """The program of scheduled blocks one after another.

    prefill: tokens of a chunk where there is a prefill program with the same memory image.
    """
    plan, templates, uses, groups = scheduled.plan, scheduled.templates, scheduled.uses, scheduled.groups
    graph = plan.graph
    angles = angle_block(graph, len(groups[0]), plan.contexts)
    names = {use.template: use.block.name for use in reversed(uses)}
    blocks = [angles] + [
        Block(name=names[i], columns=t.columns, cycles=t.cycles, loads=t.loads, maps=t.maps, slots=t.slots)
        for i, t in enumerate(templates)
    ]
    calls, cycles = _calls(plan, scheduled, sram)
    last, chips = templates[uses[-1].template], uses[-1].chips
    assert last.token is not None
    stated = {
        "model": model,
        "options": asdict(scheduled.options),
        "contexts": list(plan.contexts),
        "chunk": plan.chunk,
        "prefill": prefill,
        **rack.to_manifest(),
    }
    manifest: Manifest = {
        "schema": "lpu-program/1",
        "inputs": hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest(),
        "search": [asdict(candidate) for candidate in scheduled.search],
        "versions": {"lpu-emulator": version("lpu-emulator")},
        "groups": [list(group) for group in groups],
        "rows": graph.batch,
        "sequences": plan.cached,
        "capacity": plan.capacity,
        "kernels": plan.kernels.items,
        "regions": sram.regions(),
        "logits": [[chips[rank], address, line] for rank, address, line in last.logits],
        "token": [chips[last.token[0]], last.token[1]],
        "vocab": graph.values[graph.logits.value].shape[-1],
        "cycles": {str(context): count for context, count in cycles.items()},
        **_waves(scheduled.waves, sram, calls[-1].tag + templates[uses[-1].template].uids + 1),
        **stated,
    }
    program = Program(manifest=manifest, blocks=tuple(blocks), calls=tuple(calls))
    manifest.digest = digest(program)
    return program


def sram_map(rack: Rack, scheduled: Scheduled, *others: Scheduled) -> SramMap:
    """Where transients, KV and weights lie, with room for the transients of `others` too.

    Raises CapacityError if a chip is too small.
    """
    transient, kv, weights = (np.zeros(rack.chips, np.int64) for _ in range(3))
    for chips in scheduled.groups:
        weights[list(chips)] += angle_words(scheduled.plan.graph)
    for use in scheduled.uses:
        made = scheduled.templates[use.template]
        own = list(use.chips[: len(made.weight_words)])
        kv[own] += made.kv_words
        weights[own] += made.weight_words
    for each in (scheduled, *others):
        for use in each.uses:
            made = each.templates[use.template]
            touched = list(use.chips[: len(made.transient_words)])
            transient[touched] = np.maximum(transient[touched], made.transient_words)
    rows = lcm(*(each.plan.graph.batch for each in (scheduled, *others)))
    transient = ceil_div(transient, rows) * rows
    arenas = 1 if scheduled.waves is None else scheduled.waves.arenas
    users = 1 if scheduled.waves is None else scheduled.options.users
    left = rack.chip.sram_words - transient * arenas - weights
    if users is None:
        users = max(1, int((left[kv > 0] // kv[kv > 0]).min(initial=MOST_USERS)))
    worst = int(np.argmin(left - kv * users))
    if left[worst] < kv[worst] * users:
        needs = int(kv[worst] * users - left[worst]) + rack.chip.sram_words
        raise CapacityError(
            "allocate",
            f"chip {worst}",
            f"needs {needs * WORD_BYTES} bytes, a chip has {rack.chip.sram_words * WORD_BYTES}",
            "Raise --tp or --pp, or shorten the context or the batch."
            if users == 1
            else f"Give fewer --users than {users}, or shorten the context or the batch.",
        )
    return SramMap(transient=transient, kv=kv, weights=weights, arenas=arenas, users=users)


def _waves(waves: Waves | None, sram: SramMap, tags: int) -> dict[str, Any]:
    """What the manifest says of waves, if any: see `Program`."""
    if waves is None:
        return {}
    contexts = {
        str(context): {
            "interval": interval,
            "turn": max(sram.users, int(ceil_div(waves.cycles[context], interval))),
            "bound": waves.bound[context],
            "bound_of": waves.bound_of[context],
        }
        for context, interval in waves.interval.items()
    }
    body = {
        "users": sram.users,
        "arenas": waves.arenas.tolist(),
        "arena_words": sram.transient.tolist(),
        "user_words": sram.kv.tolist(),
        "tags": tags,
        "contexts": contexts,
    }
    return {"waves": body}


def _calls(plan: Plan, scheduled: Scheduled, sram: SramMap) -> tuple[list[Call], dict[int, int]]:
    """The calls in order, and the cycle at which the last one ends, per bucket."""
    templates, waves = scheduled.templates, scheduled.waves
    names = {value.index: value.name for value in plan.graph.values}
    cycle = dict.fromkeys(plan.contexts, 0)
    shared = sram.weight_base
    kv_at = sram.kv_base.copy()
    weight_at = sram.weight_base.copy()
    calls: list[Call] = []

    def call(block: int, name: str, chips: tuple[int, ...], tag: int, tensors: tuple[str, ...]) -> Call:
        at = list(chips)
        return Call(
            block=block,
            name=name,
            chips=chips,
            weight_base=tuple(weight_at[at].tolist()),
            kv_base=tuple(kv_at[at].tolist()),
            shared_base=tuple(shared[at].tolist()),
            tag=tag,
            tensors=tensors,
            base=dict(cycle),
        )

    tables = tuple(names[value] for value in angle_params(plan.graph))
    for chips in scheduled.groups:
        calls.append(call(0, "angles", chips, 0, tables))
        weight_at[list(chips)] += angle_words(plan.graph)
    tag = 1
    for i, use in enumerate(scheduled.uses):
        made = templates[use.template]
        cycle = cycle if waves is None else waves.bases[i]
        tensors = tuple(names[use.block.params[i]] for i in made.params)
        calls.append(call(1 + use.template, use.block.name, use.chips, tag, tensors))
        own = list(use.chips[: len(made.weight_words)])
        kv_at[own] += made.kv_words
        weight_at[own] += made.weight_words
        tag += made.uids
        cycle = {context: count + made.cycles[context] for context, count in cycle.items()}
    return calls, cycle if waves is None else waves.cycles
