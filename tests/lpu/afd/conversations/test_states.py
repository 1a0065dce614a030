"""Models with states in mode pd: GPUs prefill, states cross, the LPUs decode with the bits of one device."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hopped import BRIDGE
from slow import slow_but

from compiler.errors import CompileError
from compiler.moves.handover import compile_egress, compile_ingest
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.rack import load_rack
from lpu import api
from lpu.afd.conversations.draft import DraftedSteps
from lpu.afd.conversations.draft import converse as converse_draft
from lpu.afd.conversations.pd import HandedSteps, PdPrograms, converse
from lpu.afd.conversations.rewound import RewoundSide
from lpu.afd.gpu_side import GpuSide
from lpu.afd.modes.afd import Afd
from lpu.afd.options import Gpus, Wanted
from lpu.decode.conversation import default_users, reference
from lpu.decode.prefixes.binding import binding_of
from lpu.decode.prefixes.cache import PrefixCache
from lpu.decode.prefixes.folder import KeptCache
from lpu.gpu.request import Request
from lpu.inputs.model import OpenModel
from lpu.run.error import MachineError

FOLDERS = Path(__file__).parents[3] / "models/data/variants"
REQUEST = Request(prompt_tokens=10, new_tokens=2, later_tokens=5, batch=2, turns=2)


def opened(name: str, batch: int = 2, **keywords: Any) -> OpenModel:
    return api.open_model(FOLDERS / name, batch=batch, context=[24], **keywords)


@cache
def side() -> GpuSide:
    """Of one sequence, chunks of 4 tokens; tests take it as `beside()`."""
    return GpuSide(opened("mamba2", batch=1), chunk=4)


def ids(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, side().vocab, count)


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
    gpu, line = side().beside(), ids(count + 1)
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


def test_rejected_drafts_leave_no_trace_in_states() -> None:
    """Wrong drafts, of which one becomes a token, then on behind it; and nowhere that no copy is of."""
    line, gpu = ids(9), side()
    want = gpu.beside().prefill(0, line).logits
    rewound = RewoundSide(gpu.beside())
    rewound.prefill(0, line[:4].tolist())
    at = np.arange(4, 8)[None]
    wrong = np.array([[line[4], line[5], line[6] + 1, 3]])
    found = [
        rewound.rows(wrong, at).logits[0, :2],
        rewound.rows(np.array([line[6:9]]), at[:, :3] + 2).logits[0],
    ]
    assert np.concatenate(found).tobytes() == want[4:].tobytes()
    assert found[1].tobytes() == rewound.rows(np.array([line[6:9]]), at[:, :3] + 2).logits[0].tobytes()
    with pytest.raises(MachineError, match="goes on at position 4, states are kept before 6, 7, 8, 9"):
        rewound.rows(np.array([line[4:5]]), at[:, :1])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "drafter"), [("mamba2", "mamba2"), ("bamba", "mamba2"), ("jamba", "jamba")])
def test_drafts_on_lpus_are_verified_by_gpus_with_the_bits_of_the_model(name: str, drafter: str) -> None:
    """In two turns; a drafter of other weights has drafts rejected."""
    model, small = opened(name), opened(drafter)
    users = default_users(REQUEST.turns, 2, model.vocab, REQUEST.prompt_tokens, REQUEST.brings(1))
    program = compile_program(small.source(), load_rack("quad"), CompileOptions(tp=4, pp=1))
    found = converse_draft(model, small, program, users, 4, 2)
    assert not found.differs(reference(model, users, 4))
    assert (found.counts["accepted"] == found.counts["drafted"]) == (name == drafter)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["falcon-h1", "jamba", "qwen3-next", "granite4-moe"])
def test_ffns_are_hops_beside_mixers_with_their_states_on_gpus(name: str) -> None:
    found = api.afd(
        FOLDERS / name,
        REQUEST,
        mode=Afd(),
        gpus=Gpus(gpus=1),
        rack="quad",
        wanted=Wanted(run=True),
        context=24,
    )
    assert found.bits == "equal"


def test_a_layer_without_an_ffn_has_no_hop() -> None:
    with pytest.raises(CompileError, match=r"layers\.0: role ffn selects 0 of its modules .* Use --mode pd"):
        api.afd(FOLDERS / "mamba2", REQUEST, mode=Afd(), gpus=Gpus(gpus=1), rack="quad", context=24)


@pytest.mark.slow
def test_a_server_drafts_for_rows_that_begin_at_any_time() -> None:
    """The second prompt comes between rounds of the first, in a row that another had."""
    model, small, draw = opened("bamba"), opened("mamba2"), np.random.default_rng(4)
    program = compile_program(small.source(), load_rack("quad"), CompileOptions(tp=4, pp=1))
    steps, alone = DraftedSteps(model, small, program, 2), GpuSide(model, batch=1)
    lines, prompts = dict[int, list[int]](), dict[int, int]()
    for new in ({0: 6, 1: 3}, {}, {1: 5}, {}, {}):
        for row, count in new.items():
            lines[row], prompts[row] = draw.integers(0, model.vocab, count).tolist(), count
            lines[row].append(int(steps.join(row, lines[row], scored=False).logits[-1].argmax()))
        tokens = np.array([line[-1] for line in lines.values()], np.int32)
        at = np.array([len(line) - 1 for line in lines.values()], np.int32)
        found = steps.step(tokens, at, [2, 2])
        for row, line in lines.items():
            pairs = zip(found.drafts[row], found.likely[row].tolist(), strict=False)
            agreed = [draft == wish for draft, wish in pairs]
            line += found.likely[row, : [*agreed, False].index(False) + 1].tolist()
            want = alone.prefill(0, line[:-1]).chosen.tolist()
            assert line[prompts[row] :] == want[prompts[row] - 1 :]
