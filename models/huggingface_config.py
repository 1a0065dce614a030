"""A Hugging Face `config.json` as a `TransformerConfig`: Llama 2 and 3, Mistral, Qwen3 (dense).

What the model would compute differently from ours is refused by the name of its key, never ignored.
Source: transformers 5.23, configuration_{llama,mistral,qwen3}.py and modeling_rope_utils.py.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import Activation, Llama3Scaling, TransformerConfig
from models.quantise import WeightError

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
    """The model that a Hugging Face folder holds, named after the folder; `WeightError` for what we cannot run."""
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
        raise WeightError(f"{path}: quantization_config.weight_block_size is {size!r}, it is two whole numbers.")
    return size[0], size[1]


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; `WeightError` with file and line when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        here = "its folder exists" if path.parent.is_dir() else f"nor is there a folder {path.parent}"
        raise WeightError(
            f"{path}: not found ({here}). Nothing is downloaded: fetch the checkpoint first, then name its folder."
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
    """The keys of one JSON object, read with their types; `prefix` is its own place in the file."""

    path: Path
    values: dict[str, Any]
    prefix: str = ""

    def error(self, key: str, value: object, why: str) -> WeightError:
        """An error that names file, key and value."""
        return WeightError(f"{self.path}: {self.prefix}{key} is {value!r}: {why}.")

    def _get[T](self, key: str, default: T | None, kind: str, take: Callable[[Any], T | None]) -> T: ...
