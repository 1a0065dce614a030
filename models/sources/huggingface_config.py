"""A Hugging Face `config.json` as a `TransformerConfig`, read by the family of its model_type.

What the model would compute differently from ours is refused by the name of its key, never ignored.
"""

from pathlib import Path

from models.config import TransformerConfig
from models.families.registry import readers
from models.sources.error import WeightError
from models.sources.json_keys import Keys, read_object

FP8_METHODS = ("fp8", "fbgemm_fp8", "compressed-tensors")


def read_config(folder: str | Path) -> TransformerConfig:
    """The model that a Hugging Face folder holds, named after it; `WeightError` for what we cannot run."""
    path, known = Path(folder) / "config.json", readers()
    keys = Keys(path, read_object(path))
    kind = keys.text("model_type")
    if kind not in known:
        raise keys.error("model_type", kind, f"only {', '.join(known)} are supported")
    _check_format(keys)
    try:
        return known[kind](keys, Path(folder).resolve().name)
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


def _check_format(keys: Keys) -> None:
    """Raise for quantised weights that cannot be read."""
    method = keys.table("quantization_config").values.get("quant_method")
    if method is not None and method not in FP8_METHODS:
        why = f"only {', '.join(FP8_METHODS)} with e4m3 weights are; take the bf16 checkpoint"
        raise keys.error("quantization_config.quant_method", method, why)
