"""The record of a rule: what it sees of a row, what it gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lpu.prove.known import Known
from lpu.prove.lines import KVHead, Preload, Product, TileRun


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOperands:
    """What a rule sees of a row: records of what its operands hold.

    index: of the kernel in the manifest. region: what the KV region holds that it reads. products: of a
    write-back, what its accumulator holds.
    """

    kernel: Any
    index: int
    n: int
    src3: int
    src: tuple[Any, ...]
    src2: tuple[Any, ...]
    preloads: tuple[Preload, ...] | TileRun
    region: KVHead | None
    products: tuple[Product, ...]


Rule = Callable[[Known, RowOperands], tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved:
    """How the proof reads rows of one opcode.

    rule: gives the records of the lines that a row writes (of MM its product, of KVW its region, of GIVE what
    it gives; of a row that renews a state, behind its lines that state); raises RefusedError where what it
    reads makes no sense.
    """

    op: int
    rule: Rule
