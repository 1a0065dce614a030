"""Speculative decode with both sides on racks: greedy tokens and logits, and the cycles of every round."""

from dataclasses import replace

import numpy as np
import pytest
from own_models import head_norms

from compiler.errors import OptionError
from lpu import api
from lpu.compiled import Compiled
from lpu.inputs.document import FileError

PROMPTS = [[3, 4, 5, 6, 7, 8, 9, 10, 11], [5, 6]]


@pytest.fixture(scope="module")
def big() -> Compiled:
    return api.compile(head_norms, rack="quad", context=[40], tp=1, pp=3, prefill=4, batch=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["seed:0", "seed:3"], ids=["always right", "mostly wrong"])
def test_drafts_change_no_bit_and_every_round_is_counted(big: Compiled, seed: str) -> None:
    small = api.compile(head_norms, rack="pair", context=[40], batch=2, weights=seed)
    want = api.run(big, PROMPTS, tokens=9, how=api.RunOptions(ignore_eos=True))
    done = api.speculate(big, small, PROMPTS, tokens=9, ignore_eos=True)
    assert done.tokens == want.generation.tokens
    for prompt, logits, ours in zip(PROMPTS, want.generation.logits, done.speculation.logits, strict=True):
        assert np.ascontiguousarray(logits[len(prompt) - 1 :]).tobytes() == ours.tobytes()
    assert big.prefill is not None
    assert big.prefill.manifest.waves is not None
    chunk = big.prefill.manifest.cycles[40] + big.prefill.manifest.waves.contexts[40].interval
    step = small.program.manifest.cycles[40]
    assert {(one.drafting, one.verifying) for one in done.rounds} == {(4 * step, chunk)}
    assert (done.speculation.acceptance_rate == 1) is (seed == "seed:0")
    assert len(done.rounds) == (2 if seed == "seed:0" else len(done.rounds))
    ended = replace(done, ends=frozenset({done.tokens[0][2]}))
    assert ended.tokens[0] == done.tokens[0][: done.tokens[0].index(done.tokens[0][2]) + 1]
    assert done.to_json()["rounds"][0] == {"drafting": 4 * step, "verifying": chunk}


def test_sides_that_do_not_go_together_are_one_line(big: Compiled) -> None:
    with pytest.raises(FileError, match=r"no prefill program\. Compile it with --prefill"):
        api.speculate(replace(big, prefill=None), big, PROMPTS)
    with pytest.raises(FileError, match=r"judges 3 drafts behind the last of 39 positions.*--context 42"):
        api.speculate(big, big, PROMPTS, tokens=31)
    with pytest.raises((FileError, OptionError), match="need a context of"):
        api.speculate(big, big, PROMPTS, tokens=60)
