"""What a model keeps of a sequence: bytes of KV that grow with its tokens, and of states that do not.

Derived from the keys of its config.json, layer by layer. KV is fp16, states are f32 (docs/hybrids.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.configs.hybrid import TAPS
from models.published.count import blocks_of, layer_kind

Config = Mapping[str, Any]
_KV_BYTES, _STATE_BYTES = 2, 4


class UnknownLayersError(ValueError):
    """A model whose layers keep what nothing here counts."""

    exit_code = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLayer:
    """What a layer keeps of a sequence: bytes of a token, of `window` tokens at most, and at any length."""

    of_token: int = 0
    window: int | None = None
    state: int = 0

    def bytes(self, tokens: int) -> int:
        """Of a sequence of this many tokens."""
        return self.of_token * (tokens if self.window is None else min(tokens, self.window)) + self.state


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOfSequence:
    """All layers of a model. kind: in a word what its layers are."""

    kind: str
    layers: tuple[KeptLayer, ...]

    def kv_bytes(self, tokens: int) -> int:
        """KV of a sequence of this many tokens."""
        return sum(layer.bytes(tokens) - layer.state for layer in self.layers)

    @property
    def state_bytes(self) -> int:
        """States of a sequence of any length."""
        return sum(layer.state for layer in self.layers)


def kept_of(name: str, config: Config) -> KeptOfSequence:
    """What a model keeps. Raises UnknownLayersError by the name of what is not counted."""
    if (kind := config.get("model_type")) in _UNCOUNTED:
        raise UnknownLayersError(f"study: {name}: {_UNCOUNTED[kind]} are not counted. Leave it out.")
    try:
        layers = tuple(_layers(config))
    except KeyError as error:
        raise UnknownLayersError(f"study: {name}: its config does not say {error}. Leave it out.") from None
    return KeptOfSequence(kind=_kind(config, layers), layers=layers)


_UNCOUNTED = {
    "kimi_k3": "the states of KDA layers",
    "deepseek_v4": "its compressed KV and hyper-connections",
    "gemma4_text": "KV that layers share",
}


def _kind(c: Config, layers: tuple[KeptLayer, ...]) -> str:
    if any(layer.state for layer in layers):
        return "hybrid" if any(layer.of_token for layer in layers) else "state space"
    if "kv_lora_rank" in c:
        return "latent"
    return "windowed" if any(layer.window for layer in layers) else "dense"


def _layers(c: Config) -> list[KeptLayer]:
    kind = c["model_type"]
    if kind == "nemotron_h":
        makers = {"mamba": _mamba2, "attention": _attention}
        return [makers.get(block, lambda c: KeptLayer())(c) for block in blocks_of(c)]
    return [_layer(c, i) for i in range(c["num_hidden_layers"])]


def _layer(c: Config, i: int) -> KeptLayer:
    kind = c["model_type"]
    if kind in _OWN:
        return _OWN[kind](c, i)
    if "kv_lora_rank" in c:
        return KeptLayer(of_token=_KV_BYTES * (c["kv_lora_rank"] + c["qk_rope_head_dim"]))
    if layer_kind(c, i) == "linear_attention":
        return _delta(c)
    return _windowed(c, i) if _sees_window(c, i) else _attention(c)


def _sees_window(c: Config, i: int) -> bool:
    if not c.get("sliding_window") or c.get("use_sliding_window") is False:
        return False
    if "sliding_window_pattern" in c:
        return (i + 1) % c["sliding_window_pattern"] != 0
    if c.get("layer_types") or "full_attention_layers" in c:
        return layer_kind(c, i) == "sliding_attention"
    return i % 2 == 0 if c["model_type"] == "gemma2" else True


def _attention(c: Config, heads: str = "num_key_value_heads") -> KeptLayer:
    lanes = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    both = lanes + c.get("v_head_dim", lanes)
    return KeptLayer(of_token=_KV_BYTES * c.get(heads, c["num_key_value_heads"]) * both)


def _windowed(c: Config, i: int) -> KeptLayer:
    one = _attention(c, "swa_num_key_value_heads")
    return KeptLayer(of_token=one.of_token, window=c["sliding_window"])


def _mamba2(c: Config) -> KeptLayer:
    heads = c.get("mamba_num_heads") or c.get("mamba_n_heads") or c["num_heads"]
    lanes = c.get("mamba_head_dim") or c.get("mamba_d_head") or c["head_dim"]
    states = c.get("ssm_state_size") or c.get("mamba_d_state") or c["state_size"]
    groups = c.get("n_groups") or c["mamba_n_groups"]
    channels, kept = heads * lanes, (c.get("mamba_d_conv") or c.get("conv_kernel", TAPS)) - 1
    return KeptLayer(state=_STATE_BYTES * (channels * states + kept * (channels + 2 * groups * states)))


def _mamba1(c: Config) -> KeptLayer:
    channels = c["mamba_expand"] * c["hidden_size"]
    return KeptLayer(state=_STATE_BYTES * channels * (c["mamba_d_state"] + c.get("mamba_d_conv", TAPS) - 1))


def _delta(c: Config) -> KeptLayer:
    k = c["linear_num_key_heads"] * c["linear_key_head_dim"]
    v = c["linear_num_value_heads"] * c["linear_value_head_dim"]
    kept = c.get("linear_conv_kernel_dim", TAPS) - 1
    return KeptLayer(state=_STATE_BYTES * (v * c["linear_key_head_dim"] + kept * (2 * k + v)))


def _jamba(c: Config, i: int) -> KeptLayer:
    attends = i % c["attn_layer_period"] == c["attn_layer_offset"]
    return _attention(c) if attends else _mamba1(c)


def _falcon(c: Config, i: int) -> KeptLayer:
    return KeptLayer(of_token=_attention(c).of_token, state=_mamba2(c).state)


def _granite(c: Config, i: int) -> KeptLayer:
    return _attention(c) if c["layer_types"][i] in ("attention", "full_attention") else _mamba2(c)


_OWN: Mapping[str, Callable[[Config, int], KeptLayer]] = {
    "mamba2": lambda c, i: _mamba2(c),
    "jamba": _jamba,
    "falcon_h1": _falcon,
    "granitemoehybrid": _granite,
}
