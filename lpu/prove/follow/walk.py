"""One block, symbolically: its rows in the order of time, each line the record of what it holds.

A read takes the last commit at or before its cycle; an MM belongs to the first write-back of its accumulator
at or after its commit. Rows whose operands hold the same are looked at once (the memo), on whatever chip.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from compiler.program.instruction_set import INSTRUCTIONS, name_of
from compiler.program.isa import PRODUCTS, Op
from lpu.prove.follow.block_rows import LINE_BITS, BlockRows
from lpu.prove.follow.preloads import BoundPreloads
from lpu.prove.known import Known
from lpu.prove.ops.registry import PROVED
from lpu.prove.refused import RefusedError, need
from lpu.prove.rule import RowOperands

_AGAIN = ("renews its state a second time in one step", "a second append to its KV region")
Memo = dict[tuple[int, ...], tuple[int, ...]]
Region = tuple[int, int]  # rank and space-coded word


class _Lines(dict[int, int]):
    """What every line holds now; a line that the block has not written comes from outside."""

    def __init__(self, outside: Callable[[int], int]) -> None:
        super().__init__()
        self._outside = outside

    def __missing__(self, key: int) -> int:
        self[key] = found = self._outside(key)
        return found


@dataclass(slots=True)
class Walked:
    """What a block leaves: lines by key, KV regions, lines of an answer; rows[term]: the row that made it."""

    lines: dict[int, int]
    regions: dict[Region, int] = field(default_factory=dict[Region, int])
    given: dict[int, int] = field(default_factory=dict[int, int])
    made: dict[int, int] = field(default_factory=dict[int, int])


def walk(
    known: Known, rows: BlockRows, preloads: BoundPreloads, memo: Memo, outside: Callable[[int], int]
) -> Walked:
    """Follow the rows of a block. Raises RefusedError for the first in time that no rule accepts."""
    lines = _Lines(outside)
    out = Walked(lines)
    open_: dict[int, list[int]] = {}
    result: list[Sequence[int]] = [()] * len(rows)
    kinds = [known.number((kind, known.message)) for kind in rows.kinds]
    runs = rows.read.run.tolist()
    first, middle, last = rows.ends
    keys, ops = rows.reads, rows.op
    mm, (wb, kvw, give) = [int(op) for op in PRODUCTS], (int(Op.WB), int(Op.KVW), int(Op.GIVE))
    leaves = {kvw, *(op for op, record in INSTRUCTIONS.items() if record.renews)}  # a region
    copies = {op for op, record in PROVED.items() if record.copies}
    row = -1
    try:
        for event in rows.events:
            row, op = event >> 1, ops[event >> 1]
            if not event & 1:
                if op in mm:
                    open_.setdefault(rows.unit[row], []).append(result[row][0])
                elif op == give:
                    _give(out, rows, row, result[row])
                else:
                    made, place = result[row], rows.region[row]
                    if op in leaves:
                        assert place is not None
                        need(place not in out.regions, _AGAIN[op == kvw])
                        *made, out.regions[place] = made
                    key = rows.write[row]
                    for line in made:
                        lines[key] = line
                        key += 1
                continue
            if op in copies:
                result[row] = [lines[key] for key in keys[first[row] : last[row]]]
                need(len(result[row]) == rows.written[row], "copies other lines than it writes")
                continue
            run = runs[row]
            weights = -1 if run < 0 else preloads.number(run)
            signature = (
                kinds[rows.kind[row]],
                weights,
                *[lines[key] for key in keys[first[row] : last[row]]],
            )
            products: tuple[int, ...] = ()
            if op == wb:
                products = tuple(sorted(open_.pop(rows.unit[row], [])))
                signature += (known.number(products),)
            elif rows.region[row] is not None and op not in leaves:
                signature += (_held(out, rows.region[row]),)
            found = memo.get(signature)
            if found is None:
                found = _apply(known, rows, row, signature, middle[row] - first[row], products, out)
                memo[signature] = found
            result[row] = found
        row = -1
        need(not open_, "products are left in accumulators that no write-back empties")
    except RefusedError as refused:
        what = f"{name_of(ops[row])} " if row >= 0 else ""
        raise RefusedError(f"{what}{refused.reason}", layer=refused.layer, row=row) from None
    return out


def _held(out: Walked, place: Region | None) -> int:
    need(place in out.regions, "reads a KV region that this step has not appended to")
    assert place is not None
    return out.regions[place]


def _give(out: Walked, rows: BlockRows, row: int, lines: Sequence[int]) -> None:
    for i, line in enumerate(lines, rows.kinds[rows.kind[row]].src3):
        need(i not in out.given, f"gives line {i} of the answer a second time")
        out.given[i] = line


def _apply(
    known: Known,
    rows: BlockRows,
    row: int,
    signature: tuple[int, ...],
    sources: int,
    products: tuple[int, ...],
    out: Walked,
) -> tuple[int, ...]:
    """What a row makes, by the rule of its opcode."""
    kind, op = rows.kinds[rows.kind[row]], rows.op[row]
    need(op in PROVED, "has no rule in the proof. Register one in lpu.prove.ops.registry")
    things, count = known.things, rows.ends[2][row] - rows.ends[0][row]
    read = [things[i] for i in signature[2 : 2 + count]]
    place, renews = rows.region[row], bool(INSTRUCTIONS[op].renews)
    operands = RowOperands(
        kernel=known.kernel(kind.kernel) if kind.kernel >= 0 else None,
        index=kind.kernel,
        n=kind.n,
        src3=kind.src3,
        src=tuple(read[:sources]),
        src2=tuple(read[sources:]),
        preloads=() if signature[1] < 0 else things[signature[1]],
        region=things[signature[-1]] if place is not None and op != Op.KVW and not renews else None,
        products=tuple([things[i] for i in products]),
    )
    before = len(known.terms)
    made = PROVED[op].rule(known, operands)
    for term in range(before, len(known.terms)):
        out.made[term] = row
    lines = rows.written[row]
    need(
        len(made) == lines + renews or op in (*PRODUCTS, Op.KVW, Op.GIVE),
        f"makes {len(made)} lines, the instruction writes {lines}",
    )
    return tuple(known.number(one) for one in made)


def rank_of(key: int) -> tuple[int, int]:
    """Rank and line of a key."""
    return key >> LINE_BITS, key & ((1 << LINE_BITS) - 1)
