"""What the neighbours of a group can keep of its contexts, and how much, so that all are done at once."""

from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np

from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock
from compiler.lower.kv_blocks import run_of
from compiler.lower.layout import Deal
from compiler.place.stripes import Beside, Chips, Whole, missing, neighbours, undealt
from compiler.program.instructions.attention import AttentionKernel, node_lines
from compiler.program.isa import F16_LANES, Op, ceil_div
from compiler.search import doubled
from compiler.timing import timing
from fabric.rack import Rack

MOST_STRIPES = 64  # of a head: each sends a node at least


class Near:
    """The neighbours of a group's chips, and the work of the first of its blocks with KV."""

    def __init__(
        self,
        plan: Plan,
        attention: Sequence[ModelBlock],
        rack: Rack,
        chips: Chips,
        parts: int,
        seen: Whole | None = None,
    ) -> None:
        self._plan, self._rack, self._chips = plan, rack, chips
        kinds = {block.kind: block for block in attention}
        self._whole = [undealt(plan, block, rack, chips, parts, seen) for block in kinds.values()]
        self._kernel = self._whole[0].kernel

    def beside(self, cp: int) -> Beside | None:
        """The chips beside those of the first kind of block, contexts over `cp`, if all kinds find some."""
        found = [neighbours(self._rack, self._chips, missing(whole, cp)) for whole in self._whole]
        return None if None in found else found[0]

    def powers(self, own: int, most: int) -> Iterator[int]:
        """Powers of two above `own`, up to `most`, that find chips."""
        return (cp for cp in doubled(most) if cp > own and self.beside(cp) is not None)

    @property
    def most(self) -> int:
        """The most chips that a context can be dealt over."""
        return next(cp for cp in count(1) if self.beside(cp + 1) is None)

    def deal(self, cp: int) -> Deal:
        """The stripes with which the owner of a head and its neighbours are done first, the fewest of equals.

        Done with a step of every context: with long runs a short one lies with its owner alone.
        """
        kernel, contexts = self._kernel, self._plan.contexts
        if kernel is None:
            return Deal.evenly(cp, 1)
        found: list[tuple[int, Deal]] = []
        for stripes in doubled(min(MOST_STRIPES, kernel.chunks)):
            least, most = (run_of(some, kernel.block, stripes) for some in (contexts, (max(contexts),)))
            for run in [run for run in doubled(most) if run >= least][::-1]:
                for lent in range(1, (stripes - 1) // (cp - 1) + 1):
                    deal = Deal(cp, stripes, lent, run)
                    found.append((sum(self._cycles(kernel, deal, context) for context in contexts), deal))
        even = Deal.evenly(cp, run_of(contexts, kernel.block, cp))
        return min(found, key=lambda one: one[0])[1] if found else even

    def _cycles(self, kernel: AttentionKernel, deal: Deal, context: int) -> int:
        """Cycles until all chips are done with a context, from when the owner has the step's queries.

        Neighbours get them, and the keys and values, a hop later, and send a node of each run back.
        """
        turn = np.arange(ceil_div(context, kernel.block)) // deal.run % deal.stripes
        blocks = np.bincount(np.array(deal.slots)[turn], minlength=deal.chips)
        here, most = self._work(kernel, int(blocks[0])), int(blocks[1:].max())
        if not most:
            return here
        nodes = self._heads * node_lines(kernel) * int(ceil_div(most, deal.run))
        there = max(self._work(kernel, most), self._slots(nodes))
        return max(here, there + self._apart(kernel))

    def _work(self, kernel: AttentionKernel, blocks: int) -> int:
        """Cycles in which a chip takes this many blocks of each of its heads, on all planes and chains."""
        blocks *= self._heads
        chip, rows = self._plan.chip, self._plan.graph.batch
        hold = {op: int(timing(op, 1, kernel, chip, rows)[0]) for op in (Op.QK, Op.PV, Op.SMAX, Op.EXP)}
        planes = ceil_div(blocks * (hold[Op.QK] + hold[Op.PV]), chip.planes)
        return int(max(planes, ceil_div(blocks * (hold[Op.SMAX] + hold[Op.EXP]), chip.vxm_chains)))

    @property
    def _heads(self) -> int:
        """The most KV heads of a rank."""
        return int(np.bincount(self._whole[0].owners[0]).max())

    def _slots(self, lines: int) -> int:
        """Cycles that lines keep the link to a neighbour."""
        at, links = self._link, self._rack.links
        return int(ceil_div(lines * self._plan.graph.batch, links.lanes[at]) * links.slot_cycles[at])

    def _apart(self, kernel: AttentionKernel) -> int:
        """Cycles for which neighbours wait, or are waited for: two hops, what crosses, and the append."""
        heads = ceil_div(kernel.group * kernel.head_dim, F16_LANES) + 2 * ceil_div(kernel.head_dim, F16_LANES)
        append = timing(Op.KVW, 1, kernel, self._plan.chip, self._plan.graph.batch)[1]
        crossing = self._slots(self._heads * int(heads)) + self._slots(self._heads * node_lines(kernel))
        return 2 * int(self._rack.links.hop_cycles[self._link]) + crossing + int(append)

    @property
    def _link(self) -> int:
        """The link to the first neighbour."""
        ends = zip(self._chips, self.beside(self._least) or (), strict=False)
        return next(self._rack.link(chip, some[0]) for chip, some in ends if some)

    @property
    def _least(self) -> int:
        """The fewest chips of which one is a neighbour."""
        return next(cp for cp in count(2) if any(self.beside(cp) or ()))
