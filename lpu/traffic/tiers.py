"""Memory below the GPUs' HBM for prefix blocks: how long a block takes to come back.

All rates and latencies are assumed: no serving stack beside an LPX is public. A transfer is bytes over the
rate after a latency, one transfer after another in each tier; what goes down does so in the background.
"""

from dataclasses import dataclass
from typing import NamedTuple

from fabric.host import LPUS_OF_FPGA, RESERVOIR
from lpu.report.words import EXACT

NS_PER_SECOND = 10**9


class TierRate(NamedTuple):
    """A kind of memory: bytes a second to a replica, per GPU or for all, and nanoseconds before."""

    name: str
    bytes_per_second: int
    per_gpu: bool
    latency_ns: int


HOST = TierRate("host", 63_000_000_000, per_gpu=True, latency_ns=10_000)
"""DDR5 over PCIe Gen5 x16 of each GPU. Source: the interface's rate; latency assumed."""
DISK = TierRate("disk", 14_000_000_000, per_gpu=False, latency_ns=100_000)
"""An NVMe drive of PCIe Gen5 x4. Source: vendors' sequential reads; latency assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LowerTier:
    """A tier below HBM: blocks that it holds, cycles of one block, cycles of latency.

    modelled_cycles: what bytes over a rate give for a block, where `block_cycles` are those of a schedule;
    unscheduled: why they are not, of the tier that could have one.
    """

    name: str
    blocks: int
    block_cycles: int
    latency_cycles: int
    modelled_cycles: int | None = None
    unscheduled: str = ""

    def __str__(self) -> str:
        if self.modelled_cycles is not None:
            return f"{self.block_cycles:,} cycles each ({EXACT}), modelled {self.modelled_cycles:,}"
        return f"{self.block_cycles:,} cycles each (modelled{self.unscheduled and f': {self.unscheduled}'})"


def beside_lpus(blocks: int, block_bytes: int, chips: int, clock_hz: int) -> LowerTier:
    """The DDR5 of the trays, for the KV of `chips` LPUs at once, each with an even share of a block.

    Rates: `fabric.host.RESERVOIR`, a lane to each LPU; the latency is assumed.
    """
    rate = min(RESERVOIR.lane, RESERVOIR.ddr5 // LPUS_OF_FPGA)
    return lower_tier(
        TierRate("ddr5", rate, per_gpu=True, latency_ns=10_000), blocks, block_bytes, chips, clock_hz
    )


def lower_tier(rate: TierRate, blocks: int, block_bytes: int, gpus: int, clock_hz: int) -> LowerTier:
    """A tier for blocks of this many bytes, beside replicas of this many GPUs."""
    speed = rate.bytes_per_second * (gpus if rate.per_gpu else 1)
    return LowerTier(
        name=rate.name,
        blocks=blocks,
        block_cycles=-(-block_bytes * clock_hz // speed),
        latency_cycles=-(-rate.latency_ns * clock_hz // NS_PER_SECOND),
    )
