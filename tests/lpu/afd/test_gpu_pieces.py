"""A divided step: bits of the whole, with its hops computed elsewhere."""

import jax
import numpy as np
import pytest

from compiler.graph.capture import capture
from lpu.afd.gpu_pieces import GpuPieces
from lpu.decode.decoders import reference_params
from lpu.inputs.model import OpenModel
from lpu.inputs.open import open_model
from models.kv import empty_cache


@pytest.fixture(scope="module")
def model() -> OpenModel:
    return open_model("llama-tiny", batch=2, context=(80,), ffn_down="fp16")


def hops_of(model: OpenModel) -> list[list[int]]:
    """The ops of each FFN from its first matmul to its last, by their numbers."""
    nodes = capture(model.step.fn, *model.step.inputs()).nodes
    ffn: dict[str, list[int]] = {}
    for node in nodes:
        if node.path.endswith(".ffn") and node.op in ("matmul", "glu"):
            ffn.setdefault(node.path, []).append(node.index)
    return list(ffn.values())


@pytest.mark.slow
def test_pieces_and_hops_give_the_bits_of_the_step(model: OpenModel) -> None:
    step, params = model.step, reference_params(model)
    pieces = GpuPieces(step, hops_of(model))
    ours = theirs = empty_cache(step.cache)
    tokens = np.array([3, 7], np.int32)
    for position in range(3):
        at = np.full(2, position, np.int32)
        logits, token, ours = pieces.step(params, tokens, at, ours, pieces.local(params))
        wanted, same, theirs = jax.jit(step.fn)(params, tokens, at, theirs)
        np.testing.assert_array_equal(logits, wanted)
        np.testing.assert_array_equal(token, same)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
        tokens = np.asarray(token)


def test_what_a_hop_gives_reaches_the_logits(model: OpenModel) -> None:
    step, params = model.step, reference_params(model)
    pieces = GpuPieces(step, hops_of(model))
    right = pieces.local(params)

    def wrong(number: int, value: jax.Array) -> jax.Array:
        found = right(number, value)
        return found.at[0, 0].add(1) if number == 1 else found

    tokens, at = np.array([3, 7], np.int32), np.zeros(2, np.int32)
    logits = [pieces.step(params, tokens, at, empty_cache(step.cache), hop)[0] for hop in (right, wrong)]
    assert not np.array_equal(logits[0][0], logits[1][0])
    np.testing.assert_array_equal(logits[0][1], logits[1][1])


def test_a_hop_of_which_two_values_come_back_is_refused(model: OpenModel) -> None:
    with pytest.raises(ValueError, match="hop 0: 1 values go there and 2 come back, one each can"):
        GpuPieces(model.step, [hops_of(model)[0][:2]])
