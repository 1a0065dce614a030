"""The numbers of a decoder whose layers differ: a word for each layer, a letter for each part of it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from models.config import MATRICES_PER_FFN, TransformerConfig
from models.routing import Routing

FAMILY = "hybrid"
TAPS = 4  # of the convolutions of published models
UNCLAMPED = 3.4028234663852886e38  # the largest f32: a time step that has no upper limit
MIXER, ATTENTION, BOTH, FFN, EXPERTS = "M", "A", "P", "F", "E"
PARTS = {
    MIXER: "a state space mixer",
    ATTENTION: "attention",
    BOTH: "both beside each other",
    FFN: "a gated FFN",
    EXPERTS: "experts that a router chooses",
}
"""Letters of a layer's word: each part has its own norm and adds to the residual."""
_LATER: dict[str, Any] = {
    "experts": 0,
    "chosen": 0,
    "expert_ffn": 0,
    "shared": 0,
    "renormalise": True,
    "step_norms": False,
    "rule": "ssm",
    "attention_gate": False,
    "squared": False,
    "norm_groups": False,
    "shared_gate": False,
    "score": "softmax",
    "scale": 1.0,
    "expert_groups": 1,
    "expert_keep": 1,
    "latent": 0,
    "shared_ffn": 0,
    "taps": TAPS,
}
"""Fields that are younger than digests, and what they are where nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridConfig(TransformerConfig):
    """A decoder of layers that differ; fields of the parts that it has not are 1 (head_dim 2), and unused.

    pattern: the parts of each layer, as ("MF", "AF"). channels: of a mixer, in `ssm_heads` heads that share a
    time step and a decay, and in `groups` that share B and C. states: of each channel. taps: of a
    convolution, which keeps all its inputs but the newest. rank: of the product
    that makes the time steps of Mamba-1, where each channel has its own, and decays of its own for each
    state; 0: of Mamba-2. conv_biased: whether the convolution has a bias. step_low, step_high: what time
    steps are clamped to. mixer_norm: of the gated results, over all channels. rope: whether attention turns
    queries and keys. names: how the tensors of a checkpoint are called, by its model_type; factors: what its
    matrices are multiplied by when they are loaded, each as "k=0.5". step_norms: of Mamba-1, whether B, C and
    what time steps are made of have norms. A token takes `chosen` of `experts` experts of width `expert_ffn`
    by a softmax, over the chosen alone if `renormalise`, or by sigmoid scores with a bias in the
    `expert_keep` best of `expert_groups` groups, times `scale`, and `shared` more that every token takes;
    latent: lanes that experts take and give, behind a projection and before one back, 0: the hidden ones;
    beside such experts stands a squared FFN of `shared_ffn` for every token. shared_gate: the one shared
    expert counts the sigmoid of a product of the input. rule: how mixers renew their states; of the gated
    delta rule `states` is the lanes of a key, and each of `groups` has a query and a key. attention_gate:
    whether heads of attention are times the sigmoid of gates. squared: FFNs and experts have no gate, but the
    square of relu of what goes up. norm_groups: a mixer's gated results are normed group by group.
    """

    pattern: tuple[str, ...]
    channels: int
    states: int
    ssm_heads: int
    groups: int = 1
    conv_biased: bool = True
    rank: int = 0
    step_low: float = 0.0
    step_high: float = UNCLAMPED
    mixer_norm: Literal["gated", "none"] = "gated"
    rope: bool = True
    names: str = "mamba2"
    factors: tuple[str, ...] = ()
    rule: Literal["ssm", "delta"] = "ssm"
    attention_gate: bool = False
    squared: bool = False
    norm_groups: bool = False
    step_norms: bool = False
    experts: int = 0
    chosen: int = 0
    expert_ffn: int = 0
    shared: int = 0
    renormalise: bool = True
    shared_gate: bool = False
    score: Literal["softmax", "sigmoid"] = "softmax"
    scale: float = 1.0
    expert_groups: int = 1
    expert_keep: int = 1
    latent: int = 0
    shared_ffn: int = 0
    taps: int = TAPS

    def __post_init__(self) -> None:
        TransformerConfig.__post_init__(self)
        if len(self.pattern) != self.layers:
            raise ValueError(
                f"{self.name}: pattern names {len(self.pattern)} layers, there are {self.layers}. "
                "Give one word for each."
            )
        for layer, word in enumerate(self.pattern):
            if unknown := [letter for letter in word if letter not in PARTS]:
                known = ", ".join(f"{letter} ({what})" for letter, what in PARTS.items())
                raise ValueError(
                    f"{self.name}: layer {layer} of the pattern is {word!r}: {unknown[0]!r} is no part, "
                    f"it takes {known}."
                )
            if not word or len(set(word)) < len(word):
                raise ValueError(
                    f"{self.name}: layer {layer} of the pattern is {word!r}: each part once, at least one."
                )
            if BOTH in word and (MIXER in word or ATTENTION in word):
                raise ValueError(
                    f"{self.name}: layer {layer} of the pattern is {word!r}: {BOTH} is a mixer and attention."
                )
        for field in ("channels", "states", "ssm_heads", "groups"):
            if getattr(self, field) < 1:
                raise ValueError(f"{self.name}: {field} is {getattr(self, field)}, the least is 1.")
        if self.taps < 2:
            raise ValueError(
                f"{self.name}: taps is {self.taps}, a convolution that keeps inputs has 2 or more."
            )
        if self.channels % self.ssm_heads:
            raise ValueError(
                f"{self.name}: ssm_heads {self.ssm_heads} do not divide {self.channels} channels of a mixer."
            )
        if self.ssm_heads % self.groups:
            raise ValueError(f"{self.name}: groups {self.groups} do not divide {self.ssm_heads} ssm_heads.")
        if self.rank and (self.ssm_heads, self.groups, self.mixer_norm) != (self.channels, 1, "none"):
            raise ValueError(
                f"{self.name}: rank {self.rank} is of Mamba-1, whose {self.channels} channels are heads of "
                f"one group without a norm; there are {self.ssm_heads} ssm_heads and {self.groups} groups."
            )
        if not 0 <= self.step_low <= self.step_high:
            raise ValueError(
                f"{self.name}: step_low {self.step_low} and step_high {self.step_high} must be "
                "0 <= low <= high."
            )
        if self.rule not in ("ssm", "delta") or (self.rule == "delta" and self.rank):
            raise ValueError(
                f"{self.name}: rule is {self.rule!r} with rank {self.rank}: it is ssm, or delta of rank 0."
            )
        if self.norm_groups and (self.mixer_norm != "gated" or self.rule != "ssm"):
            raise ValueError(f"{self.name}: norm_groups are of state space mixers with a gated norm.")
        if self.step_norms and not self.rank:
            raise ValueError(f"{self.name}: step_norms are of Mamba-1, rank is {self.rank}.")
        self._check_experts()

    def _check_experts(self) -> None:
        layers = sum(EXPERTS in word for word in self.pattern)
        if not layers and not self.experts:
            return
        if not layers or self.experts < 1:
            raise ValueError(
                f"{self.name}: {layers} layers of the pattern have experts, experts is {self.experts}. "
                "Give both or none."
            )
        if self.expert_ffn < 1:
            raise ValueError(f"{self.name}: expert_ffn is {self.expert_ffn}, the least is 1.")
        if bool(self.latent) != bool(self.shared_ffn) or (self.latent and (self.shared or not self.squared)):
            raise ValueError(
                f"{self.name}: latent is {self.latent} beside shared_ffn {self.shared_ffn} and {self.shared} "
                "shared experts: squared experts of latents have an FFN beside them, others neither."
            )
        if why := self.routing.refusal(self.experts):
            raise ValueError(f"{self.name}: {why}")

    def kind_of(self, layer: int) -> str:
        """The word of a layer."""
        return self.pattern[layer]

    def kept_bytes(self, lane_bytes: int) -> tuple[tuple[int, int, int], ...]:
        """KV of layers with attention, f32 states of those with a mixer."""
        token, state = self.cached_lanes * lane_bytes, self.state_bytes() // max(self.mixers, 1)
        every = (
            (
                layer,
                token * bool({ATTENTION, BOTH} & set(word)),
                state * bool({MIXER, BOTH} & set(word)),
            )
            for layer, word in enumerate(self.pattern)
        )
        return tuple(one for one in every if any(one[1:]))

    @property
    def routing(self) -> Routing:
        """How a router chooses."""
        return Routing(
            chosen=self.chosen,
            renormalise=self.renormalise,
            shared=self.shared,
            gated=self.shared_gate,
            score=self.score,
            groups=self.expert_groups,
            keep=self.expert_keep,
            scale=self.scale,
        )

    @property
    def expert_activation(self) -> str:
        """That of experts, by the name that the op knows."""
        return "relu2" if self.squared else self.activation

    @property
    def both(self) -> int:
        """Lanes of B and C of all groups together."""
        return 2 * self.groups * self.states

    @property
    def kept(self) -> tuple[tuple[int, int], ...]:
        """(kept values, channels) of each state of a mixer: its convolutions, then its state space step."""
        convolved = (self.channels,) if self.rank else (self.channels, self.both)
        return (*((self.taps - 1, wide) for wide in convolved), (self.states, self.channels))

    @property
    def mixers(self) -> int:
        """Layers with a mixer."""
        return sum(MIXER in word or BOTH in word for word in self.pattern)

    @property
    def attentions(self) -> int:
        """Layers with attention."""
        return sum(ATTENTION in word or BOTH in word for word in self.pattern)

    @property
    def turns(self) -> bool:
        """Whether there is a table of RoPE."""
        return self.rope and self.attentions > 0

    def factor(self, matrix: str) -> float:
        """What a matrix of a checkpoint is multiplied by."""
        found = dict(one.split("=") for one in self.factors)
        return float(found.get(matrix, 1.0))

    def state_bytes(self) -> int:
        """Bytes of the states of one sequence: all mixers, f32."""
        return 4 * self.mixers * sum(kept * channels for kept, channels in self.kept)

    def parameters(self) -> int:
        """Exact number of parameters: embedding, head unless tied, parts with their norms, the last norm."""
        return self._parameters(self.experts)

    def active_parameters(self) -> int:
        """Parameters that one token takes part in: of the experts those that it takes."""
        return self._parameters(self.chosen)

    def _parameters(self, experts: int) -> int:
        hidden, q, kv = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        mixer = self._mixer_parameters()
        ffns = sum(FFN in word for word in self.pattern)
        attention = 2 * hidden * (q + kv) + 2 * self.head_dim * self.qk_norm
        attention += hidden * q * self.attention_gate
        parts, matrices = self.mixers * mixer + self.attentions * attention, MATRICES_PER_FFN - self.squared
        parts += ffns * matrices * hidden * self.ffn + sum(map(len, self.pattern)) * hidden
        each = matrices * (self.latent or hidden) * self.expert_ffn * (experts + self.shared)
        each += 2 * hidden * (self.latent + self.shared_ffn)
        router = hidden * (self.experts + self.shared_gate) + self.experts * (self.score == "sigmoid")
        parts += sum(EXPERTS in word for word in self.pattern) * (each + router)
        return self.vocab * hidden * (1 if self.tied else 2) + parts + hidden

    def _mixer_parameters(self) -> int:
        """Of a mixer without its norm."""
        hidden, channels = self.hidden, self.channels
        wide = channels if self.rank else channels + self.both
        shared = wide * (self.taps + self.conv_biased) + channels * hidden
        if self.rank:
            made = channels * (self.rank + self.both) + self.rank * channels + channels
            made += (self.rank + self.both) * self.step_norms
            return shared + 2 * hidden * channels + made + channels * (self.states + 1)
        if self.rule == "delta":
            lanes = channels // self.ssm_heads
            return shared + hidden * (channels + wide + 2 * self.ssm_heads) + 2 * self.ssm_heads + lanes
        shared += channels * (self.mixer_norm == "gated")
        return shared + hidden * (channels + wide + self.ssm_heads) + 3 * self.ssm_heads

    def to_fields(self) -> dict[str, Any]:
        """Every field, for JSON; those that are younger than digests only where they say something."""
        held = super(HybridConfig, self).to_fields()
        return {name: v for name, v in held.items() if name not in _LATER or v != _LATER[name]}

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> "HybridConfig":
        """The record of what `to_fields` gave, or of a catalog file, whose tuples are lists."""
        named = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        unknown = sorted(named.keys() - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"{unknown[0]} is no number of a model of family {FAMILY}.")
        made = super(HybridConfig, cls).of_fields(named)
        assert isinstance(made, HybridConfig)
        return made
