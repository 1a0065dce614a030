"""Sampling against the vectors of facts/contract2.md section 8b (made with Python integers)."""

import numpy as np
import pytest

from models.contract.sampling import Sampling, draw, philox

Golden = dict[str, np.ndarray]


def test_philox_is_that_of_random123(golden2: Golden) -> None:
    rows = zip(golden2["philox_counter"], golden2["philox_key"], golden2["philox_out"], strict=True)
    for counter, key, out in rows:
        c, k = counter.tolist(), key.tolist()
        assert philox((c[0], c[1], c[2], c[3]), (k[0], k[1])) == tuple(out.tolist())
    assert philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


@pytest.mark.parametrize("n", range(7))
def test_tokens_masses_and_kept_counts_are_those_of_the_vectors(golden2: Golden, n: int) -> None:
    g = {name.removeprefix(f"sample{n}_"): value for name, value in golden2.items() if f"sample{n}_" in name}
    for row in range(len(g["z"])):
        how = Sampling(
            seed=int(g["seed"][row]) & (1 << 64) - 1,
            temperature=float(g["temperature"]),
            top_k=int(g["k"]),
            top_p=float(g["top_p"]),
            min_p=float(g["min_p"]),
        )
        found = draw(g["z"][row], how, int(g["position"][row]))
        if how.temperature:
            assert found == (g["token"][row], g["mass"][row], g["kept"][row]), row
        else:
            assert found.token == g["token"][row]


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
