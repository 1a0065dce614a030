"""Mode afd: attention on the GPUs, FFN hops on the LPUs, micro-batches in ping-pong."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from compiler.options import SPLITS, Option
from lpu.afd.mode import Mode

FfnDown = Annotated[str | None, Option("--ffn-down", "FFN inputs cross as fp16, or fp8.", shown="fp16")]
FfnUp = Annotated[str | None, Option("--ffn-up", "FFN results cross as f32, or fp16.", shown="f32")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Afd(Mode):
    """Attention on the GPUs, FFNs on the LPUs."""

    name: ClassVar[str] = "afd"
    layer: ClassVar[str] = "a layer of a micro-batch"

    micro_batches: Annotated[
        int | None,
        Option("--micro-batches", "1 to 4, in ping-pong.", shown="2 if the batch is even, else 1"),
    ] = None
    target_ms: Annotated[float | None, Option("--target-ms", "ms a token, to warn of the dead zone.")] = None
    split: Annotated[
        str, Option("--split", "the LPUs' share by role (FFNs) or by intensity.", choices=SPLITS)
    ] = "role"
    threshold: Annotated[
        float | None, Option("--threshold", "FLOP per byte from which on the LPUs do it.")
    ] = None
    ffn_down: FfnDown = None
    ffn_up: FfnUp = None
    gpu_jitter: Annotated[float, Option("--gpu-jitter", "of GPU times, deviation over mean.")] = 0.0
    miss_probability: Annotated[float, Option("--miss-probability", "how often a hop may miss its slot.")] = (
        0.001
    )
    jitter_seed: Annotated[int, Option("--jitter-seed", "of the jitter.", least=0)] = 0
