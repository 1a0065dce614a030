"""A single node that serves a whole model: its compute, its tiers of memory, its drive and its power."""

from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

from fabric.chip import Sourced

NOTHING = (0.0, 0.0)
MOST_DEVICES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTier:
    """One kind of memory of a node, all of its devices together.

    efficiency: share of the bandwidth that streaming reaches. bridge_bytes_per_second: of what stands between
    it and the compute; None: nothing. read_seconds: one random read.
    """

    name: str
    memory_bytes: int
    bytes_per_second: int | float
    efficiency: float
    bridge_bytes_per_second: int | float | None = None
    read_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name, value in self.numbers().items():
            if not isfinite(value) or value < 0 or (value == 0 and name != "read_seconds"):
                raise ValueError(f"{name}: tier {self.name} has {value}, needs a number above 0")
        if self.efficiency > 1:
            raise ValueError(f"efficiency: tier {self.name} has {self.efficiency}, needs at most 1")

    @property
    def rate(self) -> float:
        """Bytes a second that arrive: of the memory or of the bridge, whichever is less, times efficiency."""
        return min(self.bytes_per_second, self.bridge_bytes_per_second or self.bytes_per_second) * (
            self.efficiency
        )

    def numbers(self) -> dict[str, int | float]:
        """Every number that is stated, by name."""
        names = ("memory_bytes", "bytes_per_second", "efficiency", "bridge_bytes_per_second", "read_seconds")
        held = {name: getattr(self, name) for name in names}
        return {name: v for name, v in held.items() if v is not None and (v or name != "read_seconds")}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """One node. Numbers are of the whole node, its `devices` together; docs/nodes.md has the rules.

    speculative: nobody has built it. tiers: nearest first. flops_*: dense peaks; None: that format runs at
    the next wider one. flops_efficiency: share of the peak that large products reach. reserve: share of each
    tier that holds neither weights nor KV. link_*: between devices, bytes a second of one direction of one
    device and seconds of the smallest all-reduce. ssd_*: a drive, rates and reads as (least, most).
    idle_watts, watts: (least, most), at rest and under load.
    """

    name: str
    title: str
    devices: int
    tiers: tuple[MemoryTier, ...]
    flops_fp16: int | float
    flops_efficiency: float
    reserve: float
    idle_watts: tuple[float, float]
    watts: tuple[float, float]
    flops_fp8: int | float | None = None
    flops_fp4: int | float | None = None
    link_bytes_per_second: int | float | None = None
    link_seconds: float = 0.0
    ssd_bytes: int = 0
    ssd_bytes_per_second: tuple[float, float] = NOTHING
    ssd_read_seconds: tuple[float, float] = NOTHING
    speculative: bool = False
    sources: tuple[Sourced, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.devices <= MOST_DEVICES:
            raise ValueError(f"devices: node {self.name} has {self.devices}, needs 1 to {MOST_DEVICES}")
        if not self.tiers:
            raise ValueError(f"tiers: node {self.name} has none, needs one or more")
        if len({tier.name for tier in self.tiers} | {"ssd"}) <= len(self.tiers):
            raise ValueError(f"tiers: node {self.name} has a name twice, or one named ssd")
        for name in ("flops_fp16", "flops_fp8", "flops_fp4", "link_bytes_per_second", "flops_efficiency"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise ValueError(f"{name}: node {self.name} has {value}, needs a number above 0")
        if self.flops_efficiency > 1 or not 0 <= self.reserve < 1:
            raise ValueError("flops_efficiency: needs at most 1, and reserve 0 to below 1")
        if self.devices > 1 and self.link_bytes_per_second is None:
            raise ValueError(f"link_bytes_per_second: node {self.name} has {self.devices} devices, needs one")
        for name in ("idle_watts", "watts", "ssd_bytes_per_second", "ssd_read_seconds"):
            for low, high in pairwise(getattr(self, name)):
                if not (isfinite(high) and 0 <= low <= high):
                    raise ValueError(f"{name}: node {self.name} has ({low}, {high}), needs (least, most)")
        if self.ssd_bytes < 0 or bool(self.ssd_bytes) != bool(self.ssd_bytes_per_second[0]):
            raise ValueError(f"ssd_bytes: node {self.name} needs ssd_bytes and ssd_bytes_per_second, or none")
        if not (isfinite(self.link_seconds) and self.link_seconds >= 0):
            raise ValueError(f"link_seconds: node {self.name} has {self.link_seconds}, needs at least 0")

    def numbers(self) -> dict[str, int | float | tuple[float, float]]:
        """Every number that is stated, by name; those of a tier as `hbm.memory_bytes`."""
        out: dict[str, int | float | tuple[float, float]] = {"devices": self.devices}
        for tier in self.tiers:
            out |= {f"{tier.name}.{name}": value for name, value in tier.numbers().items()}
        for name in (
            "flops_fp16", "flops_fp8", "flops_fp4", "flops_efficiency", "reserve", "link_bytes_per_second",
            "link_seconds", "ssd_bytes", "ssd_bytes_per_second", "ssd_read_seconds", "idle_watts", "watts",
        ):  # fmt: skip
            value = getattr(self, name)
            optional = name.startswith(("link", "ssd"))
            if value is not None and not (optional and value in (0, 0.0, NOTHING)):
                out[name] = value
        return out

    def usable(self, tier: MemoryTier) -> int:
        """Bytes of a tier for weights and KV."""
        return int(tier.memory_bytes * (1 - self.reserve))

    def peak(self, kind: str) -> float:
        """Peak FLOP/s of products in fp16, fp8 or fp4, or of the next wider format that the node has."""
        wider = {"fp4": (self.flops_fp4, self.flops_fp8), "fp8": (self.flops_fp8,), "fp16": ()}[kind]
        return float(next((flops for flops in wider if flops), self.flops_fp16))
