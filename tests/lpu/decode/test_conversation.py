"""A conversation: the prompts of its turns, and where one differs from another."""

from dataclasses import replace

import numpy as np
import pytest

from lpu.decode.conversation import Conversation, Spoken, default_users, prompts_of
from lpu.inputs.document import FileError


def spoken() -> Spoken:
    return Spoken(
        prompts=((1, 2), (3, 4)),
        tokens=((5, 6), (7, 8)),
        logits=(np.zeros((2, 9), np.float32), np.ones((2, 9), np.float32)),
    )


def test_the_next_prompt_is_all_that_was_said_and_what_the_user_brings() -> None:
    users = [((1, 2), (3, 4)), ((9,), (10, 11))]
    assert prompts_of([], users) == [(1, 2), (3, 4)]
    assert prompts_of([spoken()], users) == [(1, 2, 5, 6, 9), (3, 4, 7, 8, 10, 11)]


def test_equal_conversations_do_not_differ() -> None:
    assert Conversation(turns=(spoken(),)).differs(Conversation(turns=(spoken(),))) == ""


def test_one_bit_of_one_logit_differs_even_where_the_numbers_are_equal() -> None:
    wrong = spoken()
    wrong.logits[0][1, 3] = -0.0
    found = Conversation(turns=(spoken(), wrong)).differs(Conversation(turns=(spoken(), spoken())))
    assert found == "turn 2, sequence 0: logits of new token 1 differ"


def test_other_tokens_and_fewer_turns_differ() -> None:
    one = Conversation(turns=(spoken(),))
    other = Conversation(turns=(replace(spoken(), tokens=((5, 6), (7, 9))),))
    assert one.differs(other) == "turn 1, sequence 1: tokens differ"
    assert one.differs(Conversation(turns=())) == "1 turns against 0"


def test_users_bring_fixed_tokens_of_the_vocabulary() -> None:
    users = default_users(3, 2, 7, 5, 4)
    assert [[len(ids) for ids in turn] for turn in users] == [[5, 5], [4, 4], [4, 4]]
    assert users == default_users(3, 2, 7, 5, 4)
    assert {token for turn in users for ids in turn for token in ids} <= set(range(7))
    assert users[0][0] != users[0][1]


def test_a_vocabulary_of_one_token_makes_no_prompt() -> None:
    with pytest.raises(FileError, match="a vocabulary of 1 token cannot make a prompt, 2 are needed"):
        default_users(1, 1, 1, 2, 2)
