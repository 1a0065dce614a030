"""A Hugging Face `config.json` as a `TransformerConfig`, read by the family of its model_type.

What the model would compute differently from ours is refused by the name of its key, never ignored.
"""

from pathlib import Path

from models.config import TransformerConfig
from models.families.registry import readers
from models.sources.error import WeightError
from models.sources.huggingface_keys import refuse_unread
from models.sources.json_keys import Keys, read_object

FP8_METHODS = ("fp8", "fbgemm_fp8", "compressed-tensors", "modelopt")
_METHOD = "quant_method"
_HELD = "text_config"  # where a model of text and pictures keeps the keys of its text part


def read_config(folder: str | Path) -> TransformerConfig:
    """The model that a Hugging Face folder holds, named after it; `WeightError` for what we cannot run."""
    path = Path(folder) / "config.json"
    return config_from(_text_keys(Keys(path, read_object(path))), Path(folder).resolve().name)


def config_from(keys: Keys, name: str) -> TransformerConfig:
    """The model of the keys of a text model's config.json; `WeightError` for what we cannot run."""
    known, kind = readers(), keys.text("model_type")
    if kind not in known:
        raise keys.error("model_type", kind, f"only {', '.join(known)} are supported")
    check_format(keys)
    try:
        config = known[kind](keys, name)
        refuse_unread(keys)
        return config
    except WeightError:
        raise
    except ValueError as error:
        raise WeightError(f"{keys.path}: {error}") from error


def is_nested(folder: str | Path) -> bool:
    """Whether a folder's config.json keeps the text part of a larger model apart."""
    return bool(read_object(Path(folder) / "config.json").get(_HELD))


def weight_block(folder: str | Path) -> tuple[int, int]:
    """Rows and columns of [out, in] that share one fp8 scale (128 x 128 unless the config says otherwise)."""
    path = Path(folder) / "config.json"
    size = Keys(path, read_object(path)).table("quantization_config").values.get("weight_block_size")
    if size is None:
        return 128, 128
    if not (isinstance(size, list) and len(size) == 2 and all(type(one) is int and one > 0 for one in size)):
        raise WeightError(f"{path}: quantization_config.weight_block_size is {size!r}, not two sizes.")
    return size[0], size[1]


def check_format(keys: Keys) -> None:
    """Raise for quantised weights that cannot be read."""
    table = keys.table("quantization_config")
    method = table.get(_METHOD)
    if method is None and not table.values:
        return
    if method not in FP8_METHODS:
        why = f"only {', '.join(FP8_METHODS)} with e4m3 weights are; take the bf16 checkpoint"
        raise table.error(_METHOD, method, why)
    for key, known in (("quant_algo", ("FP8",)), ("fmt", ("e4m3",))):
        if (value := table.get(key)) is not None and value not in known:
            raise table.error(key, value, f"only {known[0]} is supported; take the bf16 checkpoint")


def _text_keys(keys: Keys) -> Keys:
    """The keys of the text part, with those beside it that are about the whole model."""
    if not keys.get(_HELD):
        return keys
    text = keys.table(_HELD)
    for key in ("tie_word_embeddings", "quantization_config"):
        outer, inner = keys.get(key), text.values.get(key)
        if outer is not None and inner is not None and outer != inner:
            raise text.error(key, inner, f"{key} beside {_HELD} is {outer!r}; leave one of the two")
        if outer is not None:
            text.values[key] = outer
    return text
