"""Context parallel: over how many chips the context of each KV head is dealt."""

from collections.abc import Sequence
from dataclasses import replace

from compiler.errors import OptionError
from compiler.lower.block import Plan, lower
from compiler.lower.blocks import ModelBlock, kv_heads
from compiler.lower.kv_blocks import block_of
from compiler.lower.rows import Kernels
from compiler.options import CompileOptions
from compiler.place.sizes import k_parts
from compiler.place.stripes import Beside, alone, dealt, needed, neighbours, owners, ranked
from compiler.program.isa import ceil_div
from compiler.route.route import Router
from compiler.schedule.list_schedule import schedule
from compiler.search import doubled, until_worse
from fabric.rack import Rack

Chips = tuple[int, ...]


def choices(
    plan: Plan,
    blocks: Sequence[ModelBlock],
    rack: Rack,
    chips: Chips,
    options: CompileOptions,
    beside: bool = False,
) -> list[int]:
    """The cp to try, best first; of several the next is for when the model does not fit.

    A power of two, at most the ranks per KV head of a group, or with `beside` the neighbours of the group's
    chips too, and at least a block of tokens per chip. A part of the model with attention is really scheduled
    with 1, 2, 4, ... until more chips make it slower. Raises OptionError for a `cp` that has no chips.
    """
    attention = [block for block in blocks if kv_heads(plan.demands, block)]
    heads = [count for block in attention for count in kv_heads(plan.demands, block)]
    own = max(len(chips) // max(heads, default=1), 1)
    near = _Near(plan, attention, rack, chips, options.layout) if beside and attention else None
    if options.cp is not None:
        if options.cp > own and (near is None or near.of(options.cp) is None):
            raise _too_many(options.cp, own, max(heads, default=1), len(chips), near)
        return [options.cp]
    most = int(ceil_div(max(plan.contexts), block_of(plan.graph)))
    powers = [cp for cp in doubled(most) if cp <= own or (near is not None and near.of(cp) is not None)]
    if len(powers) <= 1 or not attention:
        return [1]

    def cycles(cp: int) -> int:
        return _cycles(dealt(plan, cp), attention[0], rack, chips, options.layout, near and near.of(cp))

    search = until_worse(powers, cycles, lambda found: found, patience=1, ties=True)
    assert search.best is not None
    best = search.best[0]
    fewer = [cp for cp in powers[::-1] if own <= cp < best]  # other groups may have fewer neighbours
    return [best, *(cp for cp in powers if cp > best), *fewer]


class _Near:
    """Which chips could be beside a group for each cp."""

    def __init__(
        self, plan: Plan, attention: Sequence[ModelBlock], rack: Rack, chips: Chips, layout: str
    ) -> None:
        self._rack, self._chips = rack, chips
        parts = k_parts(layout, len(chips))
        kinds = {block.kind: block for block in attention}
        self._owners = [owners(plan, block, rack, chips, parts) for block in kinds.values()]

    def of(self, cp: int) -> Beside | None:
        """The chips beside those of the first kind of block, if all kinds find some."""
        found = [
            neighbours(self._rack, self._chips, needed(own, len(self._chips), cp)) for own in self._owners
        ]
        return None if None in found else found[0]

    @property
    def most(self) -> int:
        """The largest cp that finds chips."""
        return max(cp for cp in range(1, self._rack.chips + 1) if cp == 1 or self.of(cp) is not None)


def _too_many(cp: int, own: int, heads: int, ranks: int, near: _Near | None) -> OptionError:
    most = own if near is None else near.most
    chips = f"{heads} KV heads on {ranks} ranks have at most {most} each"
    return OptionError(
        "options",
        f"--cp {cp}",
        chips if near is None else f"{chips}, neighbours outside the group counted",
        f"Give --cp {most} or less, or raise --tp." if most > 1 else "Leave --cp out, or raise --tp.",
    )


def _cycles(
    plan: Plan, block: ModelBlock, rack: Rack, chips: Chips, layout: str, beside: Beside | None
) -> int:
    """Length of a block on these chips whose result goes to all of them."""
    plan = replace(plan, detours=False)
    everyone, keepers, _ = ranked(chips, beside or (), ())
    group = replace(alone(len(chips), k_parts(layout, len(chips))), beside=keepers)
    router = Router(rack, everyone)
    low, _ = lower(plan, block, group, router, max(plan.contexts), Kernels())
    return schedule(low.rows.build(), low.kernels, router, plan.chip, plan.graph.batch).cycles
