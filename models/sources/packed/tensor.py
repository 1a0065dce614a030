"""One matrix, or a stack of them, that a checkpoint holds as codes of four bits with scales beside them.

INT4: compressed-tensors `pack-quantized`, q + 8 in eight nibbles of an int32, lowest first, a scale per group
of inputs. MXFP4: e2m1 nibbles, two in a byte, lowest first, a byte (E8M0) per 32 inputs; of matrices as
compressed-tensors has them, [out, k], or of the experts of gpt-oss, of which transformers holds the values as
[experts, k, out]. Source: compressed-tensors' packed_quantized.py; transformers 5.24, integrations/mxfp4.py.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int8, UInt8

from models.contract.scales.mxfp4 import NO_NUMBER, ROWS
from models.sources.error import WeightError
from models.sources.safetensor_files import StoredTensor

INT4, MXFP4 = "INT4", "MXFP4"
PACKED = (INT4, MXFP4)
_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTensor(StoredTensor):
    """The tensor that `codes` and `scales` stand for; file and start are those of the codes."""

    codes: StoredTensor
    scales: StoredTensor

    def floats(self, rows: slice | None = None) -> Float32[np.ndarray, "*axes"]:
        """The values, or some of them along the first axis, exactly (unless below 2^-126)."""
        if self.dtype == INT4:
            q = self.integers(rows).astype(np.float32)
            scale = self.scales.floats(rows)
            return (q.reshape(*scale.shape, -1) * scale[..., None]).reshape(q.shape)
        nibbles, powers = self.nibbles(rows), self.powers(rows)
        blocks = _E2M1[nibbles].reshape(*powers.shape, ROWS)
        values = np.ldexp(blocks, powers.astype(np.int32)[..., None] - 127).reshape(nibbles.shape)
        return np.swapaxes(values, -1, -2) if len(self.shape) == 3 else values

    def integers(self, rows: slice | None = None) -> Int8[np.ndarray, "out k"]:
        """Of INT4 the integers, -8 to 7."""
        words = self.codes.raw()[rows or slice(None)]
        shifts = np.arange(0, 32, 4, dtype=np.int32)
        q = ((words[..., None] >> shifts) & 15).astype(np.int8) - 8
        return q.reshape(len(words), -1)[:, : self.shape[1]]

    def nibbles(self, rows: slice | None = None) -> UInt8[np.ndarray, "*stack out k"]:
        """Of MXFP4 the codes, in the order of the checkpoint."""
        held = self.codes.raw()[rows or slice(None)]
        held = held.reshape(*held.shape[:-2], -1) if len(self.shape) == 3 else held
        return np.stack([held & 15, held >> 4], axis=-1).reshape(*held.shape[:-1], -1)

    def powers(self, rows: slice | None = None) -> UInt8[np.ndarray, "*stack out blocks"]:
        """Of MXFP4 the bytes of the scales. Raises WeightError for one that is no number."""
        found = self.scales.raw()[rows or slice(None)]
        if wrong := int(np.sum(found == NO_NUMBER)):
            raise WeightError(
                f"{self.scales.place}: {wrong} of {found.size} scales are byte {NO_NUMBER}, which is no "
                "number. Repair the checkpoint."
            )
        return found
