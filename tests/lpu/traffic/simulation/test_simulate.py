"""Queues against theory, where theory is exact; and one by hand."""

from collections.abc import Callable
from dataclasses import replace
from math import exp, factorial, log
from operator import eq
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpu.traffic.outcome import Outcome
from lpu.traffic.readers.drawn import Arrivals, DrawnTraffic, Lengths
from lpu.traffic.served import Prefiller, Prompt, Served, SlotTier, StepPace
from lpu.traffic.simulation.kept_slots import KeptSlots, UserSlot
from lpu.traffic.simulation.simulate import simulate
from lpu.traffic.tiers import LowerTier
from lpu.traffic.trace import PromptBlocks, Trace

HZ = 10**9
ONE = Served(clock_hz=HZ, groups=1, rows=1, paces=(StepPace(1 << 30, 1000, 1000, 1000),))
"""A single user at a time, a microsecond a token."""


def fixed(tokens: int) -> Lengths:
    return Lengths(kind="fixed", mean=tokens)


def drawing(arrivals: Arrivals, prompt: Lengths, new: Lengths, count: int) -> Trace:
    return DrawnTraffic(requests=count, arrivals=arrivals, input=prompt, output=new).trace()


def poisson(load: float, service: float, count: int) -> Arrivals:
    return Arrivals(kind="poisson", rate=load / service)


def gpus(replicas: int, cycles: int) -> Prefiller:
    """GPUs whose prefills take a fixed time; what is handed over costs nothing."""
    return Prefiller(
        replicas=replicas,
        cost=lambda tokens, held: Prompt(cycles, 0, 0, 0),
        room=1 << 40,
        cache_blocks=0,
    )


def waits(found: Outcome) -> float:
    """The mean wait in seconds."""
    return float(found.queue.mean())


def m_d_c(servers: int, load: float) -> float:
    """The mean wait over the service time. Source: Prabhu 1962, in Tijms, Stochastic Models, 9.6.2."""
    whole = 0.0
    for i in range(1, 400):
        a = i * servers * load
        terms = [exp(-a + n * log(a) - sum(log(k) for k in range(1, n + 1))) for n in (i * servers,)]
        below = sum(_poisson(a, n) for n in range(i * servers))
        tail = 1 - below
        whole += tail - (tail - terms[0]) / load
    return whole


def _poisson(mean: float, n: int) -> float:
    return exp(-mean + n * log(mean) - float(np.sum(np.log(np.arange(1, n + 1)))))


@pytest.mark.parametrize("load", [pytest.param(0.3, marks=pytest.mark.slow), 0.8])
def test_one_slot_waits_as_m_d_1(load: float) -> None:
    count, service = 100_000, 64e-6
    found = simulate(drawing(poisson(load, service, count), fixed(1), fixed(64), count), ONE)
    assert waits(found) == pytest.approx(service * load / (2 * (1 - load)), rel=0.04)
    assert (found.queue == 0).mean() == pytest.approx(1 - load, abs=0.01)
    assert found.occupancy()[0] == pytest.approx(load, rel=0.01)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.7), pytest.param(4, 0.8, marks=pytest.mark.slow)])
def test_replicas_of_gpus_wait_as_m_d_c(servers: int, load: float) -> None:
    count, cycles = 80_000, 50_000
    assert m_d_c(1, load) == pytest.approx(load / (2 * (1 - load)), rel=1e-5)
    machine = replace(ONE, rows=1000, prefill=gpus(servers, cycles))
    arrivals = Arrivals(kind="poisson", rate=servers * load / (cycles / HZ))
    found = simulate(drawing(arrivals, fixed(9), fixed(1), count), machine)
    assert waits(found) == pytest.approx(cycles / HZ * m_d_c(servers, load), rel=0.05)
    assert found.busy / found.span_cycles / servers == pytest.approx(load, rel=0.01)


@pytest.mark.parametrize(("users", "think"), [(3, 0.0), (3, 500e-6), (20, 500e-6)])
def test_a_closed_loop_of_fixed_times_has_its_exact_rate(users: int, think: float) -> None:
    """By N / (D + Z), at most 1 / D (Denning and Buzen 1978), where D + Z is a multiple of D."""
    service = 100e-6
    arrivals = Arrivals(kind="closed", users=users, think_seconds=think)
    found = simulate(drawing(arrivals, fixed(1), fixed(100), 6_000), ONE)
    rate = len(found.status) / (found.span_cycles / HZ)
    assert rate == pytest.approx(min(users / (service + think), 1 / service), rel=0.01)


def test_a_closed_loop_of_exponential_times_is_the_machine_repairman() -> None:
    users, think, service = 6, 8e-3, 2e-3
    arrivals = Arrivals(kind="closed", users=users, think_seconds=think, think="exponential")
    lengths = Lengths(kind="exponential", mean=2000)
    found = simulate(drawing(arrivals, fixed(1), lengths, 100_000), ONE)
    weights = [factorial(users) / factorial(users - n) * (service / think) ** n for n in range(users + 1)]
    busy = 1 - weights[0] / sum(weights)
    assert len(found.status) / (found.span_cycles / HZ) == pytest.approx(busy / service, rel=0.02)


def test_a_hand_over_by_hand() -> None:
    """Prefill 100, hand-over 30 of which 8 are exposed; one slot of steps of 10; two requests at once."""
    machine = replace(
        ONE,
        paces=(StepPace(50, 10, 10, 10),),
        prefill=Prefiller(replicas=1, cost=lambda n, held: Prompt(100, 8, 30, 20), room=9, cache_blocks=0),
    )
    arrivals, inputs, outputs = (np.array([one, one]) for one in (0, 5, 20))
    trace = Trace(name="two", arrivals=arrivals, inputs=inputs, outputs=outputs)
    found = simulate(trace, machine)
    assert found.started.tolist() == [0, 108]  # no room for the KV of both: the first is handed over at 108
    assert found.ready.tolist() == [108, 338]  # a slot is free at 308, then all of the hand-over is left
    assert found.first.tolist() == [118, 348]
    assert found.last.tolist() == [308, 538]


def test_a_block_below_hbm_delays_the_prefill_by_its_way_back() -> None:
    """By hand: HBM holds 1 block of 4 tokens; a block from the host takes 7 cycles of latency and 20 each."""
    tier = LowerTier(name="host", blocks=9, block_cycles=20, latency_cycles=7)
    machine = replace(
        ONE,
        rows=9,
        prefill=Prefiller(
            replicas=2,
            cost=lambda tokens, held: Prompt(10 * (tokens - held), 0, 0, 0),
            room=99,
            cache_blocks=1,
            tiers=(tier,),
        ),
    )
    blocks = PromptBlocks(tokens=4, starts=np.array([0, 2, 4, 6]), ids=np.array([1, 2, 1, 2, 1, 2]))
    arrivals, inputs, outputs = np.array([0, 1000, 1000]), np.full(3, 9), np.full(3, 1)
    trace = Trace(name="tiers", arrivals=arrivals, inputs=inputs, outputs=outputs, blocks=blocks)
    found = simulate(trace, machine)
    assert found.block_hits.tolist() == [0, 2, 2]
    assert (found.computed - found.started).tolist() == [90, 10 + 27, 10 + 27 + 27]  # the third one waits
    assert found.fetched == (2,)


def test_the_first_class_waits_less_and_all_wait_as_long_together() -> None:
    """Work is conserved: with equal service the mean wait over all is that of one class (Kleinrock 1965)."""
    count, service, load = 60_000, 64e-6, 0.8
    one = drawing(poisson(load, service, count), fixed(1), fixed(64), count)
    classes = np.random.default_rng(1).integers(0, 2, count)
    found, plain = simulate(replace(one, priorities=classes), ONE), simulate(one, ONE)
    assert found.queue.mean() == pytest.approx(plain.queue.mean(), rel=1e-6)
    first = found.queue[classes == 0].mean()
    residual = load * service / 2
    assert first == pytest.approx(residual / (1 - load / 2), rel=0.05)


def beside(cost: Callable[[int, int], Prompt], **more: Any) -> Served:
    """Steps of 10 cycles for each user, and one replica of GPUs."""
    prefill = Prefiller(replicas=1, cost=cost, room=1 << 40, cache_blocks=0)
    return replace(ONE, rows=2, paces=(StepPace(1 << 30, 10, 10, 10),), prefill=prefill, **more)


def test_a_prefill_on_gpus_that_have_a_part_in_steps_stops_them() -> None:
    """By hand: prefills of 100; the first user's steps of 10 stand still while the second is prefilled."""
    machine = beside(lambda tokens, held: Prompt(100, 0, 0, 0), gpus_step=True)
    arrivals, inputs, outputs = np.array([0, 125, 130]), np.full(3, 5), np.array([6, 1, 3])
    found = simulate(Trace(name="stop", arrivals=arrivals, inputs=inputs, outputs=outputs), machine)
    assert found.started.tolist() == [0, 125, 225]
    assert found.first.tolist() == [100, 225, 325]  # the prefill's own token
    # steps begin at 100; two are done at 120, the third has 5 to go at 125 and ends at 330, two more at 350;
    # the third request joins at 330
    assert found.last.tolist() == [350, 225, 350]


def test_without_arrivals_in_between_nothing_stops() -> None:
    machine = beside(lambda tokens, held: Prompt(100, 0, 0, 0), gpus_step=True)
    one = Trace(name="one", arrivals=np.array([0]), inputs=np.array([5]), outputs=np.array([6]))
    assert simulate(one, machine).last.tolist() == [100 + 5 * 10]


def test_load_gives_a_prompt_to_whoever_is_done_first() -> None:
    """By hand: 120 cycles on the GPUs, 10 a token on the LPUs; three prompts of 15 tokens, then one of 5."""
    machine = beside(lambda tokens, held: Prompt(120, 0, 0, 0), by_load=True)
    arrivals, inputs, outputs = np.array([0, 0, 0, 500]), np.array([15, 15, 15, 5]), np.ones(4, np.int64)
    found = simulate(Trace(name="load", arrivals=arrivals, inputs=inputs, outputs=outputs), machine)
    # GPUs: 130 with a step, then 250; the LPUs' 150 is sooner than that, in each of both slots
    assert (found.computed > 0).tolist() == [True, False, False, False]
    assert found.first.tolist() == [160, 150, 150, 550]  # the first one waited for a slot
    assert found.by_lpus == 3


def test_a_prompt_goes_on_in_the_slot_that_holds_its_blocks() -> None:
    """By hand: blocks of 4 tokens; the third prompt finds two of its three in the slot of the first."""
    machine = replace(ONE, rows=2, paces=(StepPace(1 << 30, 10, 10, 10),), keeps=True)
    blocks = PromptBlocks(tokens=4, starts=np.array([0, 2, 3, 6, 7]), ids=np.array([1, 2, 7, 1, 2, 3, 7]))
    arrivals, inputs = np.array([0, 0, 1000, 1000]), np.array([8, 4, 12, 4])
    trace = Trace(name="kept", arrivals=arrivals, inputs=inputs, outputs=np.ones(4, np.int64), blocks=blocks)
    found = simulate(trace, machine)
    assert (found.first - found.arrived).tolist() == [80, 40, 40, 10]  # the whole prompt of the last is held
    assert found.block_hits.tolist() == [0, 0, 2, 1]
    assert found.kept_blocks == 3
    assert simulate(trace, replace(machine, keeps=False)).kept_blocks == 0


def test_what_the_gpus_lack_of_a_kept_prompt_comes_back_from_its_slot() -> None:
    """By hand: HBM keeps nothing; two blocks of 4 tokens come at 5 cycles each after 7 of latency."""
    fetch = LowerTier(name="sram", blocks=0, block_cycles=5, latency_cycles=7)
    machine = beside(lambda tokens, held: Prompt(10 * (tokens - held), 40, 40, 0), keeps=True)
    assert machine.prefill is not None
    tier = SlotTier(cost=lambda n, held, kept: Prompt(10 * (n - held), 40 - kept, 40 - kept, 0), fetch=fetch)
    machine = replace(machine, prefill=replace(machine.prefill, slots=tier))
    blocks = PromptBlocks(tokens=4, starts=np.array([0, 2, 5]), ids=np.array([1, 2, 1, 2, 3]))
    arrivals, inputs = np.array([0, 1000]), np.array([8, 12])
    trace = Trace(name="back", arrivals=arrivals, inputs=inputs, outputs=np.ones(2, np.int64), blocks=blocks)
    found = simulate(trace, machine)
    assert found.from_slots == 2
    assert (found.computed - found.arrived).tolist() == [80, 17 + 40]
    assert (found.ready - found.computed).tolist() == [40, 32]  # 8 tokens are not handed over again


def test_a_block_from_the_ddr5_beside_the_lpus_comes_into_the_slot() -> None:
    """By hand: one slot; the second prompt writes over the first, whose two blocks come back in 7 + 2 x 5."""
    tier = LowerTier(name="ddr5", blocks=9, block_cycles=5, latency_cycles=7)
    machine = replace(ONE, paces=(StepPace(1 << 30, 10, 10, 10),), keeps=True, ddr5=tier)
    blocks = PromptBlocks(tokens=4, starts=np.array([0, 2, 3, 6]), ids=np.array([1, 2, 7, 1, 2, 3]))
    arrivals, inputs = np.array([0, 1000, 2000]), np.array([8, 4, 12])
    trace = Trace(name="ddr5", arrivals=arrivals, inputs=inputs, outputs=np.ones(3, np.int64), blocks=blocks)
    found = simulate(trace, machine)
    assert (found.first - found.arrived).tolist() == [80, 40, 17 + 40]
    assert (found.kept_blocks, found.from_ddr5) == (0, 2)
    none = simulate(trace, replace(machine, ddr5=None))
    assert (none.first - none.arrived).tolist() == [80, 40, 120]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_kept_slots_agree_with_a_list_of_slots(data: st.DataObject) -> None:
    """The independent model: every slot is a list, looked at one by one."""
    groups, rows = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    kept = KeptSlots(groups, rows)
    holds: dict[UserSlot, tuple[int, ...]] = {UserSlot(g, r): () for g in range(groups) for r in range(rows)}
    used: dict[UserSlot, int] = dict.fromkeys(holds, -1)
    busy: list[UserSlot] = []
    for step in range(data.draw(st.integers(1, 30))):
        depth = data.draw(st.integers(0, 3))
        word = data.draw(st.lists(st.integers(0, 1), min_size=depth, max_size=depth))
        ids = [int("1" + "".join(map(str, word[: i + 1])), 2) for i in range(depth)]  # chains of a tree
        free = [one for one in holds if one not in busy]
        lengths = {one: [*map(eq, holds[one], ids), False].index(False) for one in free}
        slot, count = kept.find(ids)
        assert count == max(lengths.values(), default=0)
        if slot is not None:
            assert lengths[slot] == count
            kept.take(slot)
        elif free:
            group = data.draw(st.sampled_from(sorted({one.group for one in free})))
            slot = kept.take_oldest(group)
            assert used[slot] == min(used[one] for one in free if one.group == group)
        if slot is not None:
            busy.append(slot)
            holds[slot] = tuple(ids)
        if busy and (slot is None or data.draw(st.booleans())):
            gone = busy.pop(data.draw(st.integers(0, len(busy) - 1)))
            kept.give(gone, holds[gone])
            used[gone] = step
