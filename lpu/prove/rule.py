"""The record of a rule: what it sees of a row, what it gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lpu.prove.known import Known
from lpu.prove.lines import HalfRun, KVHead, Preload, StackRun, TileRun

Preloads = tuple[Preload, ...] | TileRun | StackRun | HalfRun
"""What a row reads of the weight space: single values, tiles side by side, stacks of them, fp16 tiles."""


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
    preloads: Preloads
    region: KVHead | None
    products: tuple[Any, ...]


Rule = Callable[[Known, RowOperands], tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved:
    """How the proof reads rows of one opcode.

    rule: gives the records of the lines that a row writes (of MM its product, of KVW its region, of GIVE what
    it gives; of a row that renews a state, behind its lines that state); raises RefusedError where what it
    reads makes no sense. copies: that it gives what `src` holds, whatever that is, so it need not be asked.
    """

    op: int
    rule: Rule
    copies: bool = False
