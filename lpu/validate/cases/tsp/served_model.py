"""Tokens a second that a user of a served LLM sees, by the mechanisms of a layer, each with its source.

A layer lies on `tp` chips. Its time is what planes take to install weights and KV, all-reduces, and vector
work; a token is all layers and the host. Source of the figures: facts served_speeds.md and hardware.md 3.
"""

from dataclasses import dataclass, replace
from math import log2

HALF = 2  # fp16, bytes
LINKS = 7  # of a chip to the others of its node
FP16_RATE = (
    4  # a weight of 16 bits takes the time of four of 8: planes work in pairs of 160 x 320 (hardware.md 3.1)
)
STEPS = 60  # of a bisection


@dataclass(frozen=True, slots=True, kw_only=True)
class Chips:
    """A machine. install: bytes that the planes of a chip take in a second at best, share: of it as served.

    phase: seconds of one step of an all-reduce; vector: of a layer's norms, softmax, activation; host: of a
    token; link: bytes a second of one link.
    """

    install: float
    phase: float
    link: float
    vector: float
    host: float
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerModel:
    """A model as it was served. fp16: weights of 16 bits, else of 8.

    kv_full, kv_near: KV numbers of a token and layer, of the layers that see all of the context and of those
    that see `window` of it.
    """

    name: str
    layers: int
    hidden: int
    weights: int
    kv_full: int | float
    fp16: bool
    context: int
    kv_near: int | float = 0.0
    window: int = 0
    kv_bytes: int = HALF

    @property
    def layer_weights(self) -> float:
        """Weights of one layer."""
        return self.weights / self.layers


def layer_terms(on: Chips, model: LayerModel, tp: int, reduces: int, context: int) -> dict[str, float]:
    """Seconds of one layer, by mechanism."""
    rate = tp * on.install * on.share
    cost = FP16_RATE if model.fp16 else 1
    kv = model.kv_full * context + model.kv_near * min(context, model.window or context)
    kv_cost = FP16_RATE if model.kv_bytes == HALF else 1
    exchanged = 2 * HALF * model.hidden * (tp - 1) / tp / (LINKS * on.link)
    return {
        "weights": cost * model.layer_weights / rate,
        "kv": kv_cost * kv / rate,
        "all-reduces": reduces * (log2(tp) * on.phase + exchanged),
        "vector": on.vector,
    }


def tokens_per_second(on: Chips, model: LayerModel, tp: int, reduces: int, context: int) -> float:
    """What one user sees, alone in each group of chips."""
    layer = sum(layer_terms(on, model, tp, reduces, context).values())
    return 1 / (model.layers * layer + on.host)


def fitted_share(
    on: Chips, model: LayerModel, tp: int, reduces: int, context: int, rate: int | float
) -> float:
    """The share of the install rate at which the model is as fast as `rate`; 1 where even that is slower."""
    low, high = 0.01, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        faster = tokens_per_second(replace(on, share=middle), model, tp, reduces, context) > rate
        low, high = (low, middle) if faster else (middle, high)
    return high
