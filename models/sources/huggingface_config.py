"""A Hugging Face `config.json` as a `TransformerConfig`: Llama 2 and 3, Mistral, Qwen3 (dense).

What the model would compute differently from ours is refused by the name of its key, never ignored.
Source: transformers 5.23, configuration_{llama,mistral,qwen3}.py and modeling_rope_utils.py.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import Activation, Llama3Scaling, TransformerConfig
from models.sources.quantise import WeightError

FAMILIES = ("llama", "mistral", "qwen3")
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu",  # ours is the tanh form; plain "gelu" is the exact one
    "gelu_new": "gelu",
}
FP8_METHODS = ("fp8", "fbgemm_fp8", "compressed-tensors")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_BIASES = ("attention_bias", "mlp_bias", "use_bias", "qkv_bias")


def read_config(folder: str | Path) -> TransformerConfig:
    """The model that a Hugging Face folder holds, named after it; `WeightError` for what we cannot run."""
    path = Path(folder) / "config.json"
    keys = Keys(path, read_object(path))
    family = keys.text("model_type")
    if family not in FAMILIES:
        raise keys.error("model_type", family, f"only {', '.join(FAMILIES)} are supported")
    _refuse(keys)
    heads, hidden = keys.integer("num_attention_heads"), keys.integer("hidden_size")
    theta, scaling = _rope(keys)
    activation = keys.text("hidden_act", "silu")
    if activation not in ACTIVATIONS:
        raise keys.error("hidden_act", activation, f"only {', '.join(ACTIVATIONS)} are supported")
    try:
        return TransformerConfig(
            name=Path(folder).resolve().name,
            layers=keys.integer("num_hidden_layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=keys.integer("num_key_value_heads", heads if family == "llama" else None),
            head_dim=keys.integer("head_dim", 128 if family == "qwen3" else hidden // max(heads, 1)),
            ffn=keys.integer("intermediate_size"),
            vocab=keys.integer("vocab_size"),
            tied=keys.flag("tie_word_embeddings"),
            rope_theta=theta,
            eps=keys.number("rms_norm_eps"),
            max_context=keys.integer("max_position_embeddings"),
            source=f"config.json of the Hugging Face folder {Path(folder).resolve().name}",
            qk_norm=family == "qwen3",
            rope_scaling=scaling,
            activation=ACTIVATIONS[activation],
        )
    except WeightError:
        raise
    except ValueError as error:
        raise WeightError(f"{path}: {error}") from error


def weight_block(folder: str | Path) -> tuple[int, int]:
    """Rows and columns of [out, in] that share one fp8 scale (128 x 128 unless the config says otherwise)."""
    path = Path(folder) / "config.json"
    size = Keys(path, read_object(path)).table("quantization_config").values.get("weight_block_size")
    if size is None:
        return 128, 128
    if not (isinstance(size, list) and len(size) == 2 and all(type(one) is int and one > 0 for one in size)):
        raise WeightError(f"{path}: quantization_config.weight_block_size is {size!r}, not two sizes.")
    return size[0], size[1]


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; `WeightError` with file and line when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        here = "its folder exists" if path.parent.is_dir() else f"nor is there a folder {path.parent}"
        raise WeightError(
            f"{path}: not found ({here}). Nothing is downloaded: fetch the checkpoint, then name its folder."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise WeightError(f"{path}: cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise WeightError(f"{path}:{error.lineno}:{error.colno}: no JSON: {error.msg}.") from error
    if not isinstance(value, dict):
        raise WeightError(f"{path}: holds a JSON {type(value).__name__}, expected an object.")
    return value


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one JSON object, read with their types; null is the same as absent."""

    path: Path
    values: dict[str, Any]
    prefix: str = ""  # the object's own place in the file

    def error(self, key: str, value: object, why: str) -> WeightError:
        """An error that names file, key and value."""
        return WeightError(f"{self.path}: {self.prefix}{key} is {value!r}: {why}.")

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        value = self._required(key, default)
        if type(value) is not int or value < 1:
            raise self.error(key, value, "it is a whole number of at least 1")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._required(key, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self.error(key, value, "it is a finite number")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._required(key, default)
        if not isinstance(value, str):
            raise self.error(key, value, "it is a string")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self._required(key, default)
        if not isinstance(value, bool):
            raise self.error(key, value, "it is true or false")
        return value

    def table(self, key: str) -> "Keys":
        """A nested object; empty when absent."""
        value = self._required(key, {})
        if not isinstance(value, dict):
            raise self.error(key, value, "it is an object")
        return Keys(self.path, value, f"{self.prefix}{key}.")

    def _required(self, key: str, default: object) -> Any:
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise WeightError(f"{self.path}: {self.prefix}{key} is missing. Add it, as the authors give it.")
        return value


def _refuse(keys: Keys) -> None:
    """Raise for keys by which the model would compute something else than our Llama."""
    for key in _EXPERTS:
        if keys.values.get(key):
            raise keys.error(key, keys.values[key], "experts are not supported, only dense models are")
    for key in _BIASES:
        if keys.flag(key):
            raise keys.error(key, True, "biases are not supported")
    if keys.number("partial_rotary_factor", 1.0) != 1:
        raise keys.error("partial_rotary_factor", keys.values["partial_rotary_factor"], "only 1 is supported")
    method = keys.table("quantization_config").values.get("quant_method")
    if method is not None and method not in FP8_METHODS:
        why = f"only {', '.join(FP8_METHODS)} with e4m3 weights are; take the bf16 checkpoint"
        raise keys.error("quantization_config.quant_method", method, why)
    _refuse_window(keys)


def _refuse_window(keys: Keys) -> None:
    """Raise for a sliding window that hides tokens of a context that the model allows."""
    kinds = keys.values.get("layer_types") or []
    if any(kind != "full_attention" for kind in kinds):
        raise keys.error("layer_types", sorted(set(map(str, kinds))), "only full_attention is supported")
    family = keys.text("model_type")
    if family == "llama" or (family == "qwen3" and not keys.flag("use_sliding_window")):
        return
    absent = family == "mistral" and "sliding_window" not in keys.values  # transformers then takes 4096
    window = 4096 if absent else keys.values.get("sliding_window")
    context = keys.integer("max_position_embeddings")
    if window is not None and keys.integer("sliding_window", 4096) < context:
        raise keys.error(
            "sliding_window" + (" (absent: by default)" if absent else ""),
            window,
            f"below max_position_embeddings {context}, a window in effect, which is not supported; lower "
            f"max_position_embeddings to {window} to run the model inside its window",
        )


def _rope(keys: Keys) -> tuple[float, Llama3Scaling | None]:
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
