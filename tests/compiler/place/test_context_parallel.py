"""How many ranks the context of a KV head is dealt over."""

from dataclasses import replace

import pytest
from steps import llama

from compiler.errors import OptionError
from compiler.options import CompileOptions
from compiler.place.context_parallel import choices
from compiler.source import Source, traced
from fabric.rack import load_rack


def chosen(source: Source, ranks: int, cp: int | None = None) -> list[int]:
    rack, model = load_rack("lpx"), traced(source)
    options = CompileOptions(tp=ranks, cp=cp)
    return choices(model.plan(rack), model.blocks, rack, tuple(range(ranks)), options)


def test_a_short_context_stays_where_its_head_is() -> None:
    assert chosen(llama(context=320), 8)[0] == 1


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
