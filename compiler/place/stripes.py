"""Stripes of a KV head's context, and the chips beside a group, direct neighbours, that keep some of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from compiler.errors import CapacityError
from compiler.lower.block import Plan, lower
from compiler.lower.blocks import ModelBlock
from compiler.lower.context import Group
from compiler.lower.kv_blocks import block_of, in_sram, kv_capacity
from compiler.lower.layout import WHOLE, Deal
from compiler.lower.rows import Kernels
from compiler.place.stages import Room, Size, megabytes
from compiler.program.instructions.attention import AttentionKernel
from compiler.route.route import Router
from fabric.paths import reach
from fabric.rack import Rack

Chips = tuple[int, ...]
Beside = tuple[Chips, ...]
"""For every rank of a group the chips beside it, none for a rank that owns no KV head; or nothing at all."""


def dealt(plan: Plan, deal: Deal) -> Plan:
    """The plan with every KV head's context dealt so."""
    block, contexts = block_of(plan.graph), in_sram(plan.contexts, plan.resident)
    return replace(plan, deal=deal, run=deal.run * block, capacity=kv_capacity(contexts, block, deal))


def alone(ranks: int, k_parts: int) -> Group:
    """A group that hands its result to itself, all of it to all ranks."""
    targets = tuple(range(ranks))
    return Group(ranks=ranks, k_parts=k_parts, targets=targets, wanted=np.ones((ranks, 1), bool))


@dataclass(frozen=True, slots=True, kw_only=True)
class Undealt:
    """A block lowered on `ranks` chips, its contexts where their heads are.

    owners: of each attention the rank of every KV head; kernel: of the first, if there is one.
    """

    ranks: int
    owners: tuple[Int[np.ndarray, " heads"], ...]
    kernel: AttentionKernel | None


Whole = dict[tuple[str, Chips], Undealt]
"""By kind of block and chips, for plans that differ in their deal at most."""


def undealt(
    plan: Plan, block: ModelBlock, rack: Rack, chips: Chips, k_parts: int, seen: Whole | None = None
) -> Undealt:
    """A block on these chips before its contexts are dealt. seen: those of other calls."""
    seen = {} if seen is None else seen
    if (block.kind, chips) not in seen:
        whole, group = replace(dealt(plan, WHOLE), detours=False), alone(len(chips), k_parts)
        low, _ = lower(whole, block, group, Router(rack, chips), max(plan.contexts), Kernels())
        found = (one for one in low.kernels.items if isinstance(one, AttentionKernel))
        seen[block.kind, chips] = Undealt(
            ranks=len(chips), owners=tuple(low.kv_owners), kernel=next(found, None)
        )
    return seen[block.kind, chips]


def missing(whole: Undealt, cp: int) -> tuple[int, ...]:
    """How many chips each rank needs beside it to deal contexts over `cp` chips; nothing if no rank does.

    whole: as `undealt` gives it. A head's own ranks are those from its owner up to the next owner.
    """
    ranks, owner = whole.ranks, np.unique(np.concatenate(whole.owners))
    out = np.zeros(ranks, np.int64)
    out[owner] = np.maximum(cp - np.diff(np.append(owner, ranks)), 0)
    return tuple(out.tolist()) if out.any() else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lenders:
    """What chips may lend: their free words; those that rather should not."""

    free: Int[np.ndarray, " chips"]
    shunned: frozenset[int] = frozenset()


def neighbours(
    rack: Rack, chips: Chips, count: Sequence[int], least: Sequence[int] = (), lenders: Lenders | None = None
) -> Beside | None:
    """This many direct neighbours outside the group beside each rank, none twice; None if there are too few.

    Of chips with `least[rank]` free words those with most are taken first, those shunned last.
    """
    near = [_near(rack, chip, chips) for chip in chips]
    found: dict[int, Chips] = {}
    taken: set[int] = set()
    for rank in sorted(range(len(count)), key=lambda rank: (len(near[rank]) - count[rank], rank)):
        fit = [chip for chip in near[rank] if chip not in taken]
        if lenders is not None:
            free, shunned = lenders.free, lenders.shunned
            fit = [chip for chip in fit if free[chip] >= least[rank]]
            fit.sort(key=lambda chip: (chip in shunned, -int(free[chip]), chip))
        if len(fit) < count[rank]:
            return None
        found[rank] = _in_order(fit[: count[rank]], chips[rank], rack)
        taken.update(found[rank])
    return tuple(found[rank] for rank in range(len(count)))


def _in_order(some: Iterable[int], chip: int, rack: Rack) -> Chips:
    """Chips in the order in which one counts them, as trees have them: so equal groups get equal ranks."""
    turns = reach(rack).turns(chip)
    return tuple(sorted(some, key=lambda other: int(turns[other])))


def _near(rack: Rack, chip: int, group: Chips) -> list[int]:
    """The chips outside a group that a chip has links to and from."""
    out = [one for one in rack.neighbours(chip).tolist() if one not in group]
    return [one for one in out if rack.link(one, chip) >= 0]


def ranked(chips: Chips, beside: Beside, after: Chips) -> tuple[Chips, Beside, Chips]:
    """All chips of a block by rank: its own, those beside it, those it hands on to; the others' ranks."""
    everyone = tuple(dict.fromkeys([*chips, *(chip for some in beside for chip in some), *after]))
    rank = {chip: i for i, chip in enumerate(everyone)}
    ranks = [tuple(rank[chip] for chip in some) for some in (*beside, after)]
    return everyone, tuple(ranks[:-1]), ranks[-1]


def lend(sizes: Sequence[Size], chips: Sequence[Chips], rack: Rack, room: Room) -> tuple[Beside, ...]:
    """The chips beside every block, where there is most room. Raises CapacityError if a block finds none.

    Chips that a group hands its result on to are taken if there are no others.
    """
    free = np.full(rack.chips, room.words, np.int64)
    for bad in () if rack.damage is None else rack.damage.bad:
        free[bad.chip] -= bad.stop - bad.first
    for size, mine in zip(sizes, chips, strict=True):
        free[list(mine)] -= size.words
    out: list[Beside] = []
    for i, (size, mine) in enumerate(zip(sizes, chips, strict=True)):
        found: Beside | None = ()
        if size.beside:
            after: Iterable[int] = next((later for later in chips[i:] if later != mine), ())
            lenders = Lenders(free=free, shunned=frozenset(after))
            found = neighbours(rack, mine, size.beside, size.lent, lenders)
        if found is None:
            raise too_few(size, rack)
        for words, some in zip(size.lent, found, strict=True):
            free[list(some)] -= words
        out.append(found)
    return tuple(out)


def too_few(size: Size, rack: Rack) -> CapacityError:
    """That the neighbours of a block's chips have no room for its contexts."""
    return CapacityError(
        "place",
        f"block {size.name}",
        f"needs {max(size.beside)} chips with {megabytes(max(size.lent))} beside each that owns KV heads, "
        f"{rack.name} has fewer with that room",
        "Give a smaller --cp, or leave it out.",
    )
