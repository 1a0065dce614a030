"""The numbers of a decoder with latent attention (MLA): DeepSeek-V2 and V3, Kimi-K2.

Source of the meanings: transformers 5.24, modeling_deepseek_v3.py and modeling_deepseek_v2.py.
"""

from dataclasses import dataclass

from models.config import MATRICES_PER_FFN, TransformerConfig
from models.configs.scored import ScoredExperts

MOST_KEY_LANES = 8192  # of one exact sum: models/contract/dot16.py


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentConfig(TransformerConfig):
    """The numbers of a dense decoder whose cache holds a latent of `kv_lora` lanes and `rope` turned lanes.

    Each head has `nope` query lanes that meet latents, `rope` that meet turned keys, and `value` lanes of
    its result; head_dim is nope + rope. q_lora: width between the two matrices of the queries; None: there is
    one. latent_eps: of the norms between. mscale: scores are times its square besides 1/sqrt(head_dim).
    index_heads, index_lanes, index_keeps: of an indexer, which lets attention see `index_keeps` tokens of a
    context: all of one that is no longer, and of longer ones no program is made (docs/decisions/0022).
    """

    kv_lora: int
    nope: int
    rope: int
    value: int
    q_lora: int | None = None
    latent_eps: float = 1e-6
    mscale: float = 1.0
    index_heads: int | None = None
    index_lanes: int | None = None
    index_keeps: int | None = None

    def __post_init__(self) -> None:
        TransformerConfig.__post_init__(self)
        index = ("index_heads", "index_lanes", "index_keeps")
        if len({getattr(self, field) is None for field in index}) > 1 or (
            self.index_keeps and not self.q_lora
        ):
            raise ValueError(
                f"{self.name}: an indexer has {', '.join(index)}, and q_lora. Give all, or none."
            )
        for field in ("kv_lora", "nope", "rope", "value", "q_lora", *index):
            number = getattr(self, field)
            if number is not None and number < 1:
                raise ValueError(f"{self.name}: {field} is {number}, the least is 1.")
        if self.rope % 2:
            raise ValueError(f"{self.name}: rope {self.rope} is odd; RoPE turns pairs, 2 at a time.")
        if self.head_dim != self.nope + self.rope:
            raise ValueError(
                f"{self.name}: head_dim is {self.head_dim}, nope {self.nope} and rope {self.rope} make "
                f"{self.nope + self.rope}. Give that."
            )
        if self.kv_lora + self.rope > MOST_KEY_LANES:
            raise ValueError(
                f"{self.name}: a key has kv_lora {self.kv_lora} and rope {self.rope} lanes, an exact sum "
                f"takes {MOST_KEY_LANES}."
            )
        if self.kv_heads not in (1, self.heads):
            raise ValueError(
                f"{self.name}: kv_heads is {self.kv_heads}; one latent serves all heads: give 1 or "
                f"{self.heads}."
            )
        if self.latent_eps <= 0 or self.mscale <= 0:
            raise ValueError(
                f"{self.name}: latent_eps {self.latent_eps} and mscale {self.mscale} must be above 0."
            )
        unfit = {
            "biased": self.biased,
            "turned_lanes": self.turned_lanes,
            "window": self.window,
            "qk_norm": self.qk_norm,
            "fused": self.fused,
        }
        if said := [name for name, value in unfit.items() if value]:
            raise ValueError(
                f"{self.name}: {said[0]} is {unfit[said[0]]!r}, latent attention has no such thing."
            )

    @property
    def cached(self) -> tuple[int, int, int]:
        """One head: the turned lanes of its key, and the latent, which is the rest of it and the value."""
        return 1, self.rope, self.kv_lora

    @property
    def longest(self) -> int:
        """As far as an indexer lets attention see every token."""
        return min(self.max_context, self.index_keeps or self.max_context)

    @property
    def shortened_by(self) -> str:
        """An indexer."""
        if self.longest == self.max_context:
            return ""
        return f"of a longer one its indexer keeps {self.index_keeps:,} tokens, which is not computed"

    @property
    def rope_lanes(self) -> int:
        """Lanes of a head that RoPE's table is for."""
        return self.rope

    @property
    def sigma(self) -> float:
        """By what products of queries and keys are multiplied."""
        return self.head_dim**-0.5 * self.mscale * self.mscale

    def parameters(self) -> int:
        """Exact number of parameters of the checkpoint."""
        queries, hidden = self.heads * self.head_dim, self.hidden
        q = hidden * queries if self.q_lora is None else self.q_lora * (hidden + queries + 1)
        if self.index_heads and self.index_lanes and self.q_lora:  # its key has a LayerNorm with a bias
            q += self.q_lora * self.index_heads * self.index_lanes + 2 * self.index_lanes
            q += hidden * (self.index_lanes + self.index_heads)
        kv = hidden * (self.kv_lora + self.rope) + self.kv_lora * (1 + self.heads * (self.nope + self.value))
        ffn = MATRICES_PER_FFN * hidden * self.ffn
        layer = q + kv + self.heads * self.value * hidden + ffn + 2 * hidden
        return self.vocab * hidden * (1 if self.tied else 2) + self.layers * layer + hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentExpertsConfig(ScoredExperts, LatentConfig):
    """A decoder with latent attention and, after some dense layers, experts in every layer."""
