"""A Hugging Face `config.json` as a `TransformerConfig`, read by the family of its model_type.

What the model would compute differently from ours is refused by the name of its key, never ignored.
"""

from pathlib import Path

from models.config import MOST, TransformerConfig
from models.families.registry import readers
from models.sources.error import WeightError
from models.sources.huggingface.keys import refuse_unread
from models.sources.json_keys import Keys, read_object

METHODS = ("fp8", "fbgemm_fp8", "compressed-tensors", "modelopt", "mxfp4")
FORMATS = ("dense", "naive-quantized", "float-quantized", "pack-quantized", "mxfp4-pack-quantized")
"""Of compressed-tensors, those that are read: bf16, e4m3, int4 in groups, MXFP4."""
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
        raise keys.error("model_type", kind, f"none of the {len(known)} that are read; lpu models lists them")
    check_format(keys)
    layers = keys.values.get("num_hidden_layers")
    if type(layers) is int and layers > MOST["layers"]:  # before a family lists what each of them is
        raise keys.error("num_hidden_layers", layers, f"the most is {MOST['layers']}")
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
    table = _text_keys(Keys(path, read_object(path))).table("quantization_config")
    sizes = [(table, "weight_block_size", table.get("weight_block_size"))]
    sizes += [(one, "block_structure", one.get("block_structure")) for one in _groups(table)]
    stated = [each for each in sizes if each[2] is not None]
    for keys, key, size in stated:
        if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)):
            raise WeightError(f"{path}: {keys.prefix}{key} is {size!r}, not two sizes.")
        if size != stated[0][2]:
            raise keys.error(
                key, size, f"other blocks than {stated[0][2]} elsewhere in the file; one is read"
            )
    return (stated[0][2][0], stated[0][2][1]) if stated else (128, 128)


def check_format(keys: Keys) -> None:
    """Raise for quantised weights that cannot be read."""
    table = keys.table("quantization_config")
    method = table.get(_METHOD)
    if method is None and not table.values:
        return
    if method not in METHODS:
        why = f"only {', '.join(METHODS)} with e4m3, int4 or MXFP4 weights are; take the bf16 checkpoint"
        raise table.error(_METHOD, method, why)
    if (form := table.get("format")) is not None and method == "compressed-tensors" and form not in FORMATS:
        raise table.error("format", form, f"only {', '.join(FORMATS)} are read; take the bf16 checkpoint")
    for weights in _groups(table):
        if weights.get("type") == "int" and weights.get("num_bits") != 4:
            why = "of integers only 4 bits are read; take the bf16 checkpoint"
            raise weights.error("num_bits", weights.get("num_bits"), why)
        if weights.get("symmetric") is False:
            raise weights.error(
                "symmetric", False, "only symmetric weights are read; take the bf16 checkpoint"
            )
    for key, known in (("quant_algo", ("FP8",)), ("fmt", ("e4m3",))):
        if (value := table.get(key)) is not None and value not in known:
            raise table.error(key, value, f"only {known[0]} is supported; take the bf16 checkpoint")


def _groups(table: Keys) -> list[Keys]:
    """What a quantization_config of compressed-tensors says of weights, group by group."""
    groups = table.table("config_groups")
    return [groups.table(name).table("weights") for name in groups.values]


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
