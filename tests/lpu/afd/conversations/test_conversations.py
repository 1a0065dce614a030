"""GPU and LPU together as real math: three modes, three turns, the bits of the model on one device."""

import functools
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hopped import BRIDGE
from slow import slow_but
from small_sides import LITTLE, VOCAB, opened

from compiler.hops import compile_hops
from compiler.moves.handover import compile_egress, compile_ingest
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.program import Program
from fabric.rack import load_rack
from lpu import api
from lpu.afd.conversations.afd import converse as converse_afd
from lpu.afd.conversations.draft import converse as converse_draft
from lpu.afd.conversations.pd import PdPrograms
from lpu.afd.conversations.pd import converse as converse_pd
from lpu.afd.modes.pd import POLICIES
from lpu.afd.times.pd import work
from lpu.decode.conversation import Conversation, default_users, reference
from lpu.decode.decoders import Flipped, Tensors
from lpu.decode.prefixes.binding import binding_of
from lpu.decode.prefixes.cache import PrefixCache
from lpu.gpu.request import Request
from lpu.inputs.model import OpenModel, of_micro_batch
from lpu.run.handed.handover import Handover
from lpu.run.hop import HopMachine
from models.families.llama import Llama

CONTEXT, MESSAGE = 30, 8
REQUEST = Request(prompt_tokens=10, new_tokens=3, later_tokens=5, batch=2, turns=3)
STEPS = REQUEST.turns * (REQUEST.new_tokens - 1)  # after the first token of a turn, which GPUs give
CROSSING = 4 * STEPS * LITTLE.layers * LITTLE.hidden  # numbers of four sequences, each way
ROUNDED = replace(LITTLE, name="rounded", ffn_down="fp8", ffn_up="fp16")


def rounded(*, batch: int, context: int, kv: Any) -> nnx.Module:
    """The same numbers, but for the rounding of what crosses."""
    return Llama(ROUNDED, batch=batch, context=context, kv=kv)


def model_of(batch: int, kv: str = "fp16") -> OpenModel:
    return opened(batch, kv, 0, CONTEXT)


@functools.cache
def rounded_model() -> OpenModel:
    return api.open_model(rounded, batch=4, context=[CONTEXT], weights="seed:0")


@functools.cache
def said(batch: int, kv: str = "fp16") -> Conversation:
    """What the model itself says."""
    return reference(model_of(batch, kv), users(batch), REQUEST.new_tokens)


def users(batch: int) -> Any:
    return default_users(REQUEST.turns, batch, VOCAB, REQUEST.prompt_tokens, REQUEST.brings(1))


@functools.cache
def programs(kv: str) -> PdPrograms:
    """fp16 on two chips; e4m3 on four, in two groups. A message is shorter than a prompt."""
    rack, groups = ("pair", 1) if kv == "fp16" else ("quad", 2)
    decode = compile_program(model_of(2, kv).source(), load_rack(rack), CompileOptions(tp=2, pp=groups))
    ingest, egress = compile_ingest(decode, MESSAGE, BRIDGE), compile_egress(decode, MESSAGE, BRIDGE)
    return PdPrograms(decode=decode, ingest=ingest, egress=egress)


@functools.cache
def hops_of(rows: int, model: str = "plain") -> Program:
    source = of_micro_batch(rounded_model() if model == "rounded" else model_of(4), rows).source()
    return compile_hops(source, load_rack("pair"), CompileOptions(tp=2), BRIDGE)[0]


def pd(kv: str, policy: str, cache: PrefixCache | None = None) -> Conversation:
    chosen = programs(kv) if policy == "copy-back" else replace(programs(kv), egress=None)
    return converse_pd(model_of(2, kv), chosen, users(2), REQUEST.new_tokens, cache=cache)


def afd(micro_batches: int) -> Conversation:
    rows = 4 // micro_batches
    return converse_afd(of_micro_batch(model_of(4), rows), hops_of(rows), users(4), REQUEST.new_tokens)


def changed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """From now on the LPU side has one weight of the other sign."""

    def tensors(model: OpenModel) -> Tensors:
        return Tensors(replace(model, weights=Flipped(model.weights, name)))

    for mode in ("pd", "afd"):
        monkeypatch.setattr(f"lpu.afd.conversations.{mode}.Tensors", tensors)


def negated(part: Any) -> np.ndarray:
    """A copy with the sign of the first number turned: one bit."""
    out = np.array(part)
    out.view(np.uint8).reshape(-1)[out.itemsize - 1] ^= 0x80
    return out


@pytest.mark.slow
@pytest.mark.parametrize("kv", ["fp16", "fp8"])
@pytest.mark.parametrize("policy", POLICIES)
def test_prefill_and_decode_apart_give_the_bits_of_the_model(kv: str, policy: str) -> None:
    found = pd(kv, policy)
    assert found.differs(said(2, kv)) == ""
    todo = [work(REQUEST, policy == "copy-back", turn) for turn in range(REQUEST.turns)]
    assert found.counts == {
        "prefilled_tokens": 2 * sum(one.prefilled for one in todo),
        "handed_tokens": 2 * sum(one.handed for one in todo),
        "returned_tokens": 2 * sum(one.returned for one in todo),
        "cached_tokens": 0,
        "steps": 3 * REQUEST.new_tokens,
    }


@pytest.mark.slow
@pytest.mark.parametrize("kv", slow_but(["fp8"], ["fp16", "fp8"]))
@pytest.mark.parametrize("policy", POLICIES)
def test_a_prefix_cache_saves_prefill_and_keeps_the_bits(kv: str, policy: str) -> None:
    cache = PrefixCache(binding_of(model_of(2, kv)), 4)
    cold, warm = pd(kv, policy, cache), pd(kv, policy, cache)
    assert cold.differs(said(2, kv)) == warm.differs(said(2, kv)) == ""
    assert (cold.counts["cached_tokens"], warm.counts["cached_tokens"]) == (0, 2 * 8)
    assert warm.counts["prefilled_tokens"] == cold.counts["prefilled_tokens"] - 2 * 8


@pytest.mark.slow
@pytest.mark.parametrize("kv", ["fp16", "fp8"])
@pytest.mark.parametrize(("way", "turn"), [("take", 1), ("give", 2)])
def test_one_bit_of_kv_on_the_way_is_found(
    kv: str, way: str, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    right: Any = getattr(Handover, way)
    calls: list[int] = []

    def wrong(handover: Handover, *arguments: Any) -> Any:
        calls.append(1)
        if way == "give":
            k, v = right(handover, *arguments)
            return k, (negated(v) if len(calls) == 1 else v)
        *before, v, states = arguments
        return right(handover, *before, negated(v) if len(calls) == 1 else v, states)

    monkeypatch.setattr(Handover, way, wrong)
    assert f"turn {turn}, sequence 0: " in pd(kv, "copy-back").differs(said(2, kv))


@pytest.mark.slow
def test_another_weight_on_the_decoding_side_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, "layers.1.ffn.down.codes")
    assert pd("fp16", "recompute").differs(said(2)) == "turn 1, sequence 0: logits of new token 0 differ"


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", slow_but([2], [1, 2, 4]))
def test_hops_between_attentions_give_the_bits_of_the_model(micro_batches: int) -> None:
    found = afd(micro_batches)
    assert found.differs(said(4)) == ""
    assert found.counts == {
        "prefilled_tokens": 4 * (10 + 2 * (5 + 1)),
        "hops": micro_batches * STEPS * LITTLE.layers,
        "down_bytes": 2 * CROSSING,
        "up_bytes": 4 * CROSSING,
    }


@pytest.mark.slow
def test_what_crosses_in_fewer_bits_has_the_bits_of_a_model_that_rounds_there() -> None:
    model = rounded_model()
    found = converse_afd(of_micro_batch(model, 2), hops_of(2, "rounded"), users(4), REQUEST.new_tokens)
    assert found.differs(reference(model, users(4), REQUEST.new_tokens)) == ""
    assert "logits of new token 0 differ" in found.differs(said(4))
    assert (found.counts["down_bytes"], found.counts["up_bytes"]) == (CROSSING, 2 * CROSSING)


@pytest.mark.slow
def test_one_bit_of_an_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = HopMachine.step
    calls: list[int] = []

    def wrong(machine: HopMachine, hop: int, message: Any) -> Any:
        calls.append(hop)
        answer = right(machine, hop, message)
        return jnp.asarray(negated(answer)) if len(calls) == 3 else answer

    monkeypatch.setattr(HopMachine, "step", wrong)
    # calls 1 and 2 are the layers of the first micro-batch, 3 is the first of the second one
    assert afd(2).differs(said(4)) == "turn 1, sequence 2: logits of new token 1 differ"


@pytest.mark.slow
def test_another_weight_of_a_hop_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, "layers.1.ffn.down.codes")
    assert afd(4).differs(said(4)) == "turn 1, sequence 0: logits of new token 1 differ"


@functools.cache
def drafting_program() -> Program:
    return compile_program(model_of(2).source(), load_rack("pair"), CompileOptions(tp=2, pp=1))


def draft(drafter: OpenModel, model: OpenModel | None = None) -> Conversation:
    return converse_draft(model or model_of(2), drafter, drafting_program(), users(2), REQUEST.new_tokens, 2)


@pytest.mark.slow
def test_a_drafter_of_the_same_weights_is_always_right() -> None:
    found = draft(model_of(2))
    assert found.differs(said(2)) == ""
    assert found.counts["accepted"] == found.counts["drafted"] > 0
    assert found.counts["rounds"] == REQUEST.turns  # two drafts each, so that a round gives all that is left


@pytest.mark.slow
def test_a_drafter_of_other_weights_costs_rounds_and_no_bit() -> None:
    found = draft(opened(2, "fp16", 7, CONTEXT))
    assert found.differs(said(2)) == ""
    assert found.counts["accepted"] < found.counts["drafted"]
    assert found.counts["rounds"] > REQUEST.turns


@pytest.mark.slow
def test_another_weight_of_the_verifier_is_found() -> None:
    wrong = model_of(2)
    wrong = replace(wrong, weights=Flipped(wrong.weights, "layers.1.ffn.down.codes"))
    assert draft(model_of(2), wrong).differs(said(2)) == "turn 1, sequence 0: logits of new token 0 differ"
