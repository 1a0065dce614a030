"""Queues against theory, where theory is exact; and one by hand."""

from dataclasses import replace
from math import exp, factorial, log

import numpy as np
import pytest

from lpu.traffic.outcome import Outcome
from lpu.traffic.readers.drawn import Arrivals, DrawnTraffic, Lengths
from lpu.traffic.served import Prefiller, Prompt, Served, StepPace
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
        room_tokens=1 << 40,
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
        prefill=Prefiller(
            replicas=1, cost=lambda n, held: Prompt(100, 8, 30, 20), room_tokens=9, cache_blocks=0
        ),
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
            room_tokens=99,
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
