"""Upsets: replays by the closed form and in runs, and bits that stay those of the run without errors."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binomtest  # pyright: ignore[reportMissingTypeStubs]

from compiler.options import CompileOptions
from compiler.program.isa import is_transfer
from lpu import api
from lpu.inputs.document import FileError
from lpu.upsets.inject import attempts_of
from lpu.upsets.rates import Exposure, Replays

MODEL = api.open_model("llama-tiny", context=64)
PROGRAM = api.compile(MODEL, rack="quad", options=CompileOptions(tp=2), prove=False).program
SOME = Exposure(frames=5_000, words=20_000, cycles=100, clock_hz=10**9)


@pytest.mark.parametrize("seed", range(20))
def test_replays_of_a_thousand_tokens_are_those_of_the_closed_form(seed: int) -> None:
    replays = Replays(exposure=SOME, frame_loss=2.5e-5, word_upset=1e-6)
    counts = Counter(attempts_of(replays, 1000, seed))
    assert sum(count for attempts, count in counts.items() if attempts > 1) >= 90
    for attempts in (1, 2, 3):
        alike = binomtest(counts[attempts], 1000, replays.share(attempts))
        assert alike.pvalue > 0.01 / 60  # one of 60 tests


def test_the_closed_form_is_that_of_its_parts() -> None:
    replays = Replays(exposure=SOME, frame_loss=1e-4, word_upset=1e-5)
    assert math.isclose(replays.fails, 1 - (1 - 1e-4) ** 5_000 * (1 - 1e-5) ** 20_000, rel_tol=1e-9)
    assert math.isclose(sum(replays.share(k) for k in range(1, 200)), 1)
    mean = sum(k * replays.share(k) for k in range(1, 400)) * SOME.cycles
    assert math.isclose(replays.mean_cycles, mean, rel_tol=1e-9)
    for share in (0.5, 0.9, 0.999):
        most = replays.within(share) // SOME.cycles
        assert sum(replays.share(k) for k in range(1, most + 1)) >= share
        assert most == 1 or sum(replays.share(k) for k in range(1, most)) < share


def test_tiny_rates_are_not_lost_to_rounding() -> None:
    shares = [Replays(exposure=SOME, frame_loss=loss, word_upset=0).fails for loss in (1e-12, 1e-15, 1e-18)]
    assert all(math.isclose(a / b, 1e3, rel_tol=1e-6) for a, b in pairwise(shares))
    assert Replays(exposure=SOME, frame_loss=0, word_upset=0).within(0.999) == SOME.cycles


def test_frames_are_the_words_of_all_transfers() -> None:
    rows = PROGRAM.expand(64)
    moved = is_transfer(rows.op)
    assert Exposure.of(PROGRAM, 64).frames == int(rows.n[moved].sum()) * PROGRAM.manifest.rows


@pytest.mark.slow
@pytest.mark.parametrize(("frame_loss", "word_upset"), [(3e-3, 0.0), (0.0, 1e-5)])
def test_bits_are_those_without_errors_and_differ_without_replay(
    frame_loss: float, word_upset: float
) -> None:
    how = api.UpsetOptions(frame_loss=frame_loss, word_upset=word_upset, tokens=48, run=True, seed=3)
    found = api.upsets(PROGRAM, how)
    assert found.ran
    assert found.ran.struck_attempts >= 3
    assert found.ran.bits_equal
    assert sum(found.ran.attempts) == 48 + found.ran.struck_attempts
    without = api.UpsetOptions(
        frame_loss=frame_loss, word_upset=word_upset, tokens=48, run=True, seed=3, replay=False
    )
    spoiled = api.upsets(PROGRAM, without)
    assert spoiled.ran
    assert not spoiled.ran.bits_equal
    assert set(spoiled.ran.attempts) == {1}
    assert "NOT those" in str(spoiled)


@pytest.mark.slow
def test_the_same_seed_draws_the_same_errors() -> None:
    replays = Replays(exposure=SOME, frame_loss=1e-4, word_upset=0)
    assert attempts_of(replays, 200, 7) == attempts_of(replays, 200, 7) != attempts_of(replays, 200, 8)
    how = api.UpsetOptions(frame_loss=3e-3, tokens=24, run=True, seed=5)
    first, again = (api.upsets(PROGRAM, how) for _ in range(2))
    assert first.attempts == again.attempts
    assert np.array(first.attempts).min() >= 1


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"frame_loss": 1.0}, "--frame-loss is 1"),
        ({"word_upset": -1.0}, "--word-upset is -1"),
        ({"replay": False}, "Add --run"),
    ],
)
def test_options_that_cannot_be_are_refused(how: dict[str, float], said: str) -> None:
    with pytest.raises(FileError, match=said):
        api.UpsetOptions(**how)  # pyright: ignore[reportArgumentType]


def test_rates_at_which_no_token_would_end_are_refused() -> None:
    with pytest.raises(FileError, match=r"at most 0\.95 end"):
        api.upsets(PROGRAM, api.UpsetOptions(frame_loss=0.5))
