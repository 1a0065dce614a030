"""What sampling depends on; its vectors are in test_contract2.py."""

import numpy as np
import pytest

from models.contract.sampling import Sampling, draw, philox


def test_philox_is_that_of_random123() -> None:
    assert philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


def test_a_draw_depends_on_seed_and_place_alone() -> None:
    logits = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    how = Sampling(seed=7, temperature=1.0)
    tokens = [draw(logits, how, position).token for position in range(40)]
    assert tokens == [draw(logits.copy(), how, position).token for position in range(40)]
    assert len(set(tokens)) > 10
    other = Sampling(seed=8, temperature=1.0)
    assert tokens != [draw(logits, other, position).token for position in range(40)]
    assert all(
        draw(logits, Sampling(seed=7, temperature=1.0, top_k=1), i).token == logits.argmax() for i in range(9)
    )


def test_logits_as_far_apart_as_f32_reaches_weigh_nothing_beside_the_largest() -> None:
    logits = np.array([-3e38, 3e38, 0.0], np.float32)
    assert draw(logits, Sampling(temperature=1e-3), 0) == (1, 1 << 28, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": 1e-4},
        {"top_k": -1},
        {"top_p": 0.0},
        {"min_p": 2.0},
        {"seed": -1},
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"is .*, must be"):
        Sampling(**wrong)  # pyright: ignore[reportArgumentType]
