"""What the `config.json` of Qwen3-Next and Qwen3.5 (text) means: gated delta layers and attention, experts.

Source of defaults: transformers 5.24, configuration_ of qwen3_next, qwen3_5 and qwen3_5_moe.
"""

from dataclasses import dataclass
from typing import Any

from models.configs.hybrid import ATTENTION, EXPERTS, FFN, MIXER, HybridConfig
from models.families.hybrid.keys import config_of, no_biases, taps_of
from models.sources.huggingface.keys import activation_of
from models.sources.huggingface.rope import rope_of
from models.sources.json_keys import Keys

_KINDS = {"linear_attention": MIXER, "full_attention": ATTENTION}


@dataclass(frozen=True, slots=True, kw_only=True)
class QwenType:
    """What keys are where they are absent. experts: of a layer, and those that a token takes; () for none.

    renormalise: whether the weights of the chosen sum to 1, None: as norm_topk_prob says.
    """

    layers: int
    hidden: int
    kv_heads: int
    ffn: int
    vocab: int = 248_320
    experts: tuple[int, int] | tuple[()] = ()
    renormalise: bool | None = True


QWEN = {
    "qwen3_next": QwenType(
        layers=48,
        hidden=2048,
        kv_heads=2,
        ffn=5632,
        vocab=151_936,
        experts=(512, 10),
        renormalise=None,
    ),
    "qwen3_5_text": QwenType(layers=32, hidden=4096, kv_heads=4, ffn=12288),
    "qwen3_5_moe_text": QwenType(layers=40, hidden=2048, kv_heads=2, ffn=512, experts=(256, 8)),
}


def read_qwen(kind: str, keys: Keys, name: str) -> HybridConfig:
    """Three gated delta layers, then one with attention, unless `layer_types` says otherwise."""
    usual = QWEN[kind]
    heads, head_dim = keys.stated("num_attention_heads", 16), keys.stated("head_dim", 256)
    longest, lanes = keys.stated("max_position_embeddings", 32768), keys.stated("linear_key_head_dim", 128)
    no_biases(keys, "attention_bias")
    groups, values = keys.stated("linear_num_key_heads", 16), keys.stated("linear_num_value_heads", 32)
    if keys.flag("attn_output_gate", True) is not True:
        raise keys.error("attn_output_gate", False, "attention of this model_type has a gate")
    table = keys.get("rope_parameters") or {}
    if not isinstance(table, dict) or table.get("partial_rotary_factor") is None:
        keys.values.setdefault("partial_rotary_factor", 0.25)
    for pictures in ("mrope_section", "mrope_interleaved"):  # of text every section turns alike
        if isinstance(table, dict):
            table.pop(pictures, None)
    rope = rope_of(keys, longest, head_dim, partial=True)
    keys.values.setdefault("hidden_size", usual.hidden)
    for key in ("mtp_num_hidden_layers", "mtp_use_dedicated_embeddings", "router_aux_loss_coef"):
        keys.get(key)
    return config_of(
        keys,
        name,
        kind,
        tuple(map("".join, zip(_mixers(keys, usual), _ffns(keys, usual), strict=True))),
        heads=heads,
        kv_heads=keys.stated("num_key_value_heads", usual.kv_heads),
        head_dim=head_dim,
        ffn=keys.stated("intermediate_size", usual.ffn),
        vocab=keys.stated("vocab_size", usual.vocab),
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
        taps=taps_of(keys, "linear_conv_kernel_dim"),
        **(_experts(keys, usual) if usual.experts else {}),
    )


def _mixers(keys: Keys, usual: QwenType) -> list[str]:
    """What mixes the tokens of each layer."""
    layers = keys.stated("num_hidden_layers", usual.layers)
    every = keys.stated("full_attention_interval", 4)
    kinds = keys.get("layer_types") or [
        "linear_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)
    ]
    if not isinstance(kinds, list) or any(kind not in _KINDS for kind in kinds):
        raise keys.error("layer_types", kinds, f"only {', '.join(_KINDS)} are supported")
    if len(kinds) != layers:
        why = f"it names {len(kinds)} layers, num_hidden_layers is {layers}"
        raise keys.error("layer_types", kinds, why)
    return [_KINDS[kind] for kind in kinds]


def _ffns(keys: Keys, usual: QwenType) -> list[str]:
    """The FFN of each layer: experts, or a dense one in layers that are named or that a step leaves out."""
    layers = keys.stated("num_hidden_layers", usual.layers)
    if not usual.experts:
        return [FFN] * layers
    dense, step = keys.get("mlp_only_layers") or [], keys.stated("decoder_sparse_step", 1)
    if not isinstance(dense, list) or any(type(one) is not int or not 0 <= one < layers for one in dense):
        raise keys.error("mlp_only_layers", dense, f"it names layers, 0 to {layers - 1}")
    return [FFN if layer in dense or (layer + 1) % step else EXPERTS for layer in range(layers)]


def _experts(keys: Keys, usual: QwenType) -> dict[str, Any]:
    """Routed experts, and one of their width that every token takes, times the sigmoid of its gate."""
    experts, chosen = usual.experts or (1, 1)
    width, shared = (keys.stated(f"{one}_intermediate_size", 512) for one in ("moe", "shared_expert"))
    if shared != width:
        raise keys.error(
            "shared_expert_intermediate_size", shared, f"only a shared expert as wide as others, {width}"
        )
    stated = keys.flag("norm_topk_prob", True)
    return {
        "experts": keys.stated("num_experts", experts),
        "chosen": keys.stated("num_experts_per_tok", chosen),
        "expert_ffn": width,
        "shared": 1,
        "shared_gate": True,
        "renormalise": stated if usual.renormalise is None else usual.renormalise,
    }
