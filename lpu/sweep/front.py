"""The front of throughput: programs over tp, groups and users that none beats for all users and for each.

With as many users as fit, both rates follow from the length of a turn. So what is searched for is, for each
number of chips in a group and of groups, the shortest turn of its users (compiler/throughput/filled.py), and
that of fewer users where they get in each other's way. The latency program is the end of the front.
"""

from collections.abc import Callable
from dataclasses import replace

from compiler.errors import CompileError
from compiler.options import CompileOptions
from compiler.search import doubled
from compiler.throughput.filled import LONG
from lpu.report.throughput import Throughput, non_dominated

PATIENCE = 2  # values of tp in a row, or of groups, that add nothing to the front, then no more are tried
PARTS = 16  # of all groups: so much fewer are tried at a time

Measure = Callable[[CompileOptions], Throughput]
"""The throughput of a program with these options. Raises CompileError if there is none."""
_Tried = Callable[[CompileOptions], Throughput | None]


def front(measure: Measure, options: CompileOptions, chips: int) -> list[Throughput]:
    """The programs that none beats, the fastest for each user first; what options name is not searched for.

    options: a slack is the only one tried, users the most. chips: of the rack. Raises CompileError if no
    program fits.
    """
    refused: list[CompileError] = []

    def tried(asked: CompileOptions) -> Throughput | None:
        try:
            return measure(asked)
        except CompileError as error:
            refused.append(error)
            return None

    alone = tried(replace(options, objective="latency", interval_slack=None, users=None))
    found = [alone] if alone else []
    waves, idle = replace(options, objective="throughput"), 0
    for tp in [options.tp] if options.tp else list(doubled(chips)):
        here = _of_groups(tried, replace(waves, tp=tp), chips // tp)
        found += here
        kept = non_dominated(found)
        idle = idle + 1 if here and not any(one in kept for one in here) else 0
        if idle == PATIENCE:
            break
    if not found:
        raise refused[0]
    return non_dominated(found)


def _of_groups(measure: _Tried, options: CompileOptions, groups: int) -> list[Throughput]:
    """Programs of one tp: of as many groups as there are, of fewer until they do not fit; of fewer users."""
    first = measure(options)
    if first is None:
        return []
    found, idle, apart = [first, *_of_users(measure, options, first)], 0, max(1, groups // PARTS)
    for pp in range(groups - apart, 0, -apart) if options.pp is None else ():
        one = measure(replace(options, pp=pp))
        if one is None:
            break
        found.append(one)
        idle = 0 if one in non_dominated(found) else idle + 1
        if idle == PATIENCE:
            break
    return found


def _of_users(measure: _Tried, options: CompileOptions, most: Throughput) -> list[Throughput]:
    """The same program for a half of the users, a quarter, ... until they are hardly in each other's way."""
    out: list[Throughput] = []
    one: Throughput | None = most
    while one and one.users > 1 and one.bound and one.interval < LONG * one.bound:
        if options.interval_slack is not None:
            break
        one = measure(replace(options, users=one.users // 2))
        out += [one] if one else []
    return out
