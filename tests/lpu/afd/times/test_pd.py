"""Mode pd in time: who has which KV, layers behind the prefill, the parts of a turn."""

from typing import Any

import pytest
from hopped import BRIDGE
from hypothesis import given
from hypothesis import strategies as st
from shapes import SMALL

from compiler.program.program import Program
from fabric.catalog import gpu_spec
from lpu.afd.times.handover import stream
from lpu.afd.times.pd import turns, work
from lpu.gpu.request import Request
from lpu.gpu.share import GpuShare, shares
from lpu.report.words import EXACT

COUNTS = st.integers(1, 9)
STEP_PS = 5_431_978  # 7957 cycles at 1,464,843,750 Hz


@given(
    prompt=st.integers(2, 20),
    new=COUNTS,
    later=COUNTS,
    turn_count=st.integers(1, 4),
    cached=st.integers(0, 18),
    copy_back=st.booleans(),
)
def test_work_is_what_each_side_lacks(
    prompt: int, new: int, later: int, turn_count: int, cached: int, copy_back: bool
) -> None:
    """Token by token: a set of positions whose KV a side has."""
    cached = min(cached, prompt - 2)
    request = Request(
        prompt_tokens=prompt, new_tokens=new, later_tokens=later, turns=turn_count, cached_tokens=cached
    )
    on_gpu, on_lpu, said = set(range(cached)), set[int](), 0
    for number in range(turn_count):
        said += prompt if number == 0 else later
        needed = set(range(said - 1))  # the last token of the prompt is taken by the LPUs
        returned = (on_lpu - on_gpu) & needed if copy_back else set[int]()
        prefix = len(on_gpu)
        on_gpu |= returned
        prefilled, handed = needed - on_gpu, needed - on_lpu
        found = work(request, copy_back, number)
        assert (found.prefix, found.prefilled, found.handed, found.returned) == (
            prefix,
            len(prefilled),
            len(handed),
            len(returned),
        )
        on_gpu |= prefilled
        on_lpu |= handed | set(range(said - 1, said - 1 + new))
        said += new


CHIPS = st.sampled_from([(0,), (1,), (0, 1), (2, 3), (1, 2)])
LAYERS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), CHIPS), min_size=1, max_size=8)


@given(layers=LAYERS, wire=st.integers(0, 40), latency=st.integers(0, 40))
def test_a_slot_waits_for_its_bytes_and_for_its_chips(layers: Any, wire: int, latency: int) -> None:
    computed = [sum(time for time, _, _ in layers[: i + 1]) for i in range(len(layers))]
    found = stream(
        computed, wire, latency, [slot for _, slot, _ in layers], [chips for _, _, chips in layers]
    )
    free = 0
    for i, (_, slot, chips) in enumerate(layers):
        assert found.sent[i] - wire >= max(free, computed[i])
        free = found.sent[i]
        assert found.arrived[i] == found.sent[i] + latency
        assert found.begins[i] >= found.arrived[i]
        assert found.ends[i] - found.begins[i] == slot
        before = [found.ends[j] for j in range(i) if set(layers[j][2]) & set(chips)]
        assert found.begins[i] == max([found.arrived[i], *before])  # and no later than it must
    assert found.exposed == max(found.ends) - computed[-1] >= wire + latency


def test_a_faster_link_or_a_shorter_slot_is_never_later() -> None:
    base: Any = [[10, 20, 30], 7, 5, [9, 9, 9], [(0,)] * 3]
    ends = stream(*base).ends
    for at, better in ((1, 6), (2, 0), (3, [8, 9, 9])):
        other: Any = [*base[:at], better, *base[at + 1 :]]
        assert all(a <= b for a, b in zip(stream(*other).ends, ends, strict=True))


@pytest.fixture(scope="module")
def one() -> GpuShare:
    return shares(SMALL, gpu_spec("h200"), 1, BRIDGE)[-1]


def test_two_turns_by_hand(one: GpuShare, pair_program: Program) -> None:
    """10 tokens of which 2 are cached, 4 new; then 5 more, while 4 decoded ones come back.

    A token's KV in a layer is 2 * 2 heads * 32 * 2 = 256 bytes, 128 on each of two chips: one word, 38 cycles
    on a host lane. 50 GB/s; 4 us one way.
    """
    request = Request(
        prompt_tokens=10, new_tokens=4, cached_tokens=2, turns=2, later_tokens=5, queue_seconds=1e-3
    )
    (first, second), (handover, _) = turns(request, one, pair_program, True)
    prefill = one.embed(7) + 2 * one.prefill_layer(7, 2, 1)
    exposed = 9 * 256 * 20 + 4_000_000 + 9 * 38 * 10**12 // 1_464_843_750
    assert [part.picoseconds for part in first.first] == [10**9, prefill, exposed, STEP_PS]
    assert [part.basis for part in first.first] == ["assumed", "modelled", "modelled", EXACT]
    assert (first.tpot, first.reused, first.crossed) == (STEP_PS, 2, {"kv_down": 4608, "kv_up": 0})
    assert handover.exposed == exposed
    again = one.embed(5) + 2 * one.prefill_layer(5, 13, 1)
    read = 2 * (4 * 38 * 10**12 // 1_464_843_750)
    sent = 4_000_000 + 4 * 2 * 256 * 20
    assert [part.picoseconds for part in second.first][1:4] == [read, sent, again]
    assert second.crossed == {"kv_down": 5 * 512, "kv_up": 4 * 512}
    assert second.reused == 13


def test_recomputing_takes_prefill_in_place_of_bytes(one: GpuShare, pair_program: Program) -> None:
    request = Request(prompt_tokens=10, new_tokens=4, turns=2, later_tokens=5)
    second = turns(request, one, pair_program, False)[0][1]
    assert [part.name for part in second.first] == ["queue", "prefill", "hand-over, exposed", "first token"]
    assert second.first[1].picoseconds == one.embed(9) + 2 * one.prefill_layer(9, 9, 1)
    assert (second.reused, second.crossed["kv_up"]) == (9, 0)


def test_layers_on_other_chips_take_their_slots_side_by_side(
    one: GpuShare, pair_program: Program, piped_program: Program
) -> None:
    request = Request(prompt_tokens=60, new_tokens=4)
    both = [turns(request, one, program, False)[1][0] for program in (pair_program, piped_program)]
    assert both[0].chips == ((0, 1), (0, 1))
    assert both[1].chips == ((0, 1), (2, 3))


def test_the_share_that_is_hidden_is_that_of_the_hand_over_alone() -> None:
    found = stream([100, 200, 300], 10, 5, [5, 5, 5], [(0,)] * 3)
    assert found.exposed == 20
    assert found.hidden == 1 - 20 / 220
    assert stream([100], 10, 5, [5], [(0,)]).hidden == 0
