"""A transformer's numbers, frozen, with the checks that hold between them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Activation = Literal["silu", "gelu"]
MOST_WIDTH = 1 << 24
MOST = {"layers": 4096, "max_context": 1 << 62}
MATRICES_PER_FFN = 3  # gate, up, down
DEFAULT_FAMILY = "llama"


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Scaling:
    """How Llama 3.1 stretches RoPE beyond the context it was first trained with.

    Source: transformers, modeling_rope_utils.py, `_compute_llama3_parameters`.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int

    def __post_init__(self) -> None:
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"rope_scaling: low_freq_factor {self.low_freq_factor} must be below "
                f"high_freq_factor {self.high_freq_factor}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """The numbers of a dense decoder. family: by which name `models.families.registry` knows its module.

    ffn_down, ffn_up: how the input of each FFN and its result are rounded, for an FFN that runs on another
    machine. Fp16 and f32 are their formats in any case; the others add an op to the model (round8, round16).
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool
    rope_theta: float
    eps: float
    max_context: int
    source: str
    qk_norm: bool = False
    rope_scaling: Llama3Scaling | None = None
    activation: Activation = "silu"
    published_parameters: int | None = None
    ffn_down: Literal["fp16", "fp8"] = "fp16"
    ffn_up: Literal["f32", "fp16"] = "f32"
    family: str = DEFAULT_FAMILY

    def __post_init__(self) -> None:
        for field in ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "max_context"):
            if getattr(self, field) < 1:
                raise ValueError(f"{self.name}: {field} is {getattr(self, field)}, the least is 1.")
            if getattr(self, field) > MOST.get(field, MOST_WIDTH):
                most = MOST.get(field, MOST_WIDTH)
                raise ValueError(f"{self.name}: {field} is {getattr(self, field)}, the most is {most}.")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"{self.name}: heads {self.heads} is no multiple of kv_heads {self.kv_heads}; "
                "every KV head serves equally many query heads."
            )
        if self.head_dim % 2:
            raise ValueError(f"{self.name}: head_dim {self.head_dim} is odd; RoPE turns pairs, 2 at a time.")
        if self.eps <= 0 or self.rope_theta <= 1:
            raise ValueError(
                f"{self.name}: eps {self.eps} must be above 0 and rope_theta {self.rope_theta} above 1."
            )

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> "TransformerConfig":
        """The record of what `to_fields` gave, or of a catalog file."""
        held: dict[str, Any] = dict(fields)
        if held.get("rope_scaling") is not None:
            held["rope_scaling"] = Llama3Scaling(**held["rope_scaling"])
        return cls(**held)

    def to_fields(self) -> dict[str, Any]:
        """Every field, for JSON. The default family is left out: digests are older than families."""
        fields = asdict(self)
        if self.family == DEFAULT_FAMILY:
            del fields["family"]
        return fields

    @property
    def group(self) -> int:
        """Query heads that share one KV head."""
        return self.heads // self.kv_heads

    def parameters(self) -> int:
        """Exact number of parameters: embedding, head unless tied, attention, FFN and norms."""
        q = self.heads * self.head_dim
        kv = self.kv_heads * self.head_dim
        attention = 2 * self.hidden * q + 2 * self.hidden * kv + (2 * self.head_dim if self.qk_norm else 0)
        ffn = MATRICES_PER_FFN * self.hidden * self.ffn
        tables = self.vocab * self.hidden * (1 if self.tied else 2)
        return tables + self.layers * (attention + ffn + 2 * self.hidden) + self.hidden
