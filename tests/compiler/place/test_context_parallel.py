"""How many chips the context of a KV head is dealt over, and how much each of them keeps."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import llama

from compiler.errors import CapacityError, OptionError
from compiler.lower.layout import Deal
from compiler.options import CompileOptions
from compiler.place.context_parallel import choices
from compiler.place.stages import Room, Size, spread
from compiler.place.stripes import Lenders, lend, neighbours
from compiler.source import Source, traced
from fabric.rack import load_rack


def dealt(source: Source, ranks: int, cp: int | None = None, beside: bool = False) -> list[Deal]:
    rack, model = load_rack("lpx"), traced(source)
    options = CompileOptions(tp=ranks, cp=cp)
    return choices(model.plan(rack, options), model.blocks, rack, tuple(range(ranks)), options, beside)


def chosen(source: Source, ranks: int, cp: int | None = None) -> list[int]:
    return [deal.chips for deal in dealt(source, ranks, cp)]


def test_a_short_context_stays_where_its_head_is() -> None:
    assert chosen(llama(context=320), 8)[0] == 1


@pytest.mark.slow
def test_a_long_context_is_dealt_over_the_ranks_that_would_idle() -> None:
    assert chosen(llama(context=1 << 17, kv_heads=2), 8)[0] == 4


def test_as_many_heads_as_ranks_leave_nothing_to_deal() -> None:
    assert chosen(llama(context=1 << 17, kv_heads=8), 8) == [1]


def test_no_rank_gets_less_than_a_line_of_scores() -> None:
    assert max(chosen(llama(context=160, kv_heads=1), 8)) <= 2


def test_more_ranks_are_kept_for_models_that_do_not_fit() -> None:
    assert chosen(llama(context=320, kv_heads=2), 8) == [1, 2, 4]


def test_a_users_choice_is_taken_as_it_is() -> None:
    assert chosen(llama(context=320, kv_heads=2), 8, cp=3) == [3]


def test_more_ranks_than_there_are_is_an_error_with_both_numbers() -> None:
    with pytest.raises(OptionError, match=r"--cp 3: 4 KV heads on 8 ranks have at most 2 each"):
        chosen(replace(llama(context=320)), 8, cp=3)


def test_a_count_below_one_is_no_choice() -> None:
    with pytest.raises(OptionError, match="--cp"):
        CompileOptions(cp=0)


@pytest.mark.slow
def test_neighbours_outside_the_group_keep_less_of_a_long_context_than_the_owner() -> None:
    best = dealt(llama(context=1 << 17, kv_heads=8), 8, beside=True)[0]
    assert best.chips > 1
    assert best.kept > best.lent


def test_of_several_buckets_the_shortest_lies_with_the_owner() -> None:
    long, short = 1 << 17, 1 << 13
    source = replace(llama(context=long, kv_heads=8), contexts=(short, long))
    best = dealt(source, 8, cp=4, beside=True)[0]
    assert short <= best.kept * best.run * 80


def test_neighbours_keep_nothing_of_a_short_context() -> None:
    assert dealt(llama(context=1 << 12, kv_heads=8), 8, beside=True)[0] == Deal()


@pytest.mark.slow
def test_fewer_neighbours_are_kept_for_groups_that_find_no_more() -> None:
    found = [deal.chips for deal in dealt(llama(context=1 << 17, kv_heads=8), 8, beside=True)]
    assert sorted(found) == [1, 2, 4, 8]
    assert found == [*found[: found.index(8) + 1], *sorted(found[found.index(8) + 1 :], reverse=True)]


@pytest.mark.slow
def test_more_chips_than_ranks_and_neighbours_is_an_error_with_both_numbers() -> None:
    with pytest.raises(OptionError, match=r"--cp 9: 8 KV heads on 8 ranks have at most 8 each, with neigh"):
        dealt(llama(context=1 << 17, kv_heads=8), 8, cp=9, beside=True)


@given(chips=st.integers(1, 9), lent=st.integers(1, 8), kept=st.integers(1, 40))
def test_every_stripe_has_one_keeper(chips: int, lent: int, kept: int) -> None:
    deal = Deal(chips, kept + (chips - 1) * lent, lent)
    assert np.bincount(deal.slots, minlength=chips).tolist() == [kept] + [lent] * (chips - 1)


def test_neighbours_are_direct_outside_the_group_and_nobodys_twice() -> None:
    rack, group = load_rack("lpx"), tuple(range(8))
    found = neighbours(rack, group, (7,) * 8)
    assert found is not None
    for chip, beside in zip(group, found, strict=True):
        assert len(beside) == 7
        assert all(rack.link(chip, one) >= 0 and one not in group for one in beside)
    assert len({one for beside in found for one in beside}) == 56
    assert neighbours(rack, group, (8,) * 8) is None


def test_chips_with_most_room_are_asked_first_and_full_ones_never() -> None:
    rack, group = load_rack("quad"), (0,)
    free = np.array([9, 5, 8, 7])
    assert neighbours(rack, group, (1,), (5,), Lenders(free=free)) == ((2,),)
    assert neighbours(rack, group, (1,), (5,), Lenders(free=free, shunned=frozenset({2}))) == ((3,),)
    assert neighbours(rack, group, (3,), (6,), Lenders(free=free)) is None


def sizes(count: int, words: int, lent: int) -> list[Size]:
    return [
        Size(
            name=f"b{i}", words=np.array([words]), transient=0, layer=f"l{i // 2}", beside=(1,), lent=(lent,)
        )
        for i in range(count)
    ]


def test_what_is_lent_lies_in_the_room_of_others_and_is_refused_with_both_numbers_where_there_is_none() -> (
    None
):
    rack, room = load_rack("pair"), Room(rack="pair", groups=2, tp=1, words=10, capacity=10)
    assert lend(sizes(2, 3, 4), [(0,), (1,)], rack, room) == (((1,),), ((0,),))
    with pytest.raises(CapacityError, match=r"block b0: needs 1 chips with 0.0 MB beside each"):
        lend(sizes(2, 7, 4), [(0,), (1,)], rack, room)


def test_layers_are_dealt_evenly_over_more_groups_before_they_are_divided() -> None:
    room = Room(rack="r", groups=3, tp=1, words=10, capacity=10)
    found = [[stage.group for stage in stages] for stages in spread(sizes(6, 2, 1), room, 2)]
    assert found == [[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]]
