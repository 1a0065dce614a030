"""The numbers of Llama 4 (text): runs of attention, layers without RoPE, experts that take a weighed input.

Source of the meanings: transformers 5.24, modeling_llama4.py.
"""

import math
from dataclasses import dataclass, replace

from models.config import MATRICES_PER_FFN, TransformerConfig
from models.routing import Routing

FAMILY = "llama4"
DENSE = " dense"  # behind the kind of attention of a layer without experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama4Config(TransformerConfig):
    """A decoder with experts of width `expert_ffn` in every `step`-th layer; the others are dense.

    chosen of `experts` are weighed by the sigmoid of their logits, which multiplies what they take; one more
    takes every row. qk_norm: of layers with RoPE, without a gain. floor, slope: in layers without RoPE
    queries at position p are times 1 + slope ln(1 + floor((p + 1) / floor)); None: they stay.
    published_active: parameters of a token.
    """

    experts: int
    chosen: int
    expert_ffn: int
    step: int = 1
    floor: int | None = None
    slope: float = 0.1
    published_active: int | None = None
    family: str = FAMILY

    def __post_init__(self) -> None:
        TransformerConfig.__post_init__(self)
        for field in ("expert_ffn", "step", "floor"):
            number = getattr(self, field)
            if number is not None and number < 1:
                raise ValueError(f"{self.name}: {field} is {number}, the least is 1.")
        if self.step > self.layers:
            raise ValueError(
                f"{self.name}: step is {self.step}, so no one of {self.layers} layers has experts."
            )
        if why := self.routing.refusal(self.experts):
            raise ValueError(f"{self.name}: {why}")
        unfit = {"biased": self.biased, "sinks": self.sinks, "window": self.window, "fused": self.fused}
        unfit |= {"whole_qk_norm": self.whole_qk_norm, "turned_lanes": self.turned_lanes}
        unfit |= {"window_theta": self.window_theta}
        if odd := [name for name, value in unfit.items() if value]:
            raise ValueError(f"{self.name}: {odd[0]} is {unfit[odd[0]]!r}, the layers of Llama 4 have none.")
        if self.norms != "pre" or self.activation != "silu":
            raise ValueError(
                f"{self.name}: norms is {self.norms!r}, activation {self.activation!r}: pre and silu are."
            )

    @property
    def routing(self) -> Routing:
        """How the router chooses."""
        return Routing(chosen=self.chosen, renormalise=False, shared=1, score="sigmoid")

    def sparse(self, layer: int) -> bool:
        """Whether a layer has experts."""
        return (layer + 1) % self.step == 0

    def kind_of(self, layer: int) -> str:
        """The kind of a layer's attention, and whether it is dense."""
        return TransformerConfig.kind_of(self, layer) + ("" if self.sparse(layer) else DENSE)

    def attention(self, kind: str) -> "Llama4Config":
        """The same numbers for the attention of a kind: layers without RoPE have no norms of q and k."""
        return replace(self, qk_norm=self.qk_norm and kind != "nope")

    def warmth(self, position: int) -> float:
        """What queries at a position are times in layers without RoPE."""
        return 1.0 if self.floor is None else 1.0 + self.slope * math.log1p((position + 1) // self.floor)

    def parameters(self) -> int:
        """Exact number of parameters."""
        return self._parameters(self.experts)

    def active_parameters(self) -> int:
        """Parameters that one token takes part in: of the embedding a row, of the experts its own."""
        rows = 0 if self.tied else (self.vocab - 1) * self.hidden
        return self._parameters(self.chosen) - rows

    def _parameters(self, experts: int) -> int:
        norms = 2 * self.head_dim if self.qk_norm else 0  # which have no gains
        width, sparse = MATRICES_PER_FFN * self.hidden, self.layers // self.step
        each = width * self.expert_ffn * (experts + 1) + self.hidden * self.experts
        dense = TransformerConfig.parameters(self) - self.layers * norms
        return dense + sparse * (each - width * self.ffn)
