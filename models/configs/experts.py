"""The numbers of a decoder whose FFN is a mixture of experts."""

from dataclasses import dataclass
from typing import Literal

from models.config import MATRICES_PER_FFN, TransformerConfig

FAMILY = "experts"
MOST_EXPERTS = 1024  # of a layer
Names = Literal["mixtral", "qwen3_moe", "olmoe", "granitemoe", "gpt_oss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsConfig(TransformerConfig):
    """A decoder with `experts` experts of width `ffn` in every layer, of which a token takes `chosen`.

    renormalise: whether the weights of the chosen experts sum to 1. published_active: parameters of a token.
    named_as: after which model_type the tensors of its checkpoint are named.
    """

    experts: int
    chosen: int
    renormalise: bool = True
    published_active: int | None = None
    named_as: Names = "mixtral"
    family: str = FAMILY

    def __post_init__(self) -> None:
        super(ExpertsConfig, self).__post_init__()
        if not 1 <= self.chosen <= self.experts:
            raise ValueError(f"{self.name}: chosen is {self.chosen}, it is 1 to experts, {self.experts}.")
        if self.experts > MOST_EXPERTS:
            raise ValueError(f"{self.name}: experts is {self.experts}, the most is {MOST_EXPERTS}.")
        if biased := [name for name in self.biased if name not in "qkvo"]:
            raise ValueError(f"{self.name}: biased names {biased[0]!r}, experts have no biases.")

    def parameters(self) -> int:
        """Exact number of parameters."""
        return self._parameters(self.experts)

    def active_parameters(self) -> int:
        """Parameters that one token takes part in: of the experts those that it chooses."""
        return self._parameters(self.chosen)

    def _parameters(self, experts: int) -> int:
        dense = super(ExpertsConfig, self).parameters()
        ffn = MATRICES_PER_FFN * self.hidden * self.ffn
        return dense + self.layers * ((experts - 1) * ffn + self.hidden * self.experts)
