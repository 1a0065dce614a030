"""More stages that take more cycles are not taken."""

import numpy as np
import pytest

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.place.stages import Room
from compiler.throughput import fewer
from compiler.throughput.balance import Shares
from fabric.rack import load_rack
from lpu.inputs.open import open_model


def cycles_of_a_token() -> float:
    """Of llama-tiny on a torus of 16 chips, a group each."""
    model = open_model("llama-tiny", context=[80])
    options = CompileOptions(tp=1, objective="throughput")
    body = compile_program(model.source(), load_rack("torus-4x4"), options).manifest.waves
    assert body is not None
    (one,) = body.contexts.values()
    return one.turn * one.interval / body.users


def test_fewer_stages_are_taken_where_they_make_more_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cycles_of_a_token()
    monkeypatch.setattr(fewer, "FEW", 0)
    assert found < 0.9 * cycles_of_a_token()


def test_of_one_load_the_least_number_of_stages_is_tried() -> None:
    totals = np.array([[0], [3], [6], [9], [12]])
    shares = Shares(
        sizes=[],
        room=Room(rack="r", groups=4, tp=1, words=100, capacity=100),
        totals=totals,
        words=np.zeros((5, 1), np.int64),
    )
    assert [shares.among(groups).load for groups in (4, 3, 2, 1)] == [3, 6, 6, 12]
    assert shares.fewer(4, 100) == [2, 1]
    assert shares.fewer(4, 12) == [2]
    assert shares.fewer(4, 6) == []
