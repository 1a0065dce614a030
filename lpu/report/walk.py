"""The chain of rows that ends each block, row by row: what a difference of two programs is counted in."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from compiler.analyse.chain import HOLDS, RESULTS, WAITS, ChainRow, rows_of_chain
from compiler.analyse.dataflow import edges
from compiler.analyse.holds import holds, link_rows
from compiler.program.instruction_set import name_of
from compiler.program.isa import LINK, Columns
from compiler.program.program import Call, Program
from lpu.report.occupancy import kind_of
from lpu.report.traffic import link_levels

HAND_OVER, NEXT = "hand-over", "the next block"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPart:
    """Cycles of a block's chain of one kind: a part of `compiler.analyse.chain`, on one level of links.

    level: of the rack, nothing for a unit of a chip. rows: of the chain that are counted in it.
    """

    part: str
    level: str
    rows: int
    cycles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainExchange:
    """Transfers that follow one another on a chain. after, before: what computes before and after them.

    `before` is `the next block` where the block ends with them, or `hand-over` if they also leave its chips.
    cycles: of all of it; wait: of it, for lanes.
    """

    after: str
    before: str
    hops: int
    cycles: int
    wait: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockChain:
    """The chain of a block that `calls` calls run; cycles: of one of them."""

    kind: str
    name: str
    calls: int
    cycles: int
    parts: tuple[ChainPart, ...]
    exchanges: tuple[ChainExchange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainedBlock:
    """The rows of a block as its first call places them; hold: by row. chain: first to last."""

    block: int
    call: Call
    calls: int
    columns: Columns
    hold: np.ndarray
    chain: tuple[ChainRow, ...]


def block_rows(program: Program, context: int) -> Iterator[ChainedBlock]:
    """Every block that a step of the bucket runs, in order of the blocks."""
    manifest = program.manifest
    first = {call.block: call for call in reversed(program.calls)}
    uses = np.bincount([call.block for call in program.calls], minlength=len(program.blocks)).tolist()
    for block, call in sorted(first.items()):
        columns = program.expand_call(call, context)
        if len(columns):
            hold = holds(columns, manifest)
            pairs = edges(columns, manifest.kernels, manifest.chip.planes, call.tag)
            yield ChainedBlock(
                block=block,
                call=call,
                calls=uses[block],
                columns=columns,
                hold=hold,
                chain=rows_of_chain(columns, pairs, hold, call.base[context]),
            )


def block_chains(program: Program, context: int) -> tuple[BlockChain, ...]:
    """The chain of every block; over all calls their cycles add up to those of the step."""
    names, levels = [level.name for level in program.manifest.levels], link_levels(program.manifest)
    out: list[BlockChain] = []
    for rows in block_rows(program, context):
        where = _levels(program, rows, names, levels)
        out.append(
            BlockChain(
                kind=kind_of(rows.call.name),
                name=rows.call.name,
                calls=rows.calls,
                cycles=sum(one.wait + one.hold + one.result for one in rows.chain),
                parts=_parts(rows.chain, where),
                exchanges=tuple(_exchanges(rows)),
            )
        )
    return tuple(out)


def units_of(program: Program) -> dict[str, int]:
    """Blocks of the model by kind; a block may be several calls, one after another."""
    return dict(Counter(kind_of(name) for name in dict.fromkeys(call.name for call in program.calls)))


def _levels(program: Program, rows: ChainedBlock, names: list[str], levels: np.ndarray) -> list[str]:
    """The level of the link of each row of a chain; nothing where it is none."""
    chip, peer = rows.columns.chip, rows.columns.peer
    out: list[str] = []
    for one in rows.chain:
        a, b = int(chip[one.row]), int(peer[one.row])
        if one.unit != LINK:
            out.append("")
            continue
        link = link_rows(program.manifest, np.array([a]), np.array([b]))
        out.append(names[int(levels[link[0]])])
    return out


def _parts(chain: tuple[ChainRow, ...], where: list[str]) -> tuple[ChainPart, ...]:
    found: dict[tuple[str, str], list[int]] = {}
    for one, level in zip(chain, where, strict=True):
        for name, cycles in (
            (HOLDS[one.unit], one.hold),
            (RESULTS[one.unit], one.result),
            (WAITS[one.unit], one.wait),
        ):
            cell = found.setdefault((name, level), [0, 0])
            cell[0] += 1
            cell[1] += cycles
    return tuple(
        ChainPart(part=part, level=level, rows=rows, cycles=cycles)
        for (part, level), (rows, cycles) in found.items()
        if cycles
    )


def _exchanges(rows: ChainedBlock) -> Iterator[ChainExchange]:
    """Runs of transfers on the chain."""
    run: list[ChainRow] = []
    after = "the block before"
    columns = rows.columns
    own = set(columns.chip[columns.peer < 0].tolist())
    for one in (*rows.chain, None):
        if one is not None and one.unit == LINK:
            run.append(one)
            continue
        if one is not None:
            before = name_of(int(columns.op[one.row]))
        else:
            before = NEXT if run and int(columns.peer[run[-1].row]) in own else HAND_OVER
        if run:
            yield ChainExchange(
                after=after,
                before=before,
                hops=len(run),
                cycles=sum(each.wait + each.hold + each.result for each in run),
                wait=sum(each.wait for each in run),
            )
        run, after = [], before
