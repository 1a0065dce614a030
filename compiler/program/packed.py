"""Several small numbers in one integer, so that arrays of them sort and look up as one."""

from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int

from compiler.program.isa import TAG_SHIFT

Number = TypeVar("Number", int, np.ndarray)
WORD_BITS = 63  # of an int64 that is no negative number


class PackedKey:
    """A layout of numbers, the first one highest: keys are ordered as tuples of the numbers are.

    Numbers are from 0 to 2**bits - 1; `pack` raises OverflowError for others instead of mixing them up.
    """

    def __init__(self, **bits: int) -> None:
        assert sum(bits.values()) <= WORD_BITS, bits
        self._fields: list[tuple[str, int, int]] = []
        shift = sum(bits.values())
        for name, width in bits.items():
            shift -= width
            self._fields.append((name, width, shift))

    def pack(self, *numbers: Any) -> Any:
        """The key of ints, or of arrays that are broadcast together."""
        key: Any = 0
        for (name, width, shift), number in zip(self._fields, numbers, strict=True):
            over = number >> width
            if over.any() if isinstance(over, np.ndarray) else over:
                raise OverflowError(
                    f"{name} is {_worst(number, width)}, must be from 0 to {(1 << width) - 1}"
                )
            key = key | number << shift
        return key

    def unpack(self, key: Number) -> tuple[Number, ...]:
        """The numbers of a key, or of an array of keys."""
        return tuple(key >> shift & (1 << width) - 1 for _, width, shift in self._fields)


def _worst(number: Any, width: int) -> int:
    """The first number that does not fit."""
    flat = np.asarray(number).reshape(-1)
    return int(flat[np.flatnonzero(flat >> width)[0]])


def alike(keys: Int[np.ndarray, " entries"]) -> list[Int[np.ndarray, " some"]]:
    """The indices of equal keys, in ascending order of key and index."""
    order = np.argsort(keys, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(keys[order])) + 1) if len(order) else []


RANKS = PackedKey(source=20, target=20)
KIND = PackedKey(op=8, kernel=32)
PLACE = PackedKey(chip=23, word=40)
TAG = PackedKey(value=WORD_BITS - TAG_SHIFT, line=TAG_SHIFT)


def by_kind(
    op: Int[np.ndarray, " rows"], aux: Int[np.ndarray, " rows"]
) -> list[tuple[int, int, Int[np.ndarray, " some"]]]:
    """(opcode, kernel, rows) in ascending order; the kernel of transfers is -1."""
    found = alike(KIND.pack(op, aux + 1))
    return [(int(op[rows[0]]), int(aux[rows[0]]), rows) for rows in found]
