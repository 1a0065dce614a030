"""Context parallel: over how many ranks the context of each KV head is dealt."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compiler.errors import OptionError
from compiler.lower.block import Plan, lower
from compiler.lower.blocks import ModelBlock, kv_heads
from compiler.lower.context import Group
from compiler.lower.kv_blocks import block_of, kv_capacity, run_of
from compiler.lower.rows import Kernels
from compiler.options import CompileOptions
from compiler.place.sizes import k_parts
from compiler.program.isa import ceil_div
from compiler.route.route import Router
from compiler.schedule.list_schedule import schedule
from compiler.search import doubled, until_worse
from fabric.rack import Rack


def dealt(plan: Plan, cp: int) -> Plan:
    """The plan with every KV head's context dealt over `cp` ranks."""
    block = block_of(plan.graph)
    run, capacity = run_of(plan.contexts, block, cp), kv_capacity(plan.contexts, block, cp)
    return replace(plan, cp=cp, run=run, capacity=capacity)


def choices(
    plan: Plan, blocks: Sequence[ModelBlock], rack: Rack, chips: tuple[int, ...], options: CompileOptions
) -> list[int]:
    """The cp to try, best first; of several the next is for when the model does not fit.

    A power of two with kv_heads * cp <= ranks and at least a block of tokens per rank. A part of the model
    with attention is really scheduled with 1, 2, 4, ... until more ranks make it slower. Raises OptionError
    for a `cp` that has no ranks.
    """
    attention = [block for block in blocks if kv_heads(plan.demands, block)]
    heads = [count for block in attention for count in kv_heads(plan.demands, block)]
    if not heads and (options.cp or 1) > 1:
        raise OptionError(
            "options",
            f"--cp {options.cp}",
            "the model has 0 KV heads whose context is dealt: every chip with heads keeps all latents",
            "Leave --cp out.",
        )
    most = len(chips) // max(heads, default=1)
    if options.cp is not None:
        if options.cp > max(most, 1):
            raise OptionError(
                "options",
                f"--cp {options.cp}",
                f"{max(heads)} KV heads on {len(chips)} ranks have at most {max(most, 1)} each",
                f"Give --cp {most} or less, or raise --tp." if most > 1 else "Leave --cp out, or raise --tp.",
            )
        return [options.cp]
    most = min(most, int(ceil_div(max(plan.contexts), block_of(plan.graph))))
    powers = list(doubled(max(most, 1)))
    if len(powers) == 1 or not attention:
        return [1]

    def cycles(cp: int) -> int:
        return _cycles(dealt(plan, cp), attention[0], rack, chips, options.layout)

    search = until_worse(powers, cycles, lambda found: found, patience=1, ties=True)
    assert search.best is not None
    best = search.best[0]
    return [best, *(cp for cp in powers if cp > best)]


def _cycles(plan: Plan, block: ModelBlock, rack: Rack, chips: tuple[int, ...], layout: str) -> int:
    """Length of a block on these chips whose result goes to all of them."""
    plan = replace(plan, detours=False)
    ranks = len(chips)
    group = Group(
        ranks=ranks,
        k_parts=k_parts(layout, ranks),
        targets=tuple(range(ranks)),
        wanted=np.ones((ranks, 1), bool),
    )
    router = Router(rack, chips)
    low, _ = lower(plan, block, group, router, max(plan.contexts), Kernels())
    return schedule(low.rows.build(), low.kernels, router, plan.chip, plan.graph.batch).cycles
