"""Decode and prefill on a node: the time that memory, compute and links ask for, and which of them binds.

    decode  = max(memory, compute) + all-reduces, tiers read one by one (serial) or at once (overlapped)
    prefill = max(memory, compute) + all-reduces, each weight read once, each KV number written once
Source: facts reference_tables.md C-000-02 to -08.
"""

from dataclasses import dataclass
from typing import Any

from fabric.node import NodeSpec
from lpu.nodes.demand import BYTES, NodeDemand
from lpu.nodes.residency import TierShare, placed

REDUCES = 2  # all-reduces of a layer
ACTIVATION = 2.0  # bytes of a number that crosses


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeWork:
    """What is served. weights, kv: formats, fp16, fp8 or fp4. batch: sequences at once."""

    context: int
    batch: int = 1
    weights: str = "fp8"
    kv: str = "fp8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Seconds of a step or a prompt by what asks for them. tiers: reading of each tier, seconds."""

    tiers: tuple[tuple[str, float], ...]
    compute: float
    links: float
    overlapped: bool

    @property
    def memory(self) -> float:
        """Of all tiers, one after another or at once."""
        every = [seconds for _, seconds in self.tiers]
        return max(every) if self.overlapped else sum(every)

    @property
    def seconds(self) -> float:
        """Of the whole."""
        return max(self.memory, self.compute) + self.links

    @property
    def bound(self) -> str:
        """What takes longest: a tier's name, compute or links."""
        slowest = max(self.tiers, key=lambda one: one[1])[0]
        asked = {slowest: self.memory, "compute": self.compute, "links": self.links}
        return max(asked, key=lambda name: asked[name])

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "seconds": self.seconds,
            "bound": self.bound,
            "memory_seconds": dict(self.tiers),
            "compute_seconds": self.compute,
            "link_seconds": self.links,
            "tiers": "overlapped" if self.overlapped else "serial",
        }


def holds(node: NodeSpec, model: NodeDemand, load: NodeWork) -> tuple[TierShare, ...]:
    """Where weights and KV of a load lie. Raises CapacityError."""
    kv = load.batch * model.kv_numbers(load.context) * BYTES[load.kv]
    return placed(node, model.parameters * BYTES[load.weights], kv)


def decode(node: NodeSpec, model: NodeDemand, load: NodeWork, overlapped: bool = False) -> Roofline:
    """One token of each sequence after `context` others. Raises CapacityError.

    Weights are read in proportion from where they lie; what KV takes on the drive is read for every token.
    """
    share = model.read(load.batch) / model.parameters
    tiers = [(one.tier, (share * one.weights + one.kv) / one.rate) for one in holds(node, model, load)]
    attention = model.decode_flops(load.batch, load.context) - 2.0 * load.batch * model.active
    return Roofline(
        tiers=tuple(tiers),
        compute=_compute(node, load, 2.0 * load.batch * model.active, attention),
        links=_links(node, model, load.batch),
        overlapped=overlapped,
    )


def prefill(node: NodeSpec, model: NodeDemand, load: NodeWork, overlapped: bool = False) -> Roofline:
    """A prompt of `context` tokens of one sequence up to its first new token. Raises CapacityError."""
    share = model.read(load.context) / model.parameters
    held = holds(node, model, load)
    tiers = [(one.tier, (share * one.weights + one.kv / load.batch) / one.rate) for one in held]
    products, attention = model.prefill_flops(load.context)
    return Roofline(
        tiers=tuple(tiers),
        compute=_compute(node, load, products, attention),
        links=_links(node, model, load.context),
        overlapped=overlapped,
    )


def _compute(node: NodeSpec, load: NodeWork, products: float, attention: float) -> float:
    """Products at the rate of the weights' format, attention at that of the KV's."""
    seconds = products / node.peak(load.weights) + attention / node.peak(load.kv)
    return seconds / node.flops_efficiency


def _links(node: NodeSpec, model: NodeDemand, tokens: int) -> float:
    """All-reduces of all layers: the smallest one, and a ring's bytes."""
    if node.link_bytes_per_second is None:
        return 0.0
    crossed = 2 * (node.devices - 1) / node.devices * tokens * model.hidden * ACTIVATION
    return REDUCES * model.layers * (node.link_seconds + crossed / node.link_bytes_per_second)
