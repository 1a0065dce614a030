"""Where weights and KV lie: nearest tier first, weights before KV; KV that no memory holds on the drive."""

from dataclasses import dataclass
from math import inf

from compiler.errors import CapacityError
from fabric.node import NodeSpec
from lpu.nodes.demand import BYTES, NodeDemand

SSD = "ssd"


@dataclass(frozen=True, slots=True, kw_only=True)
class TierShare:
    """What one tier holds, bytes. rate: bytes a second that it gives."""

    tier: str
    weights: float
    kv: float
    rate: float


def placed(node: NodeSpec, weights: float, kv: float) -> tuple[TierShare, ...]:
    """Bytes of weights and KV over the tiers and the drive; those that hold something. Raises CapacityError.

    Of the drive the slower rate is taken.
    """
    left = {"weights": float(weights), "kv": float(kv)}
    out: list[TierShare] = []
    for tier in node.tiers:
        room, held = float(node.usable(tier)), {"weights": 0.0, "kv": 0.0}
        for what in left:
            held[what] = min(left[what], room)
            left[what] -= held[what]
            room -= held[what]
        out.append(TierShare(tier=tier.name, rate=tier.rate, **held))
    memory = sum(node.usable(tier) for tier in node.tiers)
    if left["weights"]:
        _refuse(
            node, f"needs {weights / 1e9:,.1f} GB of weights, its memory has {memory / 1e9:,.1f} GB for them"
        )
    if left["kv"] > node.ssd_bytes:
        have = (memory - weights + node.ssd_bytes) / 1e9
        _refuse(node, f"needs {kv / 1e9:,.1f} GB of KV, memory and drive have {have:,.1f} GB for it")
    if left["kv"]:
        out.append(TierShare(tier=SSD, weights=0.0, kv=left["kv"], rate=node.ssd_bytes_per_second[0]))
    return tuple(one for one in out if one.weights or one.kv)


def resident_tokens(node: NodeSpec, model: NodeDemand, weights: str, kv: str) -> dict[str, float]:
    """Tokens of one sequence whose KV the memory holds: of the first tier alone, of the first two, ...

    Where no layer sees all of the context, all tokens fit or none: infinite, or 0.
    """
    room = -model.parameters * BYTES[weights]
    out: dict[str, float] = {}
    names: list[str] = []
    for tier in node.tiers:
        room += node.usable(tier)
        names.append(tier.name)
        out["+".join(names)] = _tokens(model, room / BYTES[kv])
    return out


def _tokens(model: NodeDemand, numbers: float) -> float:
    if numbers <= 0:
        return 0.0
    whole = numbers - model.near * model.window
    if whole < 0:
        return float(numbers // (model.kept + model.near))
    return float(whole // model.kept) if model.kept else inf


def _refuse(node: NodeSpec, why: str) -> None:
    raise CapacityError(
        "nodes", node.name, why, "Take narrower weights or KV, a smaller batch or context, or a larger node."
    )
