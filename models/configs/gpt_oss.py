"""The numbers of a decoder of the kind of gpt-oss: experts with biases and a clipped gate, sinks, windows."""

from dataclasses import dataclass

from models.configs.experts import ExpertsConfig, Names

FAMILY = "gpt_oss"
LIMIT, SLOPE = 7.0, 1.702  # at which gate and up are clipped, of the sigmoid: SWIGLU_OAI has no others


@dataclass(frozen=True, slots=True, kw_only=True)
class GptOssConfig(ExpertsConfig):
    """As `ExpertsConfig`; routers and experts have biases, a row weighs its chosen experts alone."""

    biased: tuple[str, ...] = tuple("qkvo")
    sinks: bool = True
    named_as: Names = "gpt_oss"
    family: str = FAMILY

    def __post_init__(self) -> None:
        super(GptOssConfig, self).__post_init__()
        if not self.renormalise:
            raise ValueError(f"{self.name}: renormalise is false, gpt-oss weighs the chosen experts alone.")
        if self.activation != "silu":
            raise ValueError(
                f"{self.name}: activation is {self.activation!r}, the gate of gpt-oss is silu's."
            )

    def _parameters(self, experts: int) -> int:
        biases = experts * (2 * self.ffn + self.hidden) + self.experts
        return super(GptOssConfig, self)._parameters(experts) + self.layers * biases
