"""What the `config.json` of Qwen3.5 (text, dense) means: gated delta layers, gated attention, gains less 1.

Source of defaults: transformers 5.24, configuration_qwen3_5.py.
"""

from models.families.hybrid.keys import config_of, no_biases
from models.hybrid_config import ATTENTION, FFN, MIXER, TAPS, HybridConfig
from models.sources.huggingface.keys import activation_of
from models.sources.huggingface.rope import rope_of
from models.sources.json_keys import Keys

_KINDS = {"linear_attention": MIXER, "full_attention": ATTENTION}


def read_qwen(keys: Keys, name: str) -> HybridConfig:
    """Three gated delta layers, then one with attention, unless `layer_types` says otherwise."""
    heads, head_dim = keys.stated("num_attention_heads", 16), keys.stated("head_dim", 256)
    longest, lanes = keys.stated("max_position_embeddings", 32768), keys.stated("linear_key_head_dim", 128)
    no_biases(keys, "attention_bias")
    if (taps := keys.stated("linear_conv_kernel_dim", TAPS)) != TAPS:
        raise keys.error("linear_conv_kernel_dim", taps, f"only convolutions of {TAPS} taps are supported")
    groups, values = keys.stated("linear_num_key_heads", 16), keys.stated("linear_num_value_heads", 32)
    table = keys.get("rope_parameters") or {}
    if not isinstance(table, dict) or table.get("partial_rotary_factor") is None:
        keys.values.setdefault("partial_rotary_factor", 0.25)
    for pictures in ("mrope_section", "mrope_interleaved"):  # of text every section turns alike
        if isinstance(table, dict):
            table.pop(pictures, None)
    rope = rope_of(keys, longest, head_dim, partial=True)
    return config_of(
        keys,
        name,
        "qwen3_5_text",
        tuple(_KINDS[one] + FFN for one in _kinds(keys)),
        heads=heads,
        kv_heads=keys.stated("num_key_value_heads", 4),
        head_dim=head_dim,
        ffn=keys.stated("intermediate_size", 12288),
        vocab=keys.stated("vocab_size", 248_320),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        turned_lanes=rope.turned_lanes,
        qk_norm=True,
        attention_gate=True,
        eps=keys.number("rms_norm_eps", 1e-6),
        activation=activation_of(keys),
        max_context=longest,
        rule="delta",
        channels=values * keys.stated("linear_value_head_dim", 128),
        states=lanes,
        ssm_heads=values,
        groups=groups,
        conv_biased=False,
    )


def _kinds(keys: Keys) -> list[str]:
    """What mixes the tokens of each layer."""
    layers, every = keys.stated("num_hidden_layers", 32), keys.stated("full_attention_interval", 4)
    usual = [
        "full_attention" if layer % every == every - 1 else "linear_attention" for layer in range(layers)
    ]
    kinds = keys.get("layer_types") or usual
    if not isinstance(kinds, list) or any(kind not in _KINDS for kind in kinds):
        raise keys.error("layer_types", kinds, f"only {', '.join(_KINDS)} are supported")
    if len(kinds) != layers:
        raise keys.error("layer_types", len(kinds), f"names so many layers, num_hidden_layers is {layers}")
    return kinds
