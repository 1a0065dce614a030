"""Seconds of an all-to-all to experts and back (DeepEP, low latency): a launch, then bytes by link."""

from dataclasses import dataclass
from math import log2

FP8_BYTES, BF16_BYTES = 1 + 4 / 128, 2.0  # dispatch: a scale of 4 bytes for 128 numbers; combine
GPUS_PER_NODE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AllToAll:
    """One kernel. launch, hop (a doubling of nodes): seconds; local, remote: bytes a second of one GPU."""

    launch: float
    local: float
    hop: float = 0.0
    remote: float = 0.0

    def seconds(self, tokens: int, hidden: int, topk: int, gpus: int, size: float) -> float:
        """Each of `gpus` GPUs sends `tokens` tokens to `topk` experts that lie evenly over all of them."""
        moved = tokens * topk * hidden * size
        nodes = max(gpus // GPUS_PER_NODE, 1)
        far = moved * (1 - 1 / nodes)
        away = self.hop * log2(nodes) + far / self.remote if nodes > 1 else 0.0
        return self.launch + (moved - far) / self.local + away


H200_NODE = {
    "dispatch": (AllToAll(launch=11.4e-6, local=300e9), FP8_BYTES),
    "combine": (AllToAll(launch=11.6e-6, local=254e9), BF16_BYTES),
}
"""One node of 8 H200. Fitted to the eight figures of facts gpu_model.md 1.3."""

H800_CX7 = {
    "dispatch": (AllToAll(launch=10e-6, local=113e9, hop=11e-6, remote=52e9), FP8_BYTES),
    "combine": (AllToAll(launch=10e-6, local=141e9, hop=8e-6, remote=48e9), BF16_BYTES),
}
"""H800 with CX7 NICs (50 GB/s). Fitted to the twelve figures of facts moe.md 3.1 (DeepEP V1)."""
