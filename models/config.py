"""A transformer's numbers, frozen, with the checks that hold between them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from models.rope_scaling import Llama3Scaling as Llama3Scaling
from models.rope_scaling import Scaling, scaling_of
from models.version import BLOCK

Activation = Literal["silu", "gelu", "gelu_erf"]  # gelu: its tanh form; gelu_erf: the exact one
MOST_WIDTH = 1 << 24
MOST = {
    "layers": 4096,
    **dict.fromkeys(("max_context", "window", "span", "attention_block"), 1 << 62),
    **dict.fromkeys(("published_parameters", "published_active"), 1 << 62),
}
MATRICES_PER_FFN = 3  # gate, up, down
DEFAULT_FAMILY = "llama"
MATRICES = ("q", "k", "v", "o", "gate", "up", "down")  # of a layer, in this order
KINDS = ("full", "window", "span", "nope")  # of a layer's attention
_LATER = (
    *("family", "biased", "turned_lanes", "window", "column_scales", "fused", "attention_block"),
    *("kinds", "span", "window_theta", "attention_scale", "attention_cap", "logit_cap", "sinks"),
    *("norms", "whole_qk_norm", "embedding_scale", "residual_scale", "logits_scale"),
    *("score", "index_heads", "index_lanes", "index_keeps"),
)
"""Fields that came after digests: left out of `to_fields` where they hold their default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """The numbers of a dense decoder. family: by which name `models.families.registry` knows its module.

    biased: which of a layer's MATRICES have a bias. turned_lanes: of each head, by RoPE; None: all. window:
    the last tokens that layers of kind "window" see, span: tokens of a run whose later ones see no other, in
    layers of kind "span". kinds: of each layer (nope: sees all, without RoPE); none stated: all are
    "window" if there is a window, else "full". window_theta: RoPE's base, unscaled, in layers of kind
    "window"; None: as in the others. attention_scale: of scores, None: 1 / sqrt(head_dim). attention_cap,
    logit_cap: x becomes cap tanh(x / cap). sinks: a logit of each head that takes weight alone. norms: before
    attention and FFN, after them (before the residual sum), or both. whole_qk_norm: qk_norm over all heads.
    embedding_scale, residual_scale, logits_scale: factors. fused: whether checkpoints hold
    q, k and v in one tensor, and gate and up. column_scales: of the weights, powers of two or any f32.
    attention_block: tokens that attention sums exactly before it rounds, which decides bits.
    ffn_down, ffn_up: the formats in which the input of each FFN and its result cross, for an FFN that runs on
    another machine: its input is normalised before it crosses; None: by the FFN's own products. fp8 down and
    fp16 up add an op to the model (round8, round16).
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
    rope_scaling: Scaling | None = None
    activation: Activation = "silu"
    published_parameters: int | None = None
    ffn_down: Literal["fp16", "fp8"] | None = None
    ffn_up: Literal["f32", "fp16"] = "f32"
    family: str = DEFAULT_FAMILY
    biased: tuple[str, ...] = ()
    turned_lanes: int | None = None
    window: int | None = None
    fused: bool = False
    column_scales: Literal["pow2", "f32"] = "pow2"
    attention_block: int = BLOCK
    kinds: tuple[str, ...] = ()
    span: int | None = None
    window_theta: float | None = None
    attention_scale: float | None = None
    attention_cap: float | None = None
    logit_cap: float | None = None
    sinks: bool = False
    norms: Literal["pre", "post", "both"] = "pre"
    whole_qk_norm: bool = False
    embedding_scale: float | None = None
    residual_scale: float | None = None
    logits_scale: float | None = None

    def __post_init__(self) -> None:
        for field in ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "max_context"):
            if getattr(self, field) < 1:
                raise ValueError(f"{self.name}: {field} is {getattr(self, field)}, the least is 1.")
        for one in fields(self):
            value, most = getattr(self, one.name), MOST.get(one.name, MOST_WIDTH)
            if one.type in (int, int | None) and value is not None and value > most:
                said = value if value < 1 << 64 else f"over 2^{value.bit_length() - 1}"
                raise ValueError(f"{self.name}: {one.name} is {said}, the most is {most}.")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{self.name}: {one.name} is {value}, it must be finite.")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"{self.name}: heads {self.heads} is no multiple of kv_heads {self.kv_heads}; "
                "every KV head serves equally many query heads."
            )
        if self.head_dim % 2:
            raise ValueError(f"{self.name}: head_dim {self.head_dim} is odd; RoPE turns pairs, 2 at a time.")
        if (turned := self.turned_lanes or self.head_dim) % 2 or not 0 < turned <= self.head_dim:
            raise ValueError(
                f"{self.name}: turned_lanes {turned} must be even, 2 to head_dim {self.head_dim}."
            )
        if unknown := [name for name in self.biased if name not in MATRICES]:
            raise ValueError(f"{self.name}: biased names {unknown[0]!r}, it takes {', '.join(MATRICES)}.")
        if self.column_scales not in ("pow2", "f32"):
            raise ValueError(f"{self.name}: column_scales is {self.column_scales!r}, it takes pow2 or f32.")
        self._check_kinds()
        if self.eps <= 0 or self.rope_theta <= 1:
            raise ValueError(
                f"{self.name}: eps {self.eps} must be above 0 and rope_theta {self.rope_theta} above 1."
            )

    def _check_kinds(self) -> None:
        for name in ("window", "span"):
            tokens = getattr(self, name)
            if tokens is not None and tokens < 1:
                raise ValueError(f"{self.name}: {name} is {tokens}, the least is 1 token.")
            if name in self.kinds and tokens is None:
                raise ValueError(f"{self.name}: kinds names {name!r} layers, {name} is not stated.")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ValueError(f"{self.name}: kinds names {unknown[0]!r}, it takes {', '.join(KINDS)}.")
        if self.kinds and len(self.kinds) != self.layers:
            raise ValueError(f"{self.name}: kinds names {len(self.kinds)} layers, layers is {self.layers}.")
        if self.norms not in ("pre", "post", "both"):
            raise ValueError(f"{self.name}: norms is {self.norms!r}, it takes pre, post or both.")
        for name in ("attention_scale", "attention_cap", "logit_cap", "embedding_scale", "logits_scale"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ValueError(f"{self.name}: {name} is {value}, it must be finite and above 0.")
        if self.window_theta is not None and self.window_theta <= 1:
            raise ValueError(f"{self.name}: window_theta is {self.window_theta}, it must be above 1.")

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> "TransformerConfig":
        """The record of what `to_fields` gave, or of a catalog file."""
        held: dict[str, Any] = dict(fields)
        if held.get("rope_scaling") is not None:
            held["rope_scaling"] = scaling_of(held["rope_scaling"])
        for name in ("biased", "kinds"):
            if name in held:
                held[name] = tuple(held[name])
        for name, hint in get_type_hints(cls).items():
            if name in held and not _fits(held[name], hint):
                raise ValueError(f"{name} is {held[name]!r}, a model has {getattr(hint, '__name__', hint)}.")
        return cls(**held)

    def to_fields(self) -> dict[str, Any]:
        """Every field, for JSON; those that are younger than digests only where they say something."""
        usual = {field.name: field.default for field in (*fields(self), *fields(TransformerConfig))}
        held = asdict(self)
        return {name: v for name, v in held.items() if name not in _LATER or v != usual[name]}

    @property
    def encodes(self) -> bool:
        """Whether a step takes all tokens of a sequence, each of which sees all; a decoder does not."""
        return False

    @property
    def outputs(self) -> int:
        """Numbers that a step leaves for each row: of a decoder a logit for each token."""
        return self.vocab

    @property
    def longest(self) -> int:
        """The longest context that a program can be compiled for."""
        return self.max_context

    @property
    def shortened_by(self) -> str:
        """Why that is less than the model's own longest context, in words; empty where it is not."""
        return f"its attention sees {self.window} tokens" if self.longest < self.max_context else ""

    def kind_of(self, layer: int) -> str:
        """The kind of a layer's attention, one of KINDS."""
        return self.kinds[layer] if self.kinds else "window" if self.window else "full"

    def reach_of(self, kind: str, context: int) -> tuple[int, int]:
        """(window, span) of layers of a kind, in tokens; 0 where that is as long as the context."""
        window = (self.window or 0) if kind == "window" else 0
        span = (self.span or 0) if kind == "span" else 0
        return (window if window < context else 0), (span if span < context else 0)

    def block_for(self, reach: int) -> int:
        """Tokens that attention sums exactly where it sees no more than `reach`; 0: all."""
        return min(self.attention_block, 1 << (reach - 1).bit_length()) if reach else self.attention_block

    def width_of(self, matrix: str) -> int:
        """Outputs of one of a layer's MATRICES."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        widths = {"q": q, "k": kv, "v": kv, "gate": self.ffn, "up": self.ffn}
        return widths.get(matrix, self.hidden)

    @property
    def cached(self) -> tuple[int, int, int]:
        """What the KV cache of a layer keeps of a token: heads, lanes of a key and of a value of each."""
        return self.kv_heads, self.head_dim, self.head_dim

    def cached_at(self, layer: int) -> tuple[int, int, int]:
        """The same of one layer."""
        return self.cached

    def kept_bytes(self, lane_bytes: int) -> tuple[tuple[int, int, int], ...]:
        """Of layers that keep something of a sequence: its number, bytes of a token, bytes at any length."""
        return tuple((layer, self.cached_lanes * lane_bytes, 0) for layer in range(self.layers))

    @property
    def cached_lanes(self) -> int:
        """Numbers that the KV cache of a layer keeps of a token."""
        heads, key, value = self.cached
        return heads * (key + value)

    @property
    def rope_lanes(self) -> int:
        """Lanes of a head that RoPE's table is for."""
        return self.head_dim

    @property
    def group(self) -> int:
        """Query heads that share one KV head."""
        return self.heads // self.kv_heads

    def parameters(self) -> int:
        """Exact number of parameters: embedding, head unless tied, attention, FFN and norms."""
        q = self.heads * self.head_dim
        kv = self.kv_heads * self.head_dim
        normed = (q + kv if self.whole_qk_norm else 2 * self.head_dim) if self.qk_norm else 0
        attention = 2 * self.hidden * q + 2 * self.hidden * kv + normed + self.heads * self.sinks
        ffn = MATRICES_PER_FFN * self.hidden * self.ffn
        tables = self.vocab * self.hidden * (1 if self.tied else 2)
        biases = sum(map(self.width_of, self.biased))
        norms = (4 if self.norms == "both" else 2) * self.hidden
        return tables + self.layers * (attention + ffn + biases + norms) + self.hidden


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is of a field's type: no number in quotes, no truth value for a number."""
    args = get_args(hint)
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in args
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    if args:
        return any(_fits(value, one) for one in args)
    return type(value) in (int, float) and math.isfinite(value) if hint is float else type(value) is hint
