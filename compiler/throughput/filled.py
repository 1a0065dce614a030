"""The interval that users fill: one step divided by the groups of users whose KV fits."""

from collections.abc import Callable
from itertools import islice

from compiler.errors import CapacityError
from compiler.options import CompileOptions
from compiler.program.isa import ceil_div
from compiler.scheduled import Scheduled, WaveSchedule
from compiler.search import until_worse
from compiler.steps import Progress
from compiler.throughput.cache import StageCache
from compiler.throughput.interval import find_intervals
from compiler.throughput.waves import emit_waves

LONG = 8.0  # slack at which stages hardly get in each other's way, so that steps are short
MOST = (
    200_000  # cycles of an interval: longer rings take long to fill, and a turn may have idle waves instead
)
ROUNDS = 4
SCALE = 1 << 20  # of cycles a user's token, to compare them as whole numbers


def fill_waves(
    stages: StageCache,
    options: CompileOptions,
    users_of: Callable[[Scheduled], int],
    progress: Progress,
) -> Scheduled:
    """The waves of the most tokens per second, over intervals of which each is the last one's step / users.

    A longer interval than that leaves the pipeline empty between the users; a shorter one makes steps longer
    and no user faster. users_of: groups of users that fit beside scheduled waves, or CapacityError.
    Raises CompileError if no interval tried has room.
    """
    last = stages.plan.contexts[-1]
    wanted = [dict.fromkeys(stages.plan.contexts, LONG)]

    def attempt(slack: dict[int, float]) -> tuple[Scheduled, int]:
        scheduled = emit_waves(stages, find_intervals(stages, slack, progress), options)
        waves = scheduled.waves
        assert waves is not None
        try:
            users = users_of(scheduled)
        except CapacityError:
            wanted.append({context: 2 * one for context, one in slack.items()})
            raise
        filled = {c: _filled(cycles, users, waves.bound[c]) for c, cycles in waves.cycles.items()}
        wanted.extend([filled] if filled not in wanted else [])
        return scheduled, cycles_of_a_token(waves, last, users)

    search = until_worse(
        islice(wanted, ROUNDS), attempt, lambda found: found[1], patience=1, refused=(CapacityError,)
    )
    if search.best is None:
        raise search.refusals[-1]
    return search.found[1][0]


def cycles_of_a_token(waves: WaveSchedule, context: int, users: int) -> int:
    """Cycles from one token of any user to the next, times SCALE."""
    turn = max(users, int(ceil_div(waves.cycles[context], waves.interval[context])))
    return turn * waves.interval[context] * SCALE // users


def _filled(cycles: int, users: int, bound: int) -> float:
    """The slack of the interval that users fill; where that is very long, of a part of it."""
    waves = users * int(ceil_div(cycles, users * MOST))
    return max(1.0, ceil_div(cycles, waves) / bound)
