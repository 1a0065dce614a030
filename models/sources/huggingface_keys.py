"""What the config.json of several model families say alike, and refusals of what none of ours computes.

Source: transformers 5.23, configuration_{llama,mistral,qwen3}.py and modeling_rope_utils.py.
"""

from models.config import Activation, Llama3Scaling
from models.sources.error import WeightError
from models.sources.json_keys import Keys

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu",  # ours is the tanh form; plain "gelu" is the exact one
    "gelu_new": "gelu",
}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_BIASES = ("attention_bias", "mlp_bias", "use_bias", "qkv_bias")


def activation_of(keys: Keys) -> Activation:
    """The activation of a gated FFN."""
    activation = keys.text("hidden_act", "silu")
    if activation not in ACTIVATIONS:
        raise keys.error("hidden_act", activation, f"only {', '.join(ACTIVATIONS)} are supported")
    return ACTIVATIONS[activation]


def rope_of(keys: Keys) -> tuple[float, Llama3Scaling | None]:
    """Theta and scaling, from `rope_scaling` (until transformers 4) or `rope_parameters` (since 5)."""
    rope = keys.table("rope_scaling" if keys.values.get("rope_scaling") else "rope_parameters")
    for key, value in rope.values.items():
        if isinstance(value, dict):
            raise rope.error(key, value, "one set of parameters per kind of layer is not supported")
    theta = rope.number("rope_theta", keys.number("rope_theta", 10_000.0))
    if rope.number("partial_rotary_factor", 1.0) != 1:
        raise rope.error("partial_rotary_factor", rope.values["partial_rotary_factor"], "only 1 is supported")
    named = "type" if "type" in rope.values and "rope_type" not in rope.values else "rope_type"
    kind = rope.text(named, "default")
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise rope.error(named, kind, "only default and llama3 are supported")
    try:
        return theta, Llama3Scaling(
            factor=rope.number("factor"),
            low_freq_factor=rope.number("low_freq_factor"),
            high_freq_factor=rope.number("high_freq_factor"),
            original_max_position=rope.integer("original_max_position_embeddings"),
        )
    except WeightError:
        raise
    except ValueError as error:
        raise WeightError(f"{keys.path}: {error}") from error


def refuse_unlike_llama(keys: Keys) -> None:
    """Raise for keys by which a model computes what a dense decoder of the Llama kind does not."""
    for key in _EXPERTS:
        if keys.values.get(key):
            raise keys.error(key, keys.values[key], "experts are not supported, only dense models are")
    for key in _BIASES:
        if keys.flag(key):
            raise keys.error(key, True, "biases are not supported")
    if keys.number("partial_rotary_factor", 1.0) != 1:
        raise keys.error("partial_rotary_factor", keys.values["partial_rotary_factor"], "only 1 is supported")
    kinds = keys.values.get("layer_types") or []
    if any(kind != "full_attention" for kind in kinds):
        raise keys.error("layer_types", sorted(set(map(str, kinds))), "only full_attention is supported")


def refuse_window(keys: Keys, default: int | None = None) -> None:
    """Raise for a sliding window that hides tokens of the longest context. default: of an absent key."""
    absent = default is not None and "sliding_window" not in keys.values
    window = default if absent else keys.values.get("sliding_window")
    context = keys.integer("max_position_embeddings")
    if window is not None and keys.integer("sliding_window", default) < context:
        raise keys.error(
            "sliding_window" + (" (absent: by default)" if absent else ""),
            window,
            f"below max_position_embeddings {context}, a window in effect, which is not supported; lower "
            f"max_position_embeddings to {window} to run the model inside its window",
        )
