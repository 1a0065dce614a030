"""A Hugging Face folder (config.json, safetensors) as `Weights`: names, layout and formats turned into ours.

Checkpoints hold matrices as [out, in]; ours are [k, n] = [in, out]. Their RoPE is half-split as ours is, so
nothing is permuted. Tensors are read one at a time; a matrix is quantised when first asked for.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float16, Float32, Int32, Shaped, UInt8

from models.config import TransformerConfig
from models.families.family import TABLE, CheckpointTensor
from models.sources.error import WeightError
from models.sources.experts import HALVES, Halved, halved, quantise_stack, side_by_side
from models.sources.huggingface.config import is_nested, read_config, weight_block
from models.sources.huggingface.tensors import FP8, scale_of, settle
from models.sources.packed.convert import Changed, changed_values, converted
from models.sources.packed.stacks import stack_of
from models.sources.packed.tensor import MXFP4, PACKED, PackedTensor
from models.sources.quantise import FORMAT, check_finite, dequantise, power_of_two, quantise, stacked
from models.sources.safetensor_files import (
    INDEX,
    SINGLE,
    StoredTensor,
    files_digest,
    open_files,
    stale_index,
)
from models.sources.weights import ReadRows, Shapes

SCALE_KINDS = ("exponent", "scale")  # of a matrix: powers of two, or any f32
ADAPTER = "adapter_config.json"
_TINY = np.finfo(np.float32).tiny


class Matrix(NamedTuple):
    """Codes of a matrix or a stack, the scale of each column as its model takes it, the cost of rounding."""

    codes: UInt8[np.ndarray, "*experts k n"]
    scale: Int32[np.ndarray, " n"] | Float32[np.ndarray, " n"]
    relative_error: float


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
        self.changed: dict[str, Changed] = {}
        self._sources, self._entries = found.sources, found.entries
        self._block = weight_block(folder)
        self._scaled = self.config.column_scales == "f32"
        self._last: tuple[str, Matrix] | None = None
        self._half: tuple[str, Halved] | None = None
        self.shapes = _shapes(self._sources, scaled=self._scaled)
        stale = f"{SINGLE} is taken, as transformers does; the {INDEX} beside it is not read"
        self.notes = (*found.notes, *([f"weights: {folder}: {stale}."] if stale_index(folder) else []))
        if (folder / ADAPTER).is_file():
            idle = f"{ADAPTER} beside the model is of an adapter (LoRA), which is not applied: merge it first"
            self.notes = (*self.notes, f"weights: {folder}: {idle}.")

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "*axes"]:
        """The tensor of that path; matrices and the table are rounded here."""
        path, _, kind = name.rpartition(".")
        of_router = path in self._sources and self._sources[path].half and kind in (HALVES, "exponent")
        if name in self.shapes and of_router:
            half = self._halves(path)
            return half.halves if kind == HALVES else half.exponent
        if name in self.shapes and kind in ("codes", *SCALE_KINDS) and path in self._sources:
            matrix = self._matrix(path)
            return matrix.codes if kind == "codes" else matrix.scale
        if name not in self.shapes:
            raise WeightError(f"{self.identity}: no tensor {name} among {len(self.shapes)}. Check the model.")
        source = self._sources[name]
        values = source.take(self._stored(source))
        check_finite(values, self._entries[source.name].place)
        if name == TABLE or source.table:
            return to_half(values)
        return np.where(np.abs(values) < _TINY, np.float32(0), values)

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
        if kind in SCALE_KINDS:
            return self[name]
        source = self._sources.get(path if kind in ("codes", HALVES) else name)
        if source is None:
            return self[name]  # raises
        if source.stack:
            return np.stack([side_by_side(self._parts(source, i)) for i in range(len(source.stack))])
        values = self._stored(source)
        if source.every:
            return values[..., list(source.every)]
        if kind not in ("codes", HALVES):
            return source.take(values)
        found = source.matrices(values)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def digest(self) -> str:
        """Sha256 over config.json, all files and the version of the quantisation; reads every file once."""
        config = hashlib.sha256((self.folder / "config.json").read_bytes()).hexdigest()
        text = f"{FORMAT}\n{self.config.tied}\n{config}\n{files_digest(self._entries)}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _matrix(self, path: str) -> Matrix:
        """Codes and scales; the last matrix is kept, as both are asked for in turn."""
        last = self._last
        if last is None or last[0] != path:
            self._last = None  # its memory is wanted
            source = self._sources[path]
            entry = self._entries[source.name]
            if source.stack:
                made = quantise_stack(
                    len(source.stack), lambda i: side_by_side(self._parts(source, i)), entry.place
                )
                self._last = path, Matrix(made.codes, made.exponent, made.relative_error)
                self.relative_errors[f"{path}.codes"] = made.relative_error
                return self._last[1]
            if source.every:
                made, changed = stack_of(entry, source.every)
                self._last = path, Matrix(made.codes, made.exponent, made.relative_error)
                self.relative_errors[f"{path}.codes"] = made.relative_error
                if changed is not None:
                    self.changed[f"{path}.codes"] = changed
                return self._last[1]
            codes = entry.dtype == FP8 and source.made is None and not source.behind
            kept = _kept(entry, source, self._scale(entry), self._scaled) if codes else None
            if kept is not None:
                self.changed[f"{path}.codes"] = Changed(0, kept.codes.size)
            self._last = last = path, kept or self._rounded(source, entry)
            self.relative_errors[f"{path}.codes"] = last[1].relative_error
        return last[1]

    def _parts(self, source: CheckpointTensor, expert: int) -> list[Float32[np.ndarray, "out k"]]:
        """The matrices of one expert of a stack."""
        out: list[Float32[np.ndarray, "out k"]] = []
        for name in source.stack[expert]:
            entry = self._entries[name]
            of_all = len(entry.shape) == 3
            values = entry.floats(slice(expert, expert + 1)) if of_all else self._values(entry)
            own = source.of_expert(name, expert, values)
            out.append(own if source.factor == 1 else own * np.float32(source.factor))
        if source.times is None:
            return out
        factor = self._values(self._entries[source.times[0]])[expert]
        return [one * factor for one in out]

    def _halves(self, path: str) -> Halved:
        """Weights and exponents of a router; the last one is kept."""
        if self._half is None or self._half[0] != path:
            source = self._sources[path]
            entry = self._entries[source.name]
            self._half = path, halved(self._stored(source).T, entry.place)
            if lost := self._half[1].changed:
                self.notes = (*self.notes, f"weights: {entry.place}: {lost} weights are rounded to fp16.")
        return self._half[1]

    def _rounded(self, source: CheckpointTensor, entry: StoredTensor) -> Matrix:
        values = source.matrices(self._stored(source))
        alone = not (source.made or source.by_head or source.behind) and len(entry.shape) == 2
        if isinstance(entry, PackedTensor) and entry.dtype == MXFP4 and alone:
            each = [converted(source.take(entry.nibbles()).T, source.take(entry.powers()).T, values[0])]
        else:
            each = [quantise(one, entry.place) for one in values]
        if entry.dtype in (FP8, *PACKED):
            self.changed[f"{source.path}.codes"] = changed_values(values, each)
        made = stacked(each)
        return Matrix(
            made.codes, power_of_two(made.exponent) if self._scaled else made.exponent, made.relative_error
        )

    def _values(self, entry: StoredTensor) -> Float32[np.ndarray, "*axes"]:
        """The tensor in f32, fp8 with its scale."""
        if entry.dtype != FP8:
            return entry.floats()
        scale, (_, columns) = self._scale(entry), self._block
        values = dequantise(entry.raw(), None)
        check_finite(values, entry.place)
        for i in range(scale.shape[1]):
            part = slice(i * columns, (i + 1) * columns) if scale.shape[1] > 1 else slice(None)
            values[:, part] *= scale[:, i : i + 1]
        return values

    def _stored(self, source: CheckpointTensor) -> Float32[np.ndarray, "*axes"]:
        """What a tensor is made of: one of the checkpoint, or several of equal width one behind the other."""
        if source.times is not None:
            return self._values(self._entries[source.name]) * self._values(self._entries[source.times[0]])
        if not source.behind:
            return self._values(self._entries[source.name])
        return np.concatenate([self._values(self._entries[name]) for name in source.names])

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


def _shapes(held: dict[str, CheckpointTensor], *, scaled: bool) -> Shapes:
    shapes: Shapes = {}
    for path, source in held.items():
        shape = source.own_shape
        if source.stack:
            n = source.stack_width
            shapes[f"{path}.codes"] = jax.ShapeDtypeStruct((len(source.stack), shape[1], n), np.uint8)
            shapes[f"{path}.exponent"] = jax.ShapeDtypeStruct((n,), np.int32)
        elif source.every:
            shapes[f"{path}.codes"] = jax.ShapeDtypeStruct((*shape[:2], len(source.every)), np.uint8)
            shapes[f"{path}.exponent"] = jax.ShapeDtypeStruct((len(source.every),), np.int32)
        elif source.half:
            shapes[f"{path}.{HALVES}"] = jax.ShapeDtypeStruct(shape[::-1], np.float16)
            shapes[f"{path}.exponent"] = jax.ShapeDtypeStruct(shape[:1], np.int32)
        elif path == TABLE or source.table or len(shape) == 1:
            dtype = np.float16 if path == TABLE or source.table else np.float32
            shapes[path] = jax.ShapeDtypeStruct(shape, dtype)
        else:
            codes, scales = source.matrix_shape
            shapes[f"{path}.codes"] = jax.ShapeDtypeStruct(codes, np.uint8)
            kind, dtype = SCALE_KINDS[scaled], (np.int32, np.float32)[scaled]
            shapes[f"{path}.{kind}"] = jax.ShapeDtypeStruct((scales,), dtype)
    return shapes


def _kept(
    entry: StoredTensor, source: CheckpointTensor, scale: Float32[np.ndarray, "out blocks"], scaled: bool
) -> Matrix | None:
    """The codes of an fp8 matrix as they are, where there is one scale per output that its scales can hold.

    scaled: they hold any f32, otherwise powers of two.
    """
    if source.by_head is not None and source.by_head.matrices:
        return None
    scale = source.take(scale)
    fraction, power = np.frexp(scale[:, 0])
    fits = scaled or (np.all(fraction == 0.5) and power.min() > -126)
    if not (fits and np.all(scale == scale[:, :1])):
        return None
    codes: UInt8[np.ndarray, "out k"] = source.take(entry.raw())
    check_finite(dequantise(codes, None), entry.place)
    exponent: Int32[np.ndarray, " out"] = (power - 1).astype(np.int32)
    positive = np.where(codes == 0x80, np.uint8(0), codes)
    return Matrix(np.ascontiguousarray(positive.T), scale[:, 0].copy() if scaled else exponent, 0.0)
