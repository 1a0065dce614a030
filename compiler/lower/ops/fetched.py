"""Early blocks of a context: copied from DDR5 into transients, each until its node is made."""

from dataclasses import replace

import numpy as np

from compiler.lower.context import Lowering
from compiler.lower.holders import Heads
from compiler.program.instructions.fetched import fetched_lines
from compiler.program.isa import Op

COPIES = 2  # of blocks of a head at a time: one that comes in beside one that is attended to


def fetch(low: Lowering, heads: Heads, block: int) -> None:
    """The copy of an early block of every head, once the step's KV is appended."""
    like = heads.before(block, 1)
    if like >= 0 and heads.stripe(like) == heads.stripe(block):  # arrays of this many lines are shared
        copy = replace(heads.fetched[like], uid=low.uids)
        low.uids += 1
        low.values.append(copy)
    else:
        copy = heads.value(low, "bare", fetched_lines(heads.kernel), [heads.rank(block)])
    heads.fetched[block] = copy
    mine = heads.regions(block)
    heads.fetches[block] = low.rows.add(
        Op.FETCH,
        rank=heads.rank(block),
        aux=heads.aux,
        n=heads.local(block),
        src2=heads.region[mine],
        src2_tag=heads.region_tag[mine],
        dst_tag=copy.tag(copy.first),
    )
    low.rows.edge(heads.append[mine], heads.fetches[block])
    earlier = heads.before(block, COPIES)
    if earlier >= 0:
        low.passing.add(copy.uid)
    if earlier in heads.used:
        low.rows.edge(heads.used[earlier], heads.fetches[block])


def release(low: Lowering, heads: Heads, block: int, read: np.ndarray) -> None:
    """Rows that have made the nodes of an early block: its copy gives its room to a later one."""
    heads.used[block] = read
    for later, rows in heads.fetches.items():
        if heads.before(later, COPIES) == block:
            low.rows.edge(read, rows)
