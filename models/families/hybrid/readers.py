"""What the `config.json` of hybrid decoders means: Mamba, Falcon-H1, Bamba, Granite 4; all readers.

Source of defaults: transformers 5.24, configuration_ of the model_types here.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from models.configs.hybrid import ATTENTION, BOTH, EXPERTS, FFN, MIXER, HybridConfig
from models.families.hybrid.jamba import read_jamba
from models.families.hybrid.keys import LONGEST, config_of, mixer_of, no_biases, numbers_of
from models.families.hybrid.nemotron import read_nemotron
from models.families.hybrid.qwen import QWEN, read_qwen
from models.sources.huggingface.keys import activation_of
from models.sources.huggingface.rope import rope_of
from models.sources.json_keys import Keys


def _mamba2(keys: Keys, name: str) -> HybridConfig:
    """Mamba-2 (the state-spaces checkpoints in transformers' form)."""
    hidden, heads = keys.stated("hidden_size", 4096), keys.stated("num_heads", 128)
    layers = keys.stated("num_hidden_layers", 64)
    mixer = mixer_of(
        keys,
        hidden,
        heads=heads,
        head_dim=keys.stated("head_dim", 64),
        expand="expand",
        taps="conv_kernel",
        groups=keys.stated("n_groups", 8),
        bias="use_bias",
    )
    activation = keys.text("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise keys.error("hidden_act", activation, "only silu is supported")
    return config_of(
        keys,
        name,
        "mamba2",
        (MIXER,) * layers,
        heads=1,
        kv_heads=1,
        head_dim=2,
        ffn=1,
        vocab=keys.stated("vocab_size", 32768),
        rope_theta=10_000.0,
        eps=keys.number("layer_norm_epsilon", 1e-5),
        max_context=LONGEST,
        states=keys.stated("state_size", 128),
        conv_biased=keys.flag("use_conv_bias", True),
        mixer_norm="gated",
        norm_groups=mixer["groups"] > 1,
        **mixer,
    )


def _mamba(keys: Keys, name: str) -> HybridConfig:
    """Mamba-1 (the state-spaces checkpoints in transformers' form)."""
    hidden, layers = keys.stated("hidden_size", 768), keys.stated("num_hidden_layers", 32)
    channels, rank = keys.stated("expand", 2) * hidden, keys.get("time_step_rank", "auto")
    if keys.get("intermediate_size") not in (None, channels):
        raise keys.error("intermediate_size", keys.get("intermediate_size"), f"expand makes it {channels}")
    mixer = mixer_of(
        keys,
        hidden,
        heads=channels,
        head_dim=1,
        expand="expand",
        taps="conv_kernel",
        groups=1,
        bias="use_bias",
    )
    if (activation := keys.text("hidden_act", "silu")) not in ("silu", "swish"):
        raise keys.error("hidden_act", activation, "only silu is supported")
    keys.values.setdefault("tie_word_embeddings", True)
    return config_of(
        keys,
        name,
        "mamba",
        (MIXER,) * layers,
        heads=1,
        kv_heads=1,
        head_dim=2,
        ffn=1,
        vocab=keys.stated("vocab_size", 50280),
        rope_theta=10_000.0,
        eps=keys.number("layer_norm_epsilon", 1e-5),
        max_context=LONGEST,
        states=keys.stated("state_size", 16),
        rank=-(-hidden // 16) if rank in ("auto", None) else keys.integer("time_step_rank"),
        conv_biased=keys.flag("use_conv_bias", True),
        mixer_norm="none",
        **mixer,
    )


def _falcon_h1(keys: Keys, name: str) -> HybridConfig:
    """Falcon-H1: attention and a mixer beside each other in every layer; muP multipliers."""
    normed = keys.flag("mamba_rms_norm")
    if normed and keys.flag("mamba_norm_before_gate", True):
        why = "a mixer's own norm is supported behind its gate only"
        raise keys.error("mamba_norm_before_gate", keys.get("mamba_norm_before_gate"), why)
    no_biases(keys, "projectors_bias", "attention_bias", "mlp_bias")
    layers = keys.stated("num_hidden_layers", 32)
    z, x, b, c, dt = numbers_of(keys, "ssm_multipliers", 5)
    gate, down = numbers_of(keys, "mlp_multipliers", 2)
    attention_in, ssm_in = (keys.number(f"{one}_in_multiplier", 1.0) for one in ("attention", "ssm"))
    factors = {
        "embed": keys.number("embedding_multiplier", 1.0),
        "head": keys.number("lm_head_multiplier", 1.0),
        "q": attention_in,
        "k": attention_in * keys.number("key_multiplier", 1.0),
        "v": attention_in,
        "o": keys.number("attention_out_multiplier", 1.0),
        **{part: ssm_in * by for part, by in zip(("z", "x", "b", "c", "dt"), (z, x, b, c, dt), strict=True)},
        "mixer": keys.number("ssm_out_multiplier", 1.0),
        "gate": gate,
        "down": down,
    }
    return _decoder(
        keys, name, "falcon_h1", (BOTH + FFN,) * layers, factors, mixer_norm="gated" if normed else "none"
    )


def _bamba(keys: Keys, name: str) -> HybridConfig:
    """Bamba: Mamba-2 layers, some with attention that turns half of each head."""
    no_biases(keys, "attention_bias", "mlp_bias")
    layers, at = keys.stated("num_hidden_layers", 32), keys.get("attn_layer_indices") or []
    if not isinstance(at, list) or any(type(one) is not int or not 0 <= one < layers for one in at):
        raise keys.error("attn_layer_indices", at, f"it names layers, 0 to {layers - 1}")
    keys.values.setdefault("partial_rotary_factor", 0.5)
    pattern = tuple(ATTENTION + FFN if layer in at else MIXER + FFN for layer in range(layers))
    return _decoder(keys, name, "bamba", pattern, {}, mixer_norm="gated")


def _granite(keys: Keys, name: str) -> HybridConfig:
    """Granite 4: multipliers, RoPE only where it is asked for, experts beside an FFN that all tokens take."""
    no_biases(keys, "attention_bias", "mlp_bias")
    routed = _granite_experts(keys)
    layers = keys.stated("num_hidden_layers", 32)
    known = {"linear_attention": MIXER, "mamba": MIXER, "full_attention": ATTENTION, "attention": ATTENTION}
    kinds = keys.get("layer_types") or keys.get("layers_block_type") or ["linear_attention"] * layers
    if not isinstance(kinds, list) or any(kind not in known for kind in kinds):
        wrong = [kind for kind in kinds if kind not in known] if isinstance(kinds, list) else kinds
        raise keys.error("layer_types", wrong, f"only {', '.join(known)} are supported")
    if len(kinds) != layers:
        why = f"it names {len(kinds)} layers, num_hidden_layers is {layers}"
        raise keys.error("layer_types", kinds, why)
    kind = keys.get("position_embedding_type")
    if kind not in (None, "nope", "rope"):
        raise keys.error("position_embedding_type", kind, "it is rope or nope")
    residual, heads = keys.number("residual_multiplier", 1.0), keys.stated("num_attention_heads", 32)
    head_dim = keys.stated("hidden_size", 4096) // heads
    factors = {
        "embed": keys.number("embedding_multiplier", 1.0),
        "head": 1.0 / keys.divisor("logits_scaling", 1.0),
        "q": keys.number("attention_multiplier", 1.0) * head_dim**0.5,
        **dict.fromkeys(("o", "mixer", "down"), residual),
    }
    return _decoder(
        keys,
        name,
        "granitemoehybrid",
        tuple(known[one] + (EXPERTS if routed else FFN) for one in kinds),
        factors,
        mixer_norm="gated",
        rope=kind == "rope",
        **routed,
        ffn_key="shared_intermediate_size",
    )


def _granite_experts(keys: Keys) -> dict[str, int]:
    """Experts, and the FFN beside them as experts of their width that every token takes; {} for none."""
    experts, width = keys.get("num_local_experts", 8), keys.stated("intermediate_size", 11008)
    if experts in (0, None):
        return {}
    beside = keys.stated("shared_intermediate_size", 1024)
    if beside % width:
        why = f"only whole multiples of an expert's intermediate_size, {width}, are supported"
        raise keys.error("shared_intermediate_size", beside, why)
    return {
        "experts": keys.stated("num_local_experts", 8),
        "chosen": keys.stated("num_experts_per_tok", 2),
        "expert_ffn": width,
        "shared": beside // width,
    }


def _decoder(
    keys: Keys, name: str, names: str, pattern: tuple[str, ...], factors: dict[str, float], **how: Any
) -> HybridConfig:
    """A decoder whose keys are called as Bamba's."""
    hidden, heads = keys.stated("hidden_size", 4096), keys.stated("num_attention_heads", 32)
    head_dim = keys.integer("head_dim", hidden // heads)
    longest = keys.stated("max_position_embeddings", 8192)
    rope = rope_of(keys, longest, head_dim, partial=names == "bamba")
    ssm_heads = keys.stated("mamba_n_heads", 128)
    stated = keys.get("mamba_d_ssm")
    channels = keys.stated("mamba_expand", 2) * hidden if stated is None else keys.integer("mamba_d_ssm")
    size = keys.get("mamba_d_head", "auto")
    mixer = mixer_of(
        keys,
        hidden,
        heads=ssm_heads,
        head_dim=channels // ssm_heads if size in ("auto", None) else keys.integer("mamba_d_head"),
        channels=channels,
        expand="mamba_expand",
        taps="mamba_d_conv",
        groups=keys.stated("mamba_n_groups", 1),
        bias="mamba_proj_bias",
    )
    kv_heads = keys.get("num_key_value_heads")
    return config_of(
        keys,
        name,
        names,
        pattern,
        heads=heads,
        kv_heads=heads if kv_heads is None else keys.integer("num_key_value_heads"),
        head_dim=head_dim,
        ffn=keys.stated(how.pop("ffn_key", "intermediate_size"), 14336),
        vocab=keys.stated("vocab_size", 128_000),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        turned_lanes=rope.turned_lanes,
        activation=activation_of(keys),
        eps=keys.number("rms_norm_eps", 1e-5),
        max_context=longest,
        states=keys.stated("mamba_d_state", 256),
        conv_biased=keys.flag("mamba_conv_bias", True),
        factors=tuple(f"{matrix}={by!r}" for matrix, by in factors.items() if by != 1),
        norm_groups=how["mixer_norm"] == "gated" and mixer["groups"] > 1,
        **how,
        **mixer,
    )


READERS: dict[str, Callable[[Keys, str], HybridConfig]] = {
    "mamba": _mamba,
    "mamba2": _mamba2,
    "falcon_h1": _falcon_h1,
    "bamba": _bamba,
    "granitemoehybrid": _granite,
    "jamba": read_jamba,
    "nemotron_h": read_nemotron,
    **{kind: partial(read_qwen, kind) for kind in QWEN},
}
