"""Operands as rules want them: lines of one kind and one value, whole blocks of one result."""

from collections.abc import Sequence
from typing import Any, TypeVar

from compiler.program.isa import GAIN, LOAD_NAMES, Holds
from lpu.prove.known import Known
from lpu.prove.lines import Blocks, Chunk, ColdTile, Decayed, Fetched, HalfRun, StackRun, Stepped, TileRun
from lpu.prove.refused import RefusedError, need
from lpu.prove.rule import Preloads

_Block = TypeVar("_Block", Chunk, Blocks, Fetched, ColdTile, Stepped, Decayed)


def vectors(known: Known, lines: Sequence[Any], holds: int, what: str) -> tuple[int, tuple[int, ...]]:
    """(value, lane map of each line) of f32 or fp16 lines of one value."""
    of_kind(lines, holds, what)
    return known.same([line.value for line in lines], what), tuple(line.lanes for line in lines)


def of_kind(lines: Sequence[Any], holds: int, what: str) -> None:
    """Every line holds that kind of thing."""
    need(len(lines) > 0, f"{what} has no lines")
    for line in lines:
        if line.holds != holds:
            raise RefusedError(f"{what} holds {_name(line.holds)}, must be {_name(holds)}")


def _name(holds: int) -> str:
    return Holds(holds).name.lower() if holds in set(Holds) else "something else"


def of_tensor(known: Known, preloads: Preloads, kind: int, count: int) -> tuple[int, tuple[int, ...]]:
    """(tensor, column map of each) of `count` preloaded values of one kind and tensor."""
    if isinstance(preloads, TileRun | StackRun | HalfRun):
        raise RefusedError(f"reads tiles where {LOAD_NAMES[kind]} must be")
    need(len(preloads) == count, f"reads {len(preloads)} preloaded values, must be {count}")
    for one in preloads:
        need(one.kind == kind, f"reads {LOAD_NAMES[one.kind]} where {LOAD_NAMES[kind]} must be")
    tensor = known.same([one.tensor for one in preloads], LOAD_NAMES[kind].lower())
    return tensor, tuple(one.columns for one in preloads)


def gains(known: Known, preloads: Preloads, lanes: tuple[int, ...], width: int, kind: int = GAIN) -> int:
    """The vector whose words lie beside lines of these lanes, and that is as wide as their value."""
    tensor, columns = of_tensor(known, preloads, kind, len(lanes))
    need(columns == lanes, f"{known.show(tensor)} lies at other lanes than what it is applied to")
    found = known.terms.width(tensor)
    need(found == width, f"{known.show(tensor)} has {found} numbers, its operand {width}")
    return tensor


def blocks(lines: Sequence[object], kind: type[_Block], size: int, holds: int, what: str) -> list[_Block]:
    """The first line of every whole result of `size` lines; lines: of any kind, all must be of this one."""
    of_kind(lines, holds, what)
    found = [line for line in lines if isinstance(line, kind)]
    need(
        size > 0 and len(found) == len(lines) and len(lines) % size == 0,
        f"{what}: {len(lines)} lines are no blocks of {size}",
    )
    for i, line in enumerate(found):
        head = found[i - i % size]
        need(line == head._replace(line=i % size), f"{what} is not one whole result of {size} lines")
    return found[::size]
