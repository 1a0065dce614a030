"""The prefix cache of a replay against a simulator that shares nothing with it."""

import numpy as np
import pytest

from lpu.traffic.simulation.block_cache import BlockCache
from lpu.traffic.simulation.stated_blocks import StatedBlocks


def independent(prompts: list[list[int]], capacity: int | None) -> int:
    """Hits by time stamps: a block is as old as its last use, in a prompt the later block is the older."""
    used: dict[int, tuple[int, int]] = {}
    hits = 0
    for time, prompt in enumerate(prompts):
        for block in prompt:
            if block not in used:
                break
            hits += 1
        used.update({block: (time, -place) for place, block in enumerate(prompt)})
        while capacity is not None and len(used) > capacity:
            del used[min(used, key=used.__getitem__)]
    return hits


@pytest.mark.parametrize("capacity", [None, 1, 3, 20, 60])
def test_hits_are_those_of_an_independent_simulator(capacity: int | None) -> None:
    draw = np.random.default_rng(3)
    stems = [list(range(100 * i, 100 * i + 12)) for i in range(6)]
    prompts = [
        stems[draw.integers(6)][: draw.integers(1, 12)]
        + draw.integers(10_000, 10_040, draw.integers(0, 3)).tolist()
        for _ in range(400)
    ]
    prompts = [list(dict.fromkeys(prompt)) for prompt in prompts]
    cache = BlockCache(capacity)
    assert sum(cache.take(prompt) for prompt in prompts) == independent(prompts, capacity) > 0
    assert capacity is None or len(cache) <= capacity


def test_a_cache_of_no_blocks_never_hits() -> None:
    cache = BlockCache(0)
    assert [cache.take([1, 2]) for _ in range(2)] == [0, 0]


def test_a_block_goes_down_a_tier_and_comes_back() -> None:
    cache = BlockCache(2, 2)
    assert cache.take_from([1, 2]) == [0, 0]
    assert cache.take_from([3, 4]) == [0, 0]  # 1 and 2 go down
    assert cache.take_from([1, 2]) == [0, 2]  # they come back, 3 and 4 go down
    assert cache.take_from([1, 5]) == [1, 0]  # 2 goes down, 4 is the oldest there and gone
    assert cache.take_from([3, 4]) == [0, 1]
    assert len(cache) == 4


@pytest.mark.parametrize("capacities", [(3, 5), (1, 2, 30)])
def test_tiers_together_hit_as_one_cache_of_their_sum(capacities: tuple[int, ...]) -> None:
    draw = np.random.default_rng(5)
    prompts = [[*range(int(n)), 100 + int(n)] for n in draw.integers(1, 12, 300)]
    tiers = BlockCache(*capacities)
    assert sum(tiers.take(one) for one in prompts) == independent(prompts, sum(capacities))


@pytest.mark.parametrize("sizes", [(4, 3), (0, 5), (7, 0)])
@pytest.mark.parametrize("capacity", [None, 3, 20])
def test_a_hit_of_states_ends_where_a_prompt_ended_or_parted(
    capacity: int | None, sizes: tuple[int, int]
) -> None:
    """By a list of prompts, all bytes counted anew each time."""
    draw, (block, state) = np.random.default_rng(8), sizes
    cache = StatedBlocks(capacity, block, state)
    held: dict[int, tuple[bool, tuple[int, int]]] = {}
    hits = 0
    for time in range(300):
        stem = int(draw.integers(5))
        prompt = [100 * stem + i for i in range(draw.integers(1, 9))] + [1000 + time] * int(draw.integers(2))
        run = [*(one in held for one in prompt), False].index(False)
        want = max((n for n in range(1, run + 1) if held[prompt[n - 1]][0]), default=0)
        assert cache.known(prompt) == cache.take(prompt) == want
        hits += want
        for place, one in enumerate(prompt):
            stated = held.get(one, (False,))[0] or place + 1 in (run, len(prompt))
            held[one] = stated, (time, -place)
        room = None if capacity is None else capacity * (block + state)
        while room is not None and sum(block + state * one for one, _ in held.values()) > room:
            del held[min(held, key=lambda one: held[one][1])]
    assert hits > 0
    assert len(cache) == len(held)
