"""What the `config.json` of Nemotron-H and Nemotron-3 means: mixers, attention without RoPE, squared FFNs.

Source of defaults: transformers 5.24, configuration_nemotron_h.py and modeling_nemotron_h.py.
"""

from typing import Any

from models.configs.hybrid import ATTENTION, EXPERTS, FFN, MIXER, UNCLAMPED, HybridConfig
from models.families.hybrid.keys import config_of, mixer_of, no_biases
from models.sources.json_keys import Keys

_LETTERS = {"M": MIXER, "*": ATTENTION, "-": FFN, "E": EXPERTS}
_WORDS = {
    **{"linear_attention": MIXER, "mamba": MIXER},
    **{"full_attention": ATTENTION, "attention": ATTENTION, "mlp": FFN, "moe": EXPERTS},
}
_OF_EXPERTS = (
    *("n_routed_experts", "n_shared_experts", "moe_intermediate_size", "moe_latent_size", "n_group"),
    *("moe_shared_expert_intermediate_size", "moe_shared_expert_overlap", "routed_scaling_factor"),
    *("topk_group", "norm_topk_prob"),
)
"""Keys of layers with experts, which change nothing where there are none."""


def read_nemotron(keys: Keys, name: str) -> HybridConfig:
    """A layer for each letter of `hybrid_override_pattern`, or each word of `layers_block_type`."""
    hidden, ssm_heads = keys.stated("hidden_size", 4096), keys.stated("mamba_num_heads", 128)
    lanes = keys.stated("mamba_head_dim", 64)
    no_biases(keys, "attention_bias", "mlp_bias", "use_bias")
    for key, known in (("mlp_hidden_act", "relu2"), ("mamba_hidden_act", "silu")):
        if (found := keys.text(key, known)) != known:
            raise keys.error(key, found, f"only {known} is supported")
    pattern = _pattern(keys)
    for inert in (
        *_OF_EXPERTS,
        "num_nextn_predict_layers",
        "mtp_layers_block_type",
        "mtp_hybrid_override_pattern",
        "expand",
    ):
        keys.get(inert)
    heads = keys.stated("num_attention_heads", 32)
    mixer = mixer_of(
        keys,
        hidden,
        heads=ssm_heads,
        head_dim=lanes,
        channels=ssm_heads * lanes,
        expand="expand",
        taps="conv_kernel",
        groups=keys.stated("n_groups", 8),
        bias="mamba_proj_bias",
    )
    keys.get("time_step_limit")  # transformers takes time_step_min in its place
    low = keys.number("time_step_min", 0.001)
    return config_of(
        keys,
        name,
        "nemotron_h",
        pattern,
        step=(low, UNCLAMPED),
        heads=heads,
        kv_heads=keys.stated("num_key_value_heads", 8),
        head_dim=keys.stated("head_dim", 128),
        ffn=keys.stated("intermediate_size", 21504),
        vocab=keys.stated("vocab_size", 131_072),
        rope_theta=10_000.0,
        rope=False,
        eps=keys.number("layer_norm_epsilon", 1e-5),
        max_context=keys.stated("max_position_embeddings", 4096),
        states=keys.stated("ssm_state_size", 128),
        conv_biased=keys.flag("use_conv_bias", True),
        squared=True,
        norm_groups=True,
        **mixer,
        **(_experts(keys) if EXPERTS in pattern else {}),
    )


def _experts(keys: Keys) -> dict[str, Any]:
    """Squared experts by sigmoid scores, and the shared one as experts of their width or apart."""
    width = keys.stated("moe_intermediate_size", 7688)
    beside = keys.stated("moe_shared_expert_intermediate_size", 7688)
    if (count := keys.get("n_shared_experts", 1)) != 1:
        raise keys.error("n_shared_experts", count, "layers with experts of this model_type have one")
    latent = 0 if keys.get("moe_latent_size") is None else keys.integer("moe_latent_size")
    if beside % width and not latent:
        why = f"only whole multiples of an expert's moe_intermediate_size, {width}, are supported"
        raise keys.error("moe_shared_expert_intermediate_size", beside, why)
    return {
        "experts": keys.stated("n_routed_experts", 8),
        "chosen": keys.stated("num_experts_per_tok", 2),
        "expert_ffn": width,
        **({"latent": latent, "shared_ffn": beside} if latent else {"shared": beside // width}),
        "score": "sigmoid",
        "scale": keys.number("routed_scaling_factor", 1.0),
        "renormalise": keys.flag("norm_topk_prob", True),
        "expert_groups": keys.stated("n_group", 1),
        "expert_keep": keys.stated("topk_group", 1),
    }


def _pattern(keys: Keys) -> tuple[str, ...]:
    """A part for each layer."""
    letters, words = keys.get("hybrid_override_pattern"), keys.get("layers_block_type")
    words = keys.get("layer_types") if words is None else words
    key: str = "layers_block_type" if words is not None else "hybrid_override_pattern"
    given: Any = words if words is not None else letters
    known = _WORDS if words is not None else _LETTERS
    if not isinstance(given, str if words is None else list) or not given:
        raise keys.error(key, given, "it names what each layer is")
    if unknown := [one for one in given if one not in known]:
        raise keys.error(key, unknown[0], f"only {', '.join(known)} are supported")
    layers = keys.get("num_hidden_layers")
    if layers is not None and layers != len(given):
        raise keys.error(key, given, f"it names {len(given)} layers, num_hidden_layers is {layers}")
    return tuple(known[one] for one in given)
