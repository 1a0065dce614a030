"""Context parallel: over how many chips the context of each KV head is dealt."""

from collections.abc import Sequence

from compiler.errors import OptionError
from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock, kv_heads
from compiler.lower.context import Group
from compiler.lower.kv_blocks import block_of, run_of
from compiler.lower.layout import Deal
from compiler.options import CompileOptions
from compiler.place.near import Near
from compiler.place.sizes import Seen, k_parts, straight, way_to
from compiler.place.stripes import Chips, dealt
from compiler.program.isa import ceil_div
from compiler.schedule.list_schedule import schedule
from compiler.search import doubled, until_worse
from fabric.rack import Rack


def choices(
    plan: Plan,
    blocks: Sequence[ModelBlock],
    rack: Rack,
    chips: Chips,
    options: CompileOptions,
    beside: bool = False,
    seen: Seen | None = None,
) -> list[Deal]:
    """How to deal contexts, best first; of several the next is for when the model does not fit.

    Over a power of two of chips: at most the ranks per KV head of a group, or with `beside` neighbours of the
    group's chips too, and at least a block of tokens each. A part of the model with attention is really
    scheduled with 1, 2, 4, ... until more chips make its steps, one of every context, slower. seen: keeps
    what it takes. Raises OptionError for a `cp` that has none.
    """
    seen = seen or Seen()
    attention = [block for block in blocks if kv_heads(plan.demands, block)]
    heads = [count for block in attention for count in kv_heads(plan.demands, block)]
    if not heads and (options.cp or 1) > 1:
        raise OptionError(
            "options",
            f"--cp {options.cp}",
            "the model has 0 KV heads whose context is dealt: every chip with heads keeps all latents",
            "Leave --cp out.",
        )
    own = max(len(chips) // max(heads, default=1), 1)
    parts = k_parts(options.layout, len(chips))
    lends = beside and attention and not plan.resident  # stripes of neighbours are not dealt evenly
    near = Near(plan, attention, rack, chips, parts, seen.whole) if lends else None
    block = block_of(plan.graph)

    def even(cp: int) -> Deal:
        return Deal.evenly(cp, run_of(plan.contexts, block, cp))

    if options.cp is not None:
        if options.cp <= own:
            return [_whole(plan, even(options.cp), block)]
        if near is None or near.beside(options.cp) is None:
            raise _too_many(options.cp, own, max(heads, default=1), len(chips), near)
        return [near.deal(options.cp)]
    blocks_of_all = int(ceil_div(max(plan.contexts), block))
    deals = [even(cp) for cp in doubled(min(own, blocks_of_all))]
    deals = [deal for deal in deals if _left(plan, deal, block) == 0]
    deals += [] if near is None else [near.deal(cp) for cp in near.powers(own, blocks_of_all)]
    if len(deals) == 1 or not attention:  # states have no context to deal
        return deals[:1]
    if seen.rough:
        return deals

    def cycles(deal: Deal) -> int:
        found = None if near is None else near.beside(deal.chips)
        way = way_to(chips, chips, found or (), parts)
        return _cycles(dealt(plan, deal), attention[0], rack, way, seen)

    search = until_worse(deals, cycles, lambda found: found, patience=1, ties=True)
    assert search.best is not None
    best = deals.index(search.best[0])
    fewer = [
        deal for deal in deals[:best][::-1] if deal.chips >= own
    ]  # other groups may have fewer neighbours
    return [*deals[best:], *fewer]


def _left(plan: Plan, deal: Deal, block: int) -> int:
    """Tokens of those in SRAM that stripes are not dealt evenly, where early ones lie in DDR5."""
    return plan.resident % (deal.run * deal.stripes * block)


def _whole(plan: Plan, deal: Deal, block: int) -> Deal:
    if _left(plan, deal, block):
        reason = f"deals {deal.run * deal.stripes * block} tokens at a time, SRAM keeps {plan.resident}"
        remedy = f"Give a --spill that is a multiple of {deal.run * deal.stripes * block}, or leave --cp out."
        raise OptionError("options", f"--cp {deal.chips}", reason, remedy)
    return deal


def _too_many(cp: int, own: int, heads: int, ranks: int, near: Near | None) -> OptionError:
    most = own if near is None else max(own, near.most)
    chips = f"{heads} KV heads on {ranks} ranks have at most {most} each"
    return OptionError(
        "options",
        f"--cp {cp}",
        chips if near is None else f"{chips}, with neighbours of the group",
        f"Give --cp {most} or less, or raise --tp." if most > 1 else "Leave --cp out, or raise --tp.",
    )


def _cycles(plan: Plan, block: ModelBlock, rack: Rack, way: tuple[Group, Chips], seen: Seen) -> int:
    """Length of a block whose result goes to all of its chips, the sum over all contexts."""
    total = 0
    for context in plan.contexts:
        low = straight(plan, block, rack, way, context, seen)
        total += schedule(low.rows.build(), low.kernels, low.router, plan.chip, plan.graph.batch).cycles
    return total
