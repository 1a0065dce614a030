"""Fewer stages where so many get in each other's way that waves enter less often than the load allows."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from compiler.errors import CapacityError, CompileError
from compiler.lower.blocks import ModelBlock
from compiler.options import CompileOptions
from compiler.scheduled import Scheduled
from compiler.throughput.balance import fewer_stages
from compiler.throughput.filled import cycles_of_a_token
from fabric.rack import Rack

MOST = 2  # numbers of stages that are tried besides the first
FEW = 16  # blocks; llama-3.1-70b at context 1024 took 2.6 times as long to compile and gained nothing


def best_of_fewer(
    first: Scheduled,
    made: Callable[[CompileOptions], Scheduled],
    users_of: Callable[[Scheduled], int],
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
) -> Scheduled:
    """The waves of most tokens per second: those of as many stages as there can be, or of fewer.

    Of many blocks fewer are not tried: their stages have rows enough to come near their load.
    made: the waves with options that state `pp`. users_of: as for `fill_waves`.
    """
    last = max(first.plan.contexts)

    def cost(found: Scheduled) -> int:
        assert found.waves is not None
        return cycles_of_a_token(found.waves, last, users_of(found))

    if len(blocks) > FEW or first.waves is None:
        return first
    best, least = first, cost(first)
    try:
        fewer = fewer_stages(first.assignment, blocks, rack, options, first.waves.interval[last])
    except CapacityError:  # blocks lie as they fit
        return first
    for stages in islice(fewer, MOST):
        try:
            found = made(replace(options, pp=stages))
            if cost(found) < least:
                best, least = replace(found, options=first.options), cost(found)
        except CompileError:
            continue
    return best
