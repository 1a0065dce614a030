"""What the config.json of several model families say alike, and refusals of what none of ours computes.

Every key is read by a family, known to change nothing (`INERT`), or at the value at which it changes nothing
(`NEUTRAL`); any other is refused by its name, so that none is dropped that changes the math.
Source: transformers 5.24, configuration_utils.py and configuration_{llama,mistral,phi3,qwen2,qwen3}.py.
"""

from models.config import Activation
from models.sources.json_keys import Keys

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_python_tanh": "gelu",
    "gelu_new": "gelu",
    "gelu": "gelu_erf",
    "gelu_python": "gelu_erf",
}
_SAVED = (
    *("architectures", "auto_map", "transformers_version", "torch_dtype", "dtype", "_name_or_path"),
    *("name_or_path", "_commit_hash", "_attn_implementation", "attn_implementation", "use_bfloat16"),
    *("_attn_implementation_autoset", "_flash_attn_2_enabled", "_attn_implementation_internal"),
    *("torchscript", "gradient_checkpointing", "tokenizer_class", "model_name", "license", "task"),
    *("unsloth_fixed", "unsloth_version", "_unsloth_version", "custom_pipelines", "library_name", "tags"),
)
_TRAINING = (
    *("initializer_range", "initializer_factor", "attention_dropout", "hidden_dropout", "dropout"),
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "classifier_dropout", "layerdrop", "pretraining_tp"),
    *("finetuning_task", "id2label", "label2id", "num_labels", "problem_type", "task_specific_params"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "residual_dropout"),
)
_OUTPUTS = (
    *("use_cache", "return_dict", "use_return_dict", "output_attentions", "output_hidden_states"),
    *("output_scores", "return_dict_in_generate", "remove_invalid_values", "cache_implementation"),
)
_GENERATION = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "unk_token_id"),
    *("mask_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "prefix"),
    *("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "max_length", "min_length"),
    *("max_new_tokens", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty"),
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "length_penalty"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "num_return_sequences"),
    *("exponential_decay_length_penalty", "generation_config", "tf_legacy_loss"),
)
INERT = frozenset((*_SAVED, *_TRAINING, *_OUTPUTS, *_GENERATION, "is_decoder", "chunk_size_feed_forward"))
"""Keys that leave the logits of a step as they are, whatever they hold."""

_OFF = (False, 0, "", (), {})
NEUTRAL: dict[str, tuple[object, ...]] = {
    "is_causal": (True,),
    "use_bidirectional_attention": _OFF,
    "is_encoder_decoder": _OFF,
    "add_cross_attention": _OFF,
    "tie_encoder_decoder": _OFF,
    "cross_attention_hidden_size": (),
    "pruned_heads": _OFF,
    "num_local_experts": (0, 1),
    "num_experts": (0, 1),
    "n_routed_experts": (0, 1),
    "use_bias": _OFF,
    "qkv_bias": _OFF,
    "attention_bias": _OFF,
    "mlp_bias": _OFF,
    "use_qk_norm": _OFF,
    "qk_layernorm": _OFF,
    "use_mrope": _OFF,
    "rope_interleaved": _OFF,
    "attention_multiplier": (),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "logits_scaling": (1,),
    "logit_scale": (1,),
    "original_max_position_embeddings": (),
    "use_sliding_window": _OFF,
}
"""Keys at the values at which they change nothing."""

_WHY = {"num_local_experts": "experts", "num_experts": "experts", "n_routed_experts": "experts"}


def activation_of(keys: Keys, key: str = "hidden_act", default: str = "silu") -> Activation:
    """The activation of a gated FFN."""
    activation = keys.text(key, default)
    if activation not in ACTIVATIONS:
        raise keys.error(key, activation, f"only {', '.join(ACTIVATIONS)} are supported")
    return ACTIVATIONS[activation]


def refuse_unread(keys: Keys) -> None:
    """Raise for a key that nobody has read, unless it is known to change nothing or is null."""
    for key, value in keys.values.items():
        if value is None or key in keys.seen or key in INERT:
            continue
        allowed = NEUTRAL.get(key)
        if allowed is None:
            raise keys.error(key, value, "a key that we do not know; take it out if it changes nothing")
        if not any(
            type(value) is type(one) and value == one for one in (*allowed, *map(float, _numbers(allowed)))
        ):
            what = _WHY.get(key)
            why = f"{what} are not supported, only dense models are" if what else "it is not supported"
            raise keys.error(key, value, why)


Kinds = tuple[str, ...]
FULL, WINDOW = "full", "window"
_TYPES = {"full_attention": FULL, "sliding_attention": WINDOW}


def windows_of(
    keys: Keys, longest: int, kinds: Kinds, *, default: int | None = None
) -> tuple[int | None, Kinds]:
    """(the window, the kinds of layers): one alone is not told by layer, nor a window that hides nothing.

    default: of an absent key.
    """
    window = keys.get("sliding_window", default)
    width = None if window is None else keys.integer("sliding_window", default)
    if width is None or width >= longest:
        kinds = tuple(FULL if kind == WINDOW else kind for kind in kinds)
    if set(kinds) in ({FULL}, {WINDOW}):
        return (width if kinds[0] == WINDOW else None), ()
    return (width if WINDOW in kinds else None), kinds


def all_windows(keys: Keys, layers: int) -> Kinds:
    """Every layer has the window, if there is one."""
    layer_types(keys, layers)
    return (WINDOW,) * layers


def no_windows(keys: Keys, layers: int) -> Kinds:
    """No layer has a window."""
    layer_types(keys, layers)
    return (FULL,) * layers


def used_windows(keys: Keys, layers: int) -> Kinds:
    """Layers with a window: by `layer_types`, or those from `max_window_layers` on if it is used."""
    used = keys.flag("use_sliding_window")
    kinds = layer_types(keys, layers, tuple(_TYPES))
    first = keys.get("max_window_layers", 28)
    if type(first) is not int or first < 0:
        raise keys.error("max_window_layers", first, "it is a whole number of at least 0")
    if kinds is None:
        return tuple(WINDOW if used and layer >= first else FULL for layer in range(layers))
    if "sliding_attention" in kinds and not used:
        raise keys.error("layer_types", sorted(set(kinds)), "use_sliding_window is false")
    return tuple(_TYPES[kind] for kind in kinds)


def alternating(keys: Keys, layers: int, period: int) -> Kinds:
    """By `layer_types`, or a window on all layers but the last of every `period`."""
    kinds = layer_types(keys, layers, tuple(_TYPES))
    if kinds is not None:
        return tuple(_TYPES[kind] for kind in kinds)
    return tuple(WINDOW if (layer + 1) % period else FULL for layer in range(layers))


def layer_types(keys: Keys, layers: int, known: tuple[str, ...] = ("full_attention",)) -> list[str] | None:
    """The kind of each layer, None if they are not stated."""
    kinds = keys.get("layer_types")
    if kinds is None:
        return None
    if not isinstance(kinds, list) or any(kind not in known for kind in kinds):
        shown = sorted(set(map(str, kinds))) if isinstance(kinds, list) else kinds
        raise keys.error("layer_types", shown, f"only {', '.join(known)} is supported")
    if len(kinds) != layers:
        raise keys.error("layer_types", kinds, f"names {len(kinds)} layers, num_hidden_layers is {layers}")
    return kinds


def _numbers(values: tuple[object, ...]) -> list[int]:
    return [value for value in values if type(value) is int]
