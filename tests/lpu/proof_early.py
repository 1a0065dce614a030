"""Rows that each rule of the proof accepts, and changes that one condition refuses: early KV in DDR5."""

from collections.abc import Callable
from dataclasses import replace

from proof_rows import ATTENTION, Changes, Setting, row

from compiler.program.isa import Holds, Op
from lpu.prove.lines import Fetched
from lpu.prove.rule import RowOperands

EARLY = replace(ATTENTION, early=1, reservoir=80, capacity=80, kv_stride=80)
"""Of two blocks of 80 tokens the first in DDR5, the second in SRAM."""
DEALT = replace(
    ATTENTION, block=20, chunk=20, chunks=8, run=20, stripes=2, early=4, reservoir=40,
    capacity=40, kv_stride=40,
)  # fmt: skip
"""Of eight blocks of 20 tokens, dealt to two stripes, the first four in DDR5."""


def _of_two_buckets(s: Setting) -> Setting:
    """Steps of the bucket of 160 tokens begin at 80."""
    s.known.manifest = replace(s.known.manifest, contexts=(80, 160))
    return s


def _copy(s: Setting, block: int, *, of: int = 0) -> tuple[Fetched, ...]:
    """The lines of a copy of a block: a word of each of its tokens."""
    return tuple(Fetched(Holds.FETCHED, s.region(kernel=of), block, i) for i in range(80))


def kept(s: Setting) -> tuple[RowOperands, Changes]:
    head = _of_two_buckets(s).f16(s.x, 0, 80)
    longer = replace(EARLY, chunks=3, early=2, reservoir=160)
    return row(EARLY, n=1, src=head, src2=head), {
        "160 early tokens, steps of this bucket begin at 80": {"kernel": longer},
        "DDR5 keeps 79 tokens of a region, early ones are 80": {"kernel": replace(EARLY, reservoir=79)},
        "regions of 79 tokens do not hold 80": {"kernel": replace(EARLY, capacity=79, kv_stride=79)},
    }


def kept_of_rows(s: Setting) -> tuple[RowOperands, Changes]:
    """Two sequences, a row of each: lines have a word of each cached sequence."""
    head = _of_two_buckets(s).f16(s.x, 0, 80)
    s.known.manifest = replace(s.known.manifest, rows=2, sequences=2, chunk=1)
    two = replace(EARLY, rows=2, cached=2, sequences=2)
    good = row(two, n=1, src=head, src2=head)
    return good, {"rows, cached sequences": {"kernel": replace(two, sequences=1)}}


def kept_of_a_chunk(s: Setting) -> tuple[RowOperands, Changes]:
    """Two rows of one sequence: without early blocks they are accepted."""
    head = _of_two_buckets(s).f16(s.x, 0, 80)
    s.known.manifest = replace(s.known.manifest, rows=2, chunk=2)
    none = replace(ATTENTION, rows=2)
    early = replace(EARLY, rows=2)
    return row(none, n=1, src=head, src2=head), {
        "copies of 1 sequences in lines of 2 words": {"kernel": early}
    }


def kept_in_stripes(s: Setting) -> tuple[RowOperands, Changes]:
    head = _of_two_buckets(s).f16(s.x, 0, 80)
    return row(DEALT, n=1, src=head, src2=head, src3=1), {
        "3 early blocks, dealt 2 at a time": {"kernel": replace(DEALT, early=3, capacity=60, kv_stride=60)},
        "DDR5 keeps 39 tokens of a region, early ones are 40": {"kernel": replace(DEALT, reservoir=39)},
        "stripe 2 of 2": {"src3": 2},
    }


def fetch(s: Setting) -> tuple[RowOperands, Changes]:
    return row(EARLY, n=0, region=s.region()), {
        "block 1 of 1 early ones": {"n": 1},
        "reads KV of another attention": {"region": s.region(kernel=1)},
        "reads no KV region": {"region": None},
        "block 5 of 4 early ones": {"kernel": DEALT, "n": 2, "region": s.region(stripe=1)},
    }


def qkf(s: Setting) -> tuple[RowOperands, Changes]:
    copy = _copy(s, 0)
    good = row(EARLY, n=0, src=s.f16(s.x), src2=copy)
    return good, {
        "its copy is 2 blocks, not 1": {"src2": copy * 2},
        "79 lines are no blocks of 80": {"src2": copy[:-1]},
        "is not one whole result of 80 lines": {"src2": copy[::-1]},
        "its copy is of another attention": {"src2": _copy(s, 0, of=1)},
        "its copy is of block 0, it is about block 1": {"n": 1},
        "its copy holds f16": {"src2": s.f16(s.x)},
        "reads no KV region": {"kernel": ATTENTION},
    }


def pvf(s: Setting) -> tuple[RowOperands, Changes]:
    copy = _copy(s, 0)
    good = row(EARLY, n=0, src=s.chunk(Holds.WEIGHT, 0), src2=copy)
    return good, {
        "weights of block 1 meet values of block 0": {"src": s.chunk(Holds.WEIGHT, 1)},
        "its copy is of block 0, it is about block 1": {"n": 1},
        "its operand is of another attention": {"index": 1, "src2": _copy(s, 0, of=1)},
        "its copy is of another attention": {"src2": _copy(s, 0, of=1)},
    }


Make = Callable[[Setting], tuple[RowOperands, Changes]]
EARLY_ROWS: dict[Op, Make] = {Op.FETCH: fetch, Op.QKF: qkf, Op.PVF: pvf}
APPENDED: dict[str, Make] = {
    "early blocks": kept,
    "early blocks of several sequences": kept_of_rows,
    "no early blocks of a chunk": kept_of_a_chunk,
    "early blocks in stripes": kept_in_stripes,
}
