"""What the `config.json` of Jamba means: Mamba-1 with norms, attention without RoPE, experts.

Source of defaults: transformers 5.24, configuration_jamba.py.
"""

from models.configs.hybrid import ATTENTION, EXPERTS, FFN, MIXER, HybridConfig
from models.families.hybrid.keys import config_of, mixer_of
from models.sources.huggingface.keys import activation_of
from models.sources.json_keys import Keys


def read_jamba(keys: Keys, name: str) -> HybridConfig:
    """Layers of period and offset have attention, and likewise experts; of one expert, a dense FFN."""
    hidden, heads = keys.stated("hidden_size", 4096), keys.stated("num_attention_heads", 32)
    layers, width = keys.stated("num_hidden_layers", 32), keys.stated("intermediate_size", 14336)
    channels, rank = keys.stated("mamba_expand", 2) * hidden, keys.get("mamba_dt_rank", "auto")
    experts, chosen = keys.stated("num_experts", 16), keys.stated("num_experts_per_tok", 2)
    attends, chooses = _every(keys, "attn", (8, 4), layers), _every(keys, "expert", (2, 1), layers)
    chooses = chooses if experts > 1 else [False] * layers
    routed = {"experts": experts, "chosen": chosen, "expert_ffn": width, "renormalise": False}
    kv_heads = keys.get("num_key_value_heads", 8)
    mixer = mixer_of(
        keys,
        hidden,
        heads=channels,
        head_dim=1,
        expand="mamba_expand",
        taps="mamba_d_conv",
        groups=1,
        bias="mamba_proj_bias",
    )
    return config_of(
        keys,
        name,
        "jamba",
        tuple(
            (ATTENTION if attends[layer] else MIXER) + (EXPERTS if chooses[layer] else FFN)
            for layer in range(layers)
        ),
        heads=heads,
        kv_heads=heads if kv_heads is None else keys.stated("num_key_value_heads", 8),
        head_dim=hidden // heads,
        ffn=width,
        vocab=keys.stated("vocab_size", 65536),
        rope_theta=10_000.0,
        rope=False,
        eps=keys.number("rms_norm_eps", 1e-6),
        activation=activation_of(keys),
        max_context=keys.stated("max_position_embeddings", 262_144),
        states=keys.stated("mamba_d_state", 16),
        rank=-(-hidden // 16) if rank in ("auto", None) else keys.integer("mamba_dt_rank"),
        step_norms=True,
        conv_biased=keys.flag("mamba_conv_bias", True),
        mixer_norm="none",
        **(routed if any(chooses) else {}),
        **mixer,
    )


def _every(keys: Keys, what: str, usual: tuple[int, int], layers: int) -> list[bool]:
    """Of each layer, whether its number is the offset in its period."""
    period = keys.stated(f"{what}_layer_period", usual[0])
    offset = keys.get(f"{what}_layer_offset", usual[1])
    if type(offset) is not int or not 0 <= offset < period:
        raise keys.error(f"{what}_layer_offset", offset, f"it is 0 to {period - 1}, below the period")
    return [layer % period == offset for layer in range(layers)]
