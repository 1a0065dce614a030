"""The tensors of one or several safetensors files, mapped into memory and read one by one.

Source: the format as documented at https://huggingface.co/docs/safetensors (8 bytes of header length, a JSON
header, the data). Not read by the library, whose numpy side has no fp8 and whose errors name no file.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from models.sources.error import WeightError
from models.sources.quantise import widen

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DAMAGED = "The file is cut short or damaged: fetch it again."
_POINTER = b"version https://git-lfs.github.com/spec/"
_HEADER_BYTES = 100_000_000  # the library's own limit
_ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64"), 8),
    **dict.fromkeys(("F32", "I32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 1),
}
_PICKLE = "pickle, which is never loaded: save the model as safetensors"
_UNREAD = (
    (("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle"), _PICKLE),
    (("adapter_model.*", "adapter_config.json"), "an adapter, not a model: merge it into its base"),
    (("*.gguf", "*.ggml"), "GGUF, which is not read"),
    (("*.h5", "*.keras", "*.msgpack", "*.onnx", "*.tflite", "*.mlmodel"), "not read"),
    (("consolidated*.safetensors",), "named in the author's own way: fetch those of Hugging Face"),
    (("*.safetensors",), "neither model.safetensors nor named by a model.safetensors.index.json"),
)
_RAW = {"BF16": "<u2", "I32": "<i4", "I64": "<i8", "F8_E4M3": "u1", "F8_E8M0": "u1", "U8": "u1"}
READABLE = ("BF16", "F16", "F32", "F64", "F8_E4M3")
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Where one tensor lies: file, first byte, format and shape."""

    file: Path
    name: str
    start: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def place(self) -> str:
        """File and tensor, for messages."""
        return f"{self.file}: {self.name}"

    def raw(self) -> Shaped[np.ndarray, "*axes"]:
        """The bytes as stored, mapped: bf16 as uint16, fp8 and scales as uint8. Read-only."""
        kind = _FLOATS.get(self.dtype) or _RAW.get(self.dtype)
        if kind is None:
            raise WeightError(f"{self.place} is {self.dtype}, not BF16, F16, F32, F64 or F8_E4M3.")
        count = math.prod(self.shape)
        if not count:
            return np.zeros(self.shape, kind)
        return np.memmap(self.file, kind, "r", self.start, (count,)).view(np.ndarray).reshape(self.shape)

    def floats(self, rows: slice | None = None) -> Float32[np.ndarray, "*axes"]:
        """The values (or some rows of them) in f32; of fp8 without its scale."""
        raw = self.raw() if rows is None else self.raw()[rows]
        if self.dtype == "BF16":
            bits = raw.astype(np.uint32)
            bits <<= np.uint32(16)
            return bits.view(np.float32)
        if self.dtype == "F8_E8M0":  # 2^(byte - 127); 255 is no number
            values = np.ldexp(np.float32(1), raw.astype(np.int32) - 127)
            return np.where(raw == 255, np.float32(np.nan), values)
        with np.errstate(over="ignore"):  # f64 beyond f32 becomes infinity, which is refused later
            return widen(raw)


def open_files(folder: str | Path) -> dict[str, StoredTensor]:
    """All tensors of a folder by name: of `model.safetensors`, else of the files that its index names.

    So does transformers: a model that is saved again over its shards leaves a stale index (`stale_index`).
    """
    root = Path(folder)
    if (root / SINGLE).is_file():
        return read_header(root / SINGLE)
    if not (root / INDEX).is_file():
        held = unread(root)
        raise WeightError(
            f"{root}: holds neither {SINGLE} nor {INDEX}{f'; {held}' if held else ''}. "
            "Fetch them, or save it as safetensors."
        )
    placed = _index(root / INDEX)
    entries: dict[str, StoredTensor] = {}
    for file in sorted(set(placed.values())):
        if not (root / file).is_file():
            raise WeightError(f"{root / file}: not found, {INDEX} names it. Fetch the missing file.")
        held = read_header(root / file)
        entries |= {name: entry for name, entry in held.items() if placed.get(name) == file}
    for name, file in placed.items():
        if name not in entries:
            raise WeightError(f"{root / file}: {name} is not in it, {INDEX} says so. {DAMAGED}")
    return entries


def unread(folder: Path) -> str:
    """What a folder holds instead of weights that we read, in words; of each kind the first file."""
    found: dict[str, str] = {}
    for patterns, why in _UNREAD:
        for pattern in patterns:
            for path in sorted(folder.glob(pattern)):
                found.setdefault(path.name, why)
    firsts: dict[str, str] = {}
    for name, why in found.items():
        firsts.setdefault(why, name)
    return "; ".join(f"{name} is {why}" for why, name in firsts.items())


def stale_index(folder: str | Path) -> bool:
    """Whether a folder has an index beside `model.safetensors`, which is not read then."""
    return all((Path(folder) / name).is_file() for name in (SINGLE, INDEX))


def files_digest(entries: dict[str, StoredTensor]) -> str:
    """Sha256 (hex) over the names and contents of all files that hold the tensors."""
    total = hashlib.sha256()
    for file in sorted({entry.file for entry in entries.values()}):
        with file.open("rb") as stream:
            total.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def is_pointer(file: Path) -> bool:
    """Whether a file is what Git LFS leaves in place of one that was not fetched."""
    with file.open("rb") as stream:
        return stream.read(len(_POINTER)) == _POINTER


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one file by name; sizes and bounds are checked, the data is not read."""
    size = file.stat().st_size
    if is_pointer(file):
        raise WeightError(f"{file}: is a Git LFS pointer, not the file. Run `git lfs pull` there.")
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER_BYTES):
            raise WeightError(f"{file}: header of {length} bytes in a file of {size} bytes. {DAMAGED}")
        text = stream.read(length)
    try:
        header = json.loads(text)
        tensors = {name: value for name, value in header.items() if name != "__metadata__"}
        return {name: _entry(file, 8 + length, size, name, value) for name, value in tensors.items()}
    except WeightError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightError(f"{file}: header cannot be read ({_of(error)}). {DAMAGED}") from error


def _entry(file: Path, base: int, size: int, name: str, value: dict[str, Any]) -> StoredTensor:
    (first, last), shape, dtype = value["data_offsets"], tuple(value["shape"]), value["dtype"]
    if any(type(number) is not int or number < 0 for number in (first, last, *shape)):
        raise WeightError(f"{file}: {name} has shape {list(shape)} at bytes {first} to {last}. {DAMAGED}")
    if base + last > size:
        raise WeightError(f"{file}: {name} ends at byte {base + last}, the file has {size} bytes. {DAMAGED}")
    wanted = math.prod(shape) * _ITEM_BYTES.get(dtype, 0)
    if dtype in _ITEM_BYTES and last - first != wanted:
        raise WeightError(
            f"{file}: {name} takes {last - first} bytes, {dtype} {list(shape)} takes {wanted}. {DAMAGED}"
        )
    return StoredTensor(file=file, name=name, start=base + first, dtype=dtype, shape=shape)


def _index(path: Path) -> dict[str, str]:
    """File name by tensor, from the index."""
    try:
        placed = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = dict(placed.items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightError(f"{path}: has no weight_map ({_of(error)}). {DAMAGED}") from error
    for name, file in names.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise WeightError(f"{path}: {name} lies in {file!r}, not a file in the same folder.")
    return names


def _of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
