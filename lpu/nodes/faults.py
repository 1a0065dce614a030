"""Page faults: cold KV on the drive that a token reaches for, and the latency of the slow tail.

A token reaches for `places` cold places, each absent from memory by itself with chance `miss`. So misses are
binomial; each costs a random read and a page over the drive, one after another. Source: facts C-000-10.
"""

from dataclasses import dataclass
from math import comb
from typing import Any

from compiler.errors import OptionError
from fabric.node import NodeSpec
from lpu.nodes.demand import BYTES, NodeDemand

PERCENTILE = 0.95
MOST_PLACES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Misses:
    """How tokens reach for cold KV. page: tokens of a page, all layers together."""

    places: int = 4
    miss: float = 0.02
    page: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.places <= MOST_PLACES:
            raise OptionError("nodes", f"--places {self.places}", f"needs 0 to {MOST_PLACES}", "Give fewer.")
        if not 0 <= self.miss <= 1:
            raise OptionError("nodes", f"--miss {self.miss:g}", "is a chance", "Give 0 to 1.")
        if self.page < 1:
            raise OptionError("nodes", f"--page {self.page}", "is no page", "Give at least 1 token.")

    @property
    def rate(self) -> float:
        """Chance that a token misses at all."""
        return 1 - (1 - self.miss) ** self.places

    @property
    def mean(self) -> float:
        """Misses of a token."""
        return self.places * self.miss

    def at_most(self, share: float) -> int:
        """The fewest misses that this share of tokens does not pass."""
        below = 0.0
        for k in range(self.places + 1):
            below += comb(self.places, k) * self.miss**k * (1 - self.miss) ** (self.places - k)
            if below >= share:
                return k
        return self.places


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Of one node and model. cost: seconds of a miss, (least, most). p95: misses of that percentile."""

    rate: float
    mean: float
    p95: int
    page_bytes: float
    cost: tuple[float, float]

    def p95_seconds(self, step: float) -> tuple[float, float]:
        """Of a step of `step` seconds with that many misses, at best and at worst."""
        return step + self.p95 * self.cost[0], step + self.p95 * self.cost[1]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "fault_rate": self.rate,
            "misses_per_token": self.mean,
            "misses_p95": self.p95,
            "page_bytes": self.page_bytes,
            "miss_seconds": list(self.cost),
        }


def faults(node: NodeSpec, model: NodeDemand, kv: str, how: Misses) -> Faults | None:
    """What misses cost on a node; None for one without a drive."""
    if not node.ssd_bytes:
        return None
    page = model.kv_numbers(how.page) * BYTES[kv]
    slow, fast = node.ssd_bytes_per_second
    least, most = node.ssd_read_seconds
    return Faults(
        rate=how.rate,
        mean=how.mean,
        p95=how.at_most(PERCENTILE),
        page_bytes=page,
        cost=(least + page / fast, most + page / slow),
    )
