"""Experts that one tensor holds, [experts, k, n], as codes with one exponent per column that all share.

MXFP4 keeps its values while the blocks of a column spread 14 binades over all experts: the rule of
`models.contract.scales.mxfp4`, expert by expert, for stacks that no memory holds in f64.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float32, Int, Int32, UInt8

from models.sources.error import WeightError
from models.sources.experts import quantise_stack
from models.sources.packed.convert import Changed
from models.sources.packed.tensor import MXFP4, PackedTensor
from models.sources.quantise import Quantised, decode_table, to_e4m3
from models.sources.safetensor_files import StoredTensor

_TOP, _LEAST = 6, -20  # binades from the exponent of a column: of its largest block, and where all round to 0
_NO_BLOCK = -128  # below every exponent of E8M0


def stack_of(entry: StoredTensor, columns: Sequence[int]) -> tuple[Quantised, Changed | None]:
    """Some columns of a stack, in that order, and of MXFP4 how many weights changed their value.

    Raises WeightError for scales that are no number, and for packed formats besides MXFP4.
    """
    order = np.array(columns)
    if not isinstance(entry, PackedTensor):
        return quantise_stack(entry.shape[0], lambda i: _expert(entry, i)[:, order], entry.place), None
    if entry.dtype != MXFP4:
        raise WeightError(
            f"{entry.place} is {entry.dtype}: of stacks MXFP4 is read. Take the bf16 checkpoint."
        )
    return _from_mxfp4(entry, order)


def _expert(entry: StoredTensor, expert: int) -> Float32[np.ndarray, "k n"]:
    return entry.floats(slice(expert, expert + 1))[0]


def _from_mxfp4(entry: PackedTensor, order: Int[np.ndarray, " n"]) -> tuple[Quantised, Changed]:
    """Codes and exponents of MXFP4, exact where a table of all (binade, nibble) pairs is."""
    experts = range(entry.shape[0])
    top = np.full(len(order), _NO_BLOCK)
    for expert in experts:
        nibbles, power = _blocks(entry, expert, order)
        used = (nibbles & 7 != 0).any(axis=2)
        top = np.maximum(top, np.where(used, power, _NO_BLOCK).max(axis=1))
    exponent = np.where(top > _NO_BLOCK, top - _TOP, 0).astype(np.int32)
    codes, values = _pairs()
    rounded = decode_table()[codes]
    out, changed = np.empty((len(experts), entry.shape[1], len(order)), np.uint8), 0
    error, size = np.zeros(len(order)), np.zeros(len(order))
    for expert in experts:
        nibbles, power = _blocks(entry, expert, order)
        binade = np.clip(power - exponent[:, None], _LEAST, _TOP) - _LEAST
        pair = binade[:, :, None] * 16 + nibbles
        pair = pair.reshape(len(order), -1)
        out[expert] = codes[pair].T
        counts = np.stack([np.bincount(one, minlength=len(codes)) for one in pair])
        changed += int(counts[:, rounded != values].sum())
        error += counts @ np.square(rounded - values, dtype=np.float64)
        size += counts @ np.square(values, dtype=np.float64)
    weigh = np.ldexp(1.0, 2 * exponent)
    total = float((size * weigh).sum())
    relative = (float((error * weigh).sum()) / total) ** 0.5 if total else 0.0
    return Quantised(out, exponent, relative, total), Changed(changed, out.size)


def _blocks(
    entry: PackedTensor, expert: int, order: Int[np.ndarray, " n"]
) -> tuple[UInt8[np.ndarray, "n blocks 32"], Int32[np.ndarray, "n blocks"]]:
    """The nibbles of one expert's columns block by block, and the binade of each block."""
    one = slice(expert, expert + 1)
    power = entry.powers(one)[0][order].astype(np.int32) - 127
    return entry.nibbles(one)[0][order].reshape(*power.shape, -1), power


@cache
def _pairs() -> tuple[UInt8[np.ndarray, " pairs"], Float32[np.ndarray, " pairs"]]:
    """Of every binade from _LEAST to _TOP and every nibble: its code, and its value before rounding."""
    magnitude = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    nibble = np.concatenate([magnitude, -magnitude])
    values = np.ldexp(nibble, np.arange(_LEAST, _TOP + 1)[:, None]).reshape(-1).astype(np.float32)
    return to_e4m3(values[None])[0], values
