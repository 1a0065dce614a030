"""Conversations with tools: what is used again is counted, and bits are those of one long prompt."""

from collections.abc import Callable

import numpy as np
import pytest

from lpu import api
from lpu.decode.decoders import machine_of, restart
from lpu.decode.generate import Decode
from lpu.inputs.document import FileError
from lpu.traffic.talk import KEEPS, Keep, Talk, TalkTurn, talk_through

CONTEXT = 128
TURNS = (
    TalkTurn(brings=tuple(range(20)), new=8, reasoning=4),
    TalkTurn(brings=(30, 31, 32), new=6, reasoning=2, tool=True),
    TalkTurn(brings=(40, 41), new=5, tool=True),
    TalkTurn(brings=tuple(range(50, 58)), new=7, reasoning=3),
    TalkTurn(brings=(60,), new=4, tool=True),
)


@pytest.fixture(scope="module")
def fresh() -> Callable[[], Decode]:
    """An empty machine, as often as asked."""
    compiled = api.compile("llama-tiny", rack="quad", context=CONTEXT, tp=2)
    machine = machine_of(compiled.program, compiled.model)
    return lambda: restart(machine)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keep", "reused"),
    [("all", [0, 27, 36, 43, 58]), ("tools", [0, 27, 36, 20, 52]), ("none", [0, 20, 27, 37, 46])],
)
def test_reused_tokens_are_those_before_the_first_that_was_dropped(
    fresh: Callable[[], Decode], keep: Keep, reused: list[int]
) -> None:
    found = talk_through(Talk(fresh(), 1, CONTEXT), TURNS, keep)
    assert [one.reused for one in found] == reused
    for one in found if keep == "tools" else found[-1:]:
        whole = Talk(fresh(), 1, CONTEXT).say(one.prompt, len(one.tokens))
        assert whole.reused == 0
        assert whole.tokens == one.tokens
        assert np.array_equal(whole.logits.view(np.uint32), one.logits.view(np.uint32))


def test_a_changed_header_leaves_nothing_to_use_again(fresh: Callable[[], Decode]) -> None:
    talk, body = Talk(fresh(), 1, CONTEXT), tuple(range(1, 12))
    assert talk.say((100, *body), 1).reused == 0
    assert talk.say((100, *body, 5), 1).reused == 12
    assert talk.say((101, *body), 1).reused == 0
    assert KEEPS == ("all", "tools", "none")


def test_a_turn_beyond_the_context_is_refused(fresh: Callable[[], Decode]) -> None:
    with pytest.raises(FileError, match="need a context of 131, compiled is 128"):
        Talk(fresh(), 1, CONTEXT).say(range(122), 10)
