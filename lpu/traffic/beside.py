"""A mode whose steps the GPUs have a part in (afd, draft) as requests see it: steps by KV, and prefills."""

from collections.abc import Callable

from lpu.afd.beside import ServedMode
from lpu.gpu.units import PS_PER_SECOND
from lpu.traffic.served import Prefiller, Prompt, Served, StepPace

LENGTHS = 16  # of KV at which a step is timed, up to the longest


def lengths_of(longest: int) -> tuple[int, ...]:
    """Lengths of KV, evenly up to the longest."""
    return tuple(dict.fromkeys(-(-longest * i // LENGTHS) for i in range(1, LENGTHS + 1)))


def served_beside(
    beside: ServedMode,
    batch: int,
    lengths: tuple[int, ...],
    step: Callable[[int], int] | None = None,
    queue: int | None = None,
) -> Served:
    """`batch` users of a mode. A step takes what it takes at the next of `lengths` above the longest user.

    step: picoseconds at a length of KV; `beside.turn` if not given.
    """
    clock_hz, longest = beside.program.manifest.clock_hz, lengths[-1]
    step = step or beside.turn

    def cycles(picoseconds: int) -> int:
        return -(-picoseconds * clock_hz // PS_PER_SECOND)

    def cost(tokens: int, held: int) -> Prompt:
        del held  # no prefixes are kept
        compute, taken = max(cycles(beside.prefill(tokens)), 1), cycles(beside.prompt(tokens))
        return Prompt(compute=compute, exposed=max(taken - compute, 0), handover=taken, wire=0)

    turns = {length: max(cycles(step(length)), 1) for length in lengths}
    return Served(
        clock_hz=clock_hz,
        groups=1,
        rows=batch,
        paces=tuple(StepPace(length, turn, turn, turn) for length, turn in turns.items()),
        prefill=Prefiller(replicas=beside.gpus.replicas, cost=cost, room=longest * batch, cache_blocks=0),
        queue=queue,
        gpus_step=True,
    )
