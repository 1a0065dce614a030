"""Models with states in mode pd: GPUs prefill, states cross, the LPUs decode with the bits of one device."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hopped import BRIDGE
from slow import slow_but

from compiler.errors import OptionError
from compiler.moves.handover import compile_egress, compile_ingest
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.rack import load_rack
from lpu import api
from lpu.afd.conversations.pd import HandedSteps, PdPrograms, converse
from lpu.afd.gpu_side import GpuSide
from lpu.afd.machines import refuse_states
from lpu.decode.conversation import default_users, reference
from lpu.decode.prefixes.binding import binding_of
from lpu.decode.prefixes.cache import PrefixCache
from lpu.decode.prefixes.folder import KeptCache
from lpu.gpu.request import Request
from lpu.inputs.model import OpenModel

FOLDERS = Path(__file__).parents[3] / "models/data/variants"
REQUEST = Request(prompt_tokens=10, new_tokens=2, later_tokens=5, batch=2, turns=2)


def opened(name: str, batch: int = 2, **keywords: Any) -> OpenModel:
    return api.open_model(FOLDERS / name, batch=batch, context=[24], **keywords)


def programs(model: OpenModel, *, egress: bool) -> PdPrograms:
    """In messages of 6 tokens."""
    decode = compile_program(model.source(), load_rack("quad"), CompileOptions(tp=4, pp=1))
    back = compile_egress(decode, 6, BRIDGE) if egress else None
    return PdPrograms(decode=decode, ingest=compile_ingest(decode, 6, BRIDGE), egress=back)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "egress"),
    [("mamba", True), ("falcon-h1", False), ("jamba", True), ("qwen3-next", False), ("nemotron-3", True)],
)
def test_a_conversation_has_the_bits_of_the_model_with_and_without_a_cache(name: str, egress: bool) -> None:
    """Convolutions of 5, 2, 8 and 4 taps; those of mamba keep as many values as its channels have states.

    With the cache a prompt goes on behind the last block of 4 tokens whose state is kept."""
    model = opened(name)
    users = default_users(REQUEST.turns, 2, model.vocab, REQUEST.prompt_tokens, REQUEST.brings(1))
    want = reference(model, users, REQUEST.new_tokens)
    made, cache = programs(model, egress=egress), PrefixCache(binding_of(model, tp=1), 4)
    for cached in (0, 16):
        found = converse(model, made, users, REQUEST.new_tokens, cache=cache)
        for ours, theirs in zip(found.turns, want.turns, strict=True):
            assert np.array_equal(ours.tokens, theirs.tokens)
            assert [row.tobytes() for row in ours.logits] == [row.tobytes() for row in theirs.logits]
        assert found.counts["cached_tokens"] == cached


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mamba2", "jamba", "qwen3-next"])
def test_a_server_goes_on_behind_kept_states_after_a_restart(name: str, tmp_path: Path) -> None:
    """With the bits of whole prompts: behind the last block of one, then behind the one where two parted."""
    model = opened(name)
    made, bound, gpu = programs(model, egress=False), binding_of(model, tp=1), GpuSide(model)
    line = np.random.default_rng(5).integers(0, model.vocab, 40).tolist()
    prompts = [line[:14], [*line[:12], *line[20:24]], [*line[:4], *line[24:32]], [*line[:4], *line[32:38]]]
    steps, cached = HandedSteps(model, made, KeptCache(tmp_path / "kv", bound, 4)), list[int]()
    for number, prompt in enumerate(prompts):
        if number == 1:
            steps.close()
            steps = HandedSteps(model, made, KeptCache(tmp_path / "kv", bound, 4))
        cached.append(steps.known(prompt))
        joined = steps.join(1, prompt, scored=False)
        assert (joined.tokens, joined.cached) == (len(prompt) - 1, cached[-1])
        taken = steps.step(
            np.array([0, prompt[-1]], np.int32), np.array([0, len(prompt) - 1], np.int32), [0, 0]
        )
        assert taken.logits[1, 0].tobytes() == gpu.prefill(0, prompt).logits[-1].tobytes()
    assert cached == [0, 12, 0, 4]
    steps.close()


@pytest.mark.parametrize("count", slow_but([7], [1, 3, 4, 7, 8, 12]))
def test_a_prompt_goes_through_states_once_whatever_its_chunks(count: int) -> None:
    """Whole chunks, then tokens one by one; then on behind a copy of the state."""
    model = opened("mamba2", batch=1)
    gpu = GpuSide(model, chunk=4)
    line = np.random.default_rng(3).integers(0, model.vocab, count + 1)
    logits = gpu.prefill(0, line[:count]).logits
    state = gpu.state(0)
    one = gpu.beside()
    for at, token in enumerate(line[:count]):
        assert one.decode(np.array([token]), np.array([at])).logits.tobytes() == logits[at].tobytes()
    assert one.state(0).tobytes() == state.tobytes()
    want = gpu.decode(line[count:], np.array([count])).logits
    assert gpu.state(0).tobytes() != state.tobytes()
    gpu.put_state(0, state)
    assert gpu.decode(line[count:], np.array([count])).logits.tobytes() == want.tobytes()


def test_modes_that_take_tokens_back_refuse_states() -> None:
    model = opened("mamba2")
    with pytest.raises(OptionError, match="mamba2: keeps 6 states, which mode draft neither divides"):
        refuse_states("draft", model)
    without = model.step.cache._replace(state=())
    refuse_states("draft", replace(model, step=replace(model.step, cache=without)))
