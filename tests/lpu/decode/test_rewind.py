"""Drafting where layers keep states: rejected drafts are taken back; tokens are those of greedy decode."""

from pathlib import Path

import numpy as np
import pytest

from lpu import api
from lpu.compiled import Compiled
from lpu.decode.decoders import machine_of, restart
from lpu.decode.rewind import rewinding
from lpu.run.error import MachineError
from lpu.run.machine import Machine

FOLDERS = Path(__file__).parents[2] / "models/data/variants"
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14]]


def compiled(name: str, prefill: int | None = None) -> Compiled:
    return api.compile(
        FOLDERS / name, rack="pair", tp=1, batch=2, context=[40], check=False, prove=False, prefill=prefill
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "drafter"), [("bamba", "bamba"), ("bamba", "mamba2"), ("qwen3-next", "mamba2")]
)
def test_drafted_tokens_are_those_of_greedy_decode(target: str, drafter: str) -> None:
    big, small = compiled(target, prefill=4), compiled(drafter)
    found = api.speculate(big, small, PROMPTS, tokens=9, ignore_eos=True)
    alone = api.run(big, PROMPTS, tokens=9)
    assert found.tokens == alone.generation.tokens
    for ours, theirs in zip(found.speculation.logits, alone.generation.logits, strict=True):
        assert ours.tobytes() == theirs[-9:].tobytes()
    assert (found.speculation.accepted == found.speculation.drafted) == (drafter == target)
    assert all(one.verifying > 0 for one in found.rounds)


def test_a_row_that_goes_back_has_the_bits_of_one_that_never_went_on() -> None:
    made = compiled("mamba2")
    machine = machine_of(made.program, made.model)
    assert isinstance(machine, Machine)
    straight, back = restart(machine), rewinding(machine, 1)
    tokens = np.array([[3, 4], [5, 6], [7, 8], [9, 1]], np.int32)

    def at(*positions: int) -> np.ndarray:
        return np.array(positions, np.int32)

    wanted = [straight(row, at(i, i))[0] for i, row in enumerate(tokens)]
    for i in (0, 1, 2):
        back(tokens[i] if i < 2 else np.array([50, 8], np.int32), at(i, i))
    again = back(np.array([7, 9], np.int32), at(2, 3))[0]  # the first row goes back, the second goes on
    assert again[0].tobytes() == wanted[2][0].tobytes()
    assert again[1].tobytes() != wanted[3][1].tobytes()  # it took another token
    assert back(np.array([9, 1], np.int32), at(3, 3))[0].tobytes() == wanted[3].tobytes()
    with pytest.raises(MachineError, match="goes from position 4 to 1, copies of its states go back 1"):
        back(tokens[1], at(1, 1))
