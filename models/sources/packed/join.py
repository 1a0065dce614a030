"""Packed tensors of a checkpoint put together under the names that the model has for them."""

from collections.abc import Mapping
from dataclasses import replace

from models.contract.scales.mxfp4 import ROWS
from models.sources.error import WeightError
from models.sources.packed.tensor import INT4, MXFP4, PackedTensor
from models.sources.safetensor_files import StoredTensor

Entries = Mapping[str, StoredTensor]
_PER_WORD = 8  # int4 in an int32
_WHOLE = "Fetch the whole checkpoint."
_ONE_MODEL = "Config and checkpoint must be of one model."


def joined(entries: Entries) -> dict[str, StoredTensor]:
    """The same tensors, each packed one in place of its parts. Raises WeightError where they do not fit."""
    out = dict(entries)
    for name in entries:
        if name.endswith(".weight_packed"):
            _join(out, name.removesuffix("_packed"), (name, "_scale", "_shape"))
        elif name.endswith("_blocks") and name.removesuffix("_blocks") + "_scales" in entries:
            _join(out, name.removesuffix("_blocks"), (name, "_scales"))
    return out


def _join(out: dict[str, StoredTensor], name: str, parts: tuple[str, ...]) -> None:
    """Take the parts out and put the tensor in."""
    codes = out.pop(parts[0])
    beside = [out.pop(name + end, None) for end in parts[1:]]
    if name in out:
        raise WeightError(f"{codes.place}: {name} is beside it. Leave the one that is right.")
    scales = beside[0]
    if scales is None:
        raise WeightError(f"{codes.place} has no {name}{parts[1]} beside it. {_WHOLE}")
    if codes.dtype == "U8" and scales.dtype in ("U8", "F8_E8M0"):
        dtype, shape = MXFP4, _of_mxfp4(codes, scales)
    elif codes.dtype == "I32":
        dtype, shape = INT4, _of_int4(codes, scales, beside[1])
    else:
        kinds = "int4 (I32 with BF16, F16 or F32) or MXFP4 (U8 with U8)"
        raise WeightError(f"{codes.place} is {codes.dtype} with scales of {scales.dtype}, not {kinds}.")
    out[name] = PackedTensor(
        file=codes.file,
        name=name,
        start=codes.start,
        dtype=dtype,
        shape=shape,
        codes=codes,
        scales=replace(scales, dtype="U8") if dtype == MXFP4 else scales,
    )


def _of_mxfp4(codes: StoredTensor, scales: StoredTensor) -> tuple[int, ...]:
    """The shape of the values; of a stack of experts [experts, k, out]."""
    held = codes.shape
    if len(held) == 2:  # [out, k / 2]
        wanted, shape = (held[0], 2 * held[1] // ROWS), (held[0], 2 * held[1])
    elif len(held) == 4:  # [experts, out, blocks, 16]
        wanted, shape = held[:3], (held[0], ROWS * held[2], held[1])
    else:
        raise WeightError(f"{codes.place} has {len(held)} axes, MXFP4 has 2, or 4 of experts. {_WHOLE}")
    whole = 2 * held[-1] == ROWS if len(held) == 4 else 2 * held[1] % ROWS == 0
    if not whole or scales.shape != wanted:
        raise WeightError(
            f"{scales.place} has shape {list(scales.shape)}: codes {list(held)} take one scale per {ROWS} "
            f"inputs, {list(wanted)}. {_ONE_MODEL}"
        )
    return shape


def _of_int4(codes: StoredTensor, scales: StoredTensor, shape: StoredTensor | None) -> tuple[int, ...]:
    """The shape of the values: stated beside them, or as many as the words hold."""
    if len(codes.shape) != 2 or scales.dtype not in ("BF16", "F16", "F32"):
        raise WeightError(
            f"{codes.place} has shape {list(codes.shape)} and scales of {scales.dtype}: int4 takes a matrix "
            "of words and scales of BF16, F16 or F32."
        )
    out, words = codes.shape
    stated = (out, words * _PER_WORD)
    if shape is not None:
        if shape.dtype not in ("I64", "I32") or shape.shape != (2,):
            held = f"{shape.dtype} {list(shape.shape)}"
            raise WeightError(f"{shape.place} is {held}, not two integers. {_WHOLE}")
        stated = tuple(shape.raw().tolist())
    k = stated[1]
    if stated[0] != out or -(-k // _PER_WORD) != words:
        raise WeightError(
            f"{codes.place} has shape {list(codes.shape)}, a matrix of {list(stated)} takes "
            f"[{stated[0]}, {-(-k // _PER_WORD)}] words of {_PER_WORD}. {_ONE_MODEL}"
        )
    if len(scales.shape) != 2 or scales.shape[0] != out or not scales.shape[1] or k % scales.shape[1]:
        raise WeightError(
            f"{scales.place} has shape {list(scales.shape)}: a matrix of {list(stated)} takes "
            f"[{out}, groups], groups that divide its inputs. {_ONE_MODEL}"
        )
    return stated
