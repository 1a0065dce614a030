"""The numbers of experts behind dense layers, that sigmoid scores choose: DeepSeek-V3, GLM-4.5, MiniMax-M2.

Source of the meanings: transformers 5.24, modeling_ of deepseek_v3, glm4_moe and minimax_m2.
"""

from dataclasses import dataclass
from typing import Literal

from models.config import MATRICES_PER_FFN, TransformerConfig
from models.routing import Routing

FAMILY = "scored"


@dataclass(frozen=True, kw_only=True)
class ScoredExperts(TransformerConfig):
    """After `dense` layers with a dense FFN, experts in every layer.

    A token takes `chosen` of `experts` experts of width `expert_ffn`, in the `keep` best of `groups` groups
    by sigmoid scores with a bias or, in no groups, by a softmax, and `shared` more that every token takes.
    renormalise: whether the weights of the chosen sum to `scale`, or are scores times it. published_active:
    parameters of a token.
    """

    __slots__ = ()  # of the classes that are made of it

    dense: int
    experts: int
    chosen: int
    expert_ffn: int
    shared: int = 0
    groups: int = 1
    keep: int = 1
    scale: float = 1.0
    renormalise: bool = True
    score: Literal["sigmoid", "softmax"] = "sigmoid"
    published_active: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dense < self.layers:
            raise ValueError(
                f"{self.name}: dense is {self.dense}, it is 0 to {self.layers - 1}, layers less 1; a "
                "model of dense layers alone is of a family without experts."
            )
        if self.expert_ffn < 1:
            raise ValueError(f"{self.name}: expert_ffn is {self.expert_ffn}, the least is 1.")
        if why := self.routing.refusal(self.experts):
            raise ValueError(f"{self.name}: {why}")

    @property
    def routing(self) -> Routing:
        """How a router chooses."""
        return Routing(
            chosen=self.chosen,
            renormalise=self.renormalise,
            shared=self.shared,
            score=self.score,
            groups=self.groups,
            keep=self.keep,
            scale=self.scale,
        )

    def kind_of(self, layer: int) -> str:
        """The kind of a layer: `dense`, or that of its attention where it has experts."""
        return "dense" if layer < self.dense else super().kind_of(layer)

    def parameters(self) -> int:
        """Exact number of parameters of the checkpoint."""
        return self._parameters(self.experts)

    def active_parameters(self) -> int:
        """Parameters that one token takes part in: of the experts those that it takes."""
        return self._parameters(self.chosen)

    def _parameters(self, experts: int) -> int:
        width = MATRICES_PER_FFN * self.hidden
        router = (self.hidden + (self.score == "sigmoid")) * self.experts
        each = width * self.expert_ffn * (experts + self.shared) + router
        return super().parameters() + (self.layers - self.dense) * (each - width * self.ffn)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredConfig(ScoredExperts):
    """Such a decoder with the attention of the Llama family. named_as: the model_type of its checkpoint."""

    named_as: str = "glm4_moe"
    family: str = FAMILY

    def __post_init__(self) -> None:
        ScoredExperts.__post_init__(self)
        if self.dense and self.window:
            raise ValueError(f"{self.name}: window {self.window} of a model with dense layers: state none.")
        if biased := [name for name in self.biased if name not in "qkvo"]:
            raise ValueError(f"{self.name}: biased names {biased[0]!r}, experts have no biases.")
