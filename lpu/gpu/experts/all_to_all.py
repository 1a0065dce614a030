"""Seconds of an all-to-all to experts and back (DeepEP, low latency): a launch, then bytes by link."""

from dataclasses import dataclass, replace
from math import log2

from fabric.gpu import GpuSpec

FP8_BYTES, BF16_BYTES = 1 + 4 / 128, 2.0  # dispatch: a scale of 4 bytes for 128 numbers; combine
GPUS_PER_NODE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AllToAll:
    """One kernel. launch, hop (a doubling of nodes): seconds; local, remote: bytes a second of one GPU.

    node: GPUs that reach each other at the local rate.
    """

    launch: float
    local: float
    hop: float = 0.0
    remote: float = 0.0
    node: int = GPUS_PER_NODE

    def seconds(self, tokens: int, hidden: int, topk: int, gpus: int, size: float) -> float:
        """Each of `gpus` GPUs sends `tokens` tokens to `topk` experts that lie evenly over all of them."""
        moved = tokens * topk * hidden * size
        nodes = max(gpus / self.node, 1)
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

_NODE_LINK, _NIC = 450e9, 50e9  # bytes a second of a GPU of the measured machines, one direction


def exchange_seconds(gpu: GpuSpec, way: str, tokens: int, hidden: int, topk: int, gpus: int) -> float:
    """Dispatch or combine of `tokens` tokens of each GPU, on any kind of GPU.

    Assumed: inside an NVLink domain as on a node of H200, between them as on H800 with CX7, bytes a second in
    proportion to the rates of the links. Nothing was measured with domains of 72 GPUs.
    """
    (near, size), (far, _) = H200_NODE[way], H800_CX7[way]
    kernel = replace(
        far,
        launch=near.launch,
        local=near.local * gpu.nvlink_bytes_per_second / _NODE_LINK,
        remote=far.remote * gpu.nic_bytes_per_second / _NIC,
        node=gpu.nvlink_gpus,
    )
    return kernel.seconds(tokens, hidden, topk, gpus, size)
