"""The prefix cache of a simulation in time: which blocks of a prompt are held, and when they are in HBM."""

from lpu.traffic.served import Served
from lpu.traffic.simulation.block_cache import BlockCache
from lpu.traffic.simulation.stated_blocks import StatedBlocks
from lpu.traffic.trace import Trace


class Prefixes:
    """Blocks of a trace's prompts in the GPUs' tiers. Transfers of a tier come one after another.

    hits: blocks of each request that were held. fetched: blocks that came from the slots (0) and each tier.
    """

    def __init__(self, trace: Trace, machine: Served) -> None:
        prefill = machine.prefill
        self._blocks, self._inputs = trace.blocks, trace.inputs
        self._tiers = prefill.tiers if prefill else ()
        self._slots = prefill.slots if prefill else None
        self._cache = self._stated = None
        if prefill is not None and trace.blocks is not None:
            if prefill.state:
                size = prefill.token * trace.blocks.tokens
                self._stated = StatedBlocks(prefill.cache_blocks, size, prefill.state)
            else:
                self._cache = BlockCache(prefill.cache_blocks, *(tier.blocks for tier in prefill.tiers))
        self._ddr5 = machine.ddr5
        self._below = BlockCache(machine.ddr5.blocks) if machine.ddr5 else None
        self._ddr5_until = 0
        self.from_ddr5 = 0
        self._until = [0] * (1 + len(self._tiers))  # of the slots and each tier, the cycle it is busy until
        self.fetched = [0] * (1 + len(self._tiers))
        self.hits = [0] * len(trace)

    def ids(self, request: int) -> list[int]:
        """The blocks of a prompt; none if the trace does not tell them."""
        blocks = self._blocks
        if blocks is None:
            return []
        return blocks.ids[blocks.starts[request] : blocks.starts[request + 1]].tolist()

    def tokens(self, request: int, blocks: int) -> int:
        """Tokens of the first blocks of a prompt that need not be taken: at least one is."""
        return min(blocks * self._blocks.tokens, int(self._inputs[request]) - 1) if self._blocks else 0

    def held(self, request: int) -> int:
        """Tokens of a prompt that the tiers hold now; nothing is used by asking."""
        if self._stated is not None:
            return self.tokens(request, self._stated.known(self._whole(request)))
        return self.tokens(request, self._cache.known(self.ids(request))) if self._cache else 0

    def _whole(self, request: int) -> list[int]:
        """The whole blocks of a prompt before its last token, which the LPUs take."""
        assert self._blocks is not None
        return self.ids(request)[: (int(self._inputs[request]) - 1) // self._blocks.tokens]

    def below(self, request: int) -> int:
        """Blocks of a prompt, from the first on, that the LPUs' DDR5 holds."""
        return self._below.known(self.ids(request)) if self._below else 0

    def raised(self, request: int, kept: int, now: int) -> tuple[int, int]:
        """Blocks that are in a prompt's slot once the DDR5 gave what it has behind `kept`, and when."""
        found = max(self.below(request), kept)
        if found == kept or self._ddr5 is None:
            return kept, now
        begin = max(now, self._ddr5_until) + self._ddr5.latency_cycles
        self._ddr5_until = begin + (found - kept) * self._ddr5.block_cycles
        self.from_ddr5 += found - kept
        return found, self._ddr5_until

    def written(self, request: int) -> None:
        """A prompt's KV is in its slot: its blocks go down to the DDR5, too."""
        if self._below is not None:
            self._below.take(self.ids(request))

    def take(self, request: int, kept: int, since: int, now: int) -> tuple[int, int]:
        """Tokens of a prompt whose KV need not be computed, and the cycle at which all of it is in HBM.

        kept: blocks that its slot holds from `since` on; those that the GPUs lack come from there.
        """
        if self._stated is not None:
            self.hits[request] = self._stated.take(self._whole(request))
            return self.tokens(request, self.hits[request]), now
        if self._cache is None:
            return 0, now
        found = self._cache.take_from(self.ids(request))
        total = sum(found)
        wanted = [(tier, found[i], i, now) for i, tier in enumerate(self._tiers, 1)]
        if self._slots and kept > total:
            wanted.append((self._slots.fetch, kept - total, 0, since))
            total = kept
        there = now
        for tier, blocks, i, at in wanted:
            if blocks:
                begin = max(at, self._until[i]) + tier.latency_cycles
                self._until[i] = begin + blocks * tier.block_cycles
                self.fetched[i] += blocks
                there = max(there, self._until[i])
        self.hits[request] = total
        return self.tokens(request, total), there
