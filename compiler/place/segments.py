"""Segments: blocks in order cut into runs, one group for each run, by dynamic programming."""

from compiler.errors import LESS_KV, CapacityError
from compiler.place.problem import PlacementError
from compiler.place.tables import Tables

NEVER = 1 << 62


def fastest(tables: Tables, walk: list[int], period: int) -> list[int] | None:
    """The group of each block for the least latency of runs along `walk`, no group busier than `period`.

    None if there is none. Exact for runs that follow the walk from its beginning, what is handed from the
    last run of a ring to the first left out.
    """
    shards, kinds = tables.shards, tables.shards.kinds
    count = len(shards)
    before = [NEVER] * (count + 1)
    before[0] = 0
    cuts: list[list[int]] = []
    best, best_runs = NEVER, 0
    for run, group in enumerate(walk):
        after, cut = [NEVER] * (count + 1), [0] * (count + 1)
        stay = [tables.hand[kind][group][group] for kind in kinds]
        for begin in range(run, count):
            if before[begin] >= NEVER:
                continue
            cycles, words, busy = before[begin], 0, 0
            if begin:
                cycles += tables.hand[kinds[begin - 1]][walk[run - 1]][group]
            for end in range(begin, count):
                kind = kinds[end]
                words, busy = words + tables.words[kind], busy + tables.busy[kind]
                if words > shards.room or busy > period:
                    break
                cycles += tables.alone[kind][group] + (stay[end - 1] if end > begin else 0)
                if cycles < after[end + 1]:
                    after[end + 1], cut[end + 1] = cycles, begin
        cuts.append(cut)
        if after[count] < best:
            best, best_runs = after[count], run + 1
        before = after
    if best >= NEVER:
        return None
    at, end = [0] * count, count
    for run in reversed(range(best_runs)):
        begin = cuts[run][end]
        at[begin:end] = [walk[run]] * (end - begin)
        end = begin
    return at


def least_period(tables: Tables, walk: list[int]) -> int:
    """The least busy cycles of the busiest group that runs in order can have; raises CapacityError."""
    shards = tables.shards
    busy = [tables.busy[kind] for kind in shards.kinds]
    low, high = max(busy), sum(busy)
    if _runs(tables, high) > len(walk):
        raise CapacityError(
            "place",
            f"{len(shards)} blocks",
            f"need {_runs(tables, high)} groups of {shards.tp} chips in order, there are {len(walk)}",
            f"Use a larger rack{LESS_KV}.",
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _runs(tables, middle) <= len(walk) else (middle + 1, high)
    return low


def chain_only(tables: Tables, who: str) -> None:
    """Raise PlacementError unless the blocks are a chain."""
    if not tables.shards.is_chain:
        raise PlacementError(
            "place",
            who,
            f"is for chains, block {_branch(tables)} reads others than the block before it",
            "Use annealing.",
        )


def _runs(tables: Tables, period: int) -> int:
    """The fewest runs that fit, each filled as far as it goes."""
    runs, words, busy = 1, 0, 0
    for kind in tables.shards.kinds:
        words, busy = words + tables.words[kind], busy + tables.busy[kind]
        if words > tables.shards.room or busy > period:
            runs, words, busy = runs + 1, tables.words[kind], tables.busy[kind]
            if words > tables.shards.room or busy > period:
                return NEVER
    return runs


def _branch(tables: Tables) -> str:
    shards = tables.shards
    return next(
        name
        for i, (name, reads) in enumerate(zip(shards.names, shards.before, strict=True))
        if reads != ((i - 1,) if i else ())
    )
