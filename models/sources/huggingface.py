"""A Hugging Face folder (config.json, safetensors) as `Weights`: names, layout and formats turned into ours.

Checkpoints hold matrices as [out, in]; ours are [k, n] = [in, out]. Their RoPE is half-split as ours is, so
nothing is permuted. Tensors are read one at a time; a matrix is quantised when first asked for.
"""

import hashlib
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float16, Float32, Int32, Shaped, UInt8

from models.config import TransformerConfig
from models.families.family import TABLE, CheckpointTensor
from models.sources.error import WeightError
from models.sources.huggingface_config import is_nested, read_config, weight_block
from models.sources.huggingface_tensors import FP8, scale_of, settle
from models.sources.quantise import (
    FORMAT,
    Quantised,
    check_finite,
    dequantise,
    quantise,
)
from models.sources.safetensor_files import (
    INDEX,
    SINGLE,
    StoredTensor,
    files_digest,
    open_files,
    stale_index,
)
from models.sources.weights import ReadRows, Shapes

_TINY = np.finfo(np.float32).tiny


def open_folder(folder: str | Path, config: TransformerConfig | None = None) -> "HuggingFaceWeights":
    """The weights of a folder; every name and shape is checked now, the data when it is read.

    `config` is what `read_config(folder)` gives unless another is wanted.
    """
    return HuggingFaceWeights(Path(folder), read_config(folder) if config is None else config)


class HuggingFaceWeights:
    """`Weights` of a Hugging Face folder; see `open_folder`."""

    def __init__(self, folder: Path, config: TransformerConfig) -> None:
        found = settle(folder, config, open_files(folder), nested=is_nested(folder))
        self.folder, self.config = folder, found.config
        self.identity = f"huggingface {folder.resolve().name}"
        self.relative_errors: dict[str, float] = {}
        self._sources, self._entries = found.sources, found.entries
        self._block = weight_block(folder)
        self._last: tuple[str, Quantised] | None = None
        self.shapes = _shapes(self._sources)
        stale = f"{SINGLE} is taken, as transformers does; the {INDEX} beside it is not read"
        self.notes = (*found.notes, *([f"weights: {folder}: {stale}."] if stale_index(folder) else []))

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "*axes"]:
        """The tensor of that path; matrices and the table are rounded here."""
        path, _, kind = name.rpartition(".")
        if kind in ("codes", "exponent") and path in self._sources:
            quantised = self._matrix(path)
            return quantised.codes if kind == "codes" else quantised.exponent
        if name not in self.shapes:
            raise WeightError(f"{self.identity}: no tensor {name} among {len(self.shapes)}. Check the model.")
        source = self._sources[name]
        entry = self._entries[source.name]
        values = source.take(self._values(entry))
        check_finite(values, entry.place)
        return to_half(values) if name == TABLE else np.where(np.abs(values) < _TINY, np.float32(0), values)

    def row_reader(self, name: str) -> ReadRows | None:
        """Rows of the table; a matrix lies transposed and is quantised by whole columns."""
        if name != TABLE:
            return None
        entry = self._entries[self._sources[name].name]
        if entry.dtype == FP8:
            return None

        def read(first: int, last: int) -> Float16[np.ndarray, "rows width"]:
            values = entry.floats(slice(first, last))
            check_finite(values, entry.place)
            return to_half(values)

        return read

    def plain(self, name: str) -> Shaped[np.ndarray, "*axes"]:
        """The tensor in f32 as the checkpoint has it; a matrix as a transposed view [k, n]."""
        path, _, kind = name.rpartition(".")
        if kind == "exponent":
            return self[name]
        source = self._sources.get(path if kind == "codes" else name)
        if source is None:
            return self[name]  # raises
        values = source.take(self._values(self._entries[source.name]))
        return values.T if kind == "codes" else values

    def digest(self) -> str:
        """Sha256 over config.json, all files and the version of the quantisation; reads every file once."""
        config = hashlib.sha256((self.folder / "config.json").read_bytes()).hexdigest()
        text = f"{FORMAT}\n{self.config.tied}\n{config}\n{files_digest(self._entries)}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _matrix(self, path: str) -> Quantised:
        """Codes and exponents; the last matrix is kept, as both are asked for in turn."""
        last = self._last
        if last is None or last[0] != path:
            self._last = None  # its memory is wanted
            source = self._sources[path]
            entry = self._entries[source.name]
            kept = _kept(entry, source, self._scale(entry)) if entry.dtype == FP8 else None
            self._last = last = path, kept or quantise(source.take(self._values(entry)).T, entry.place)
            self.relative_errors[f"{path}.codes"] = last[1].relative_error
        return last[1]

    def _values(self, entry: StoredTensor) -> Float32[np.ndarray, "*axes"]:
        """The tensor in f32, fp8 with its scale."""
        if entry.dtype != FP8:
            return entry.floats()
        scale, (_, columns) = self._scale(entry), self._block
        values = dequantise(entry.raw(), np.zeros(entry.shape[-1], np.int32))
        check_finite(values, entry.place)
        for i in range(scale.shape[1]):
            part = slice(i * columns, (i + 1) * columns) if scale.shape[1] > 1 else slice(None)
            values[:, part] *= scale[:, i : i + 1]
        return values

    def _scale(self, entry: StoredTensor) -> Float32[np.ndarray, "out blocks"]:
        """Scales of an fp8 matrix, one row per output: one column, or one per block of inputs."""
        held = scale_of(entry, self._entries)
        assert held is not None, entry.place
        scale, (out, k), (rows, columns) = held.floats(), entry.shape, self._block
        check_finite(scale, held.place)
        if scale.size == 1:
            return np.broadcast_to(scale.reshape(1, 1), (out, 1))
        if scale.shape in ((out,), (out, 1)):
            return scale.reshape(out, 1)
        if scale.shape == (-(-out // rows), -(-k // columns)):
            return np.repeat(scale, rows, axis=0)[:out]
        raise WeightError(
            f"{held.place} has shape {list(scale.shape)}: [{out}, {k}] takes one scale, {out}, or blocks "
            f"of {rows} x {columns}. Check quantization_config.weight_block_size."
        )


def to_half(values: Float32[np.ndarray, "*axes"]) -> Float16[np.ndarray, "*axes"]:
    """Contract rounding `rn16` of finite values: clip to +-65504, nearest even, no -0."""
    half = np.clip(values, np.float32(-65504), np.float32(65504)).astype(np.float16)
    half.view(np.uint16)[half.view(np.uint16) == 0x8000] = 0
    return half


def _shapes(held: dict[str, CheckpointTensor]) -> Shapes:
    shapes: Shapes = {}
    for path, source in held.items():
        shape = source.own_shape
        if path == TABLE or len(shape) == 1:
            dtype = np.float16 if path == TABLE else np.float32
            shapes[path] = jax.ShapeDtypeStruct(shape, dtype)
        else:
            shapes[f"{path}.codes"] = jax.ShapeDtypeStruct(shape[::-1], np.uint8)
            shapes[f"{path}.exponent"] = jax.ShapeDtypeStruct(shape[:1], np.int32)
    return shapes


def _kept(
    entry: StoredTensor, source: CheckpointTensor, scale: Float32[np.ndarray, "out blocks"]
) -> Quantised | None:
    """The codes of an fp8 matrix as they are, where its scales are powers of two and one per output."""
    scale = source.take(scale)
    fraction, power = np.frexp(scale[:, 0])
    if not (np.all(fraction == 0.5) and np.all(scale == scale[:, :1]) and power.min() > -126):
        return None
    codes: UInt8[np.ndarray, "out k"] = source.take(entry.raw())
    check_finite(dequantise(codes, np.zeros(entry.shape[1], np.int32)), entry.place)
    exponent: Int32[np.ndarray, " out"] = (power - 1).astype(np.int32)
    positive = np.where(codes == 0x80, np.uint8(0), codes)
    return Quantised(np.ascontiguousarray(positive.T), exponent, 0.0)
