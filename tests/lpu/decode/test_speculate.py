from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from slow import slow_but
from small_sides import CONTEXT, VOCAB, greedy, ids, little, side

from lpu import api
from lpu.decode.decoders import machine_of, restart
from lpu.decode.generate import Decode, Generation, Prefill
from lpu.decode.speculate import Drafter, Held, Speculation, speculate
from lpu.inputs.document import FileError

PROMPTS = [ids(6), ids(1, 1), ids(11, 2), ids(3, 3)]
COUNT, BATCH = 11, 4


def decode_of(seed: int) -> Decode:
    """A model's single steps, with KV of their own."""
    return side(BATCH, "fp16", seed, 1).decode


def wrong_where(is_wrong: Callable[[np.ndarray], np.ndarray]) -> Decode:
    """The big model itself, but for the tokens that it chooses at some positions."""
    right = decode_of(0)

    def decode(tokens: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, chosen = right(tokens, at)
        return logits, np.where(is_wrong(at), (chosen + 1) % VOCAB, chosen)

    return decode


def mixing() -> Decode:
    """Wrong at positions that differ between sequences."""
    return wrong_where(lambda at: (at + 2 * np.arange(BATCH)) % 7 == 0)


def drafter(decode: Decode, batch: int = BATCH, **others: Any) -> Drafter:
    return Drafter(decode=decode, batch=batch, vocab=VOCAB, context=CONTEXT, **others)


DRAFTERS = {
    "the same model": lambda: decode_of(0),
    "a model of other weights": lambda: decode_of(7),
    "now right, now wrong": mixing,
}


@pytest.fixture(scope="module")
def wanted() -> list[Generation]:
    return greedy(PROMPTS, COUNT)


def require_greedy(found: Speculation, want: Sequence[Generation]) -> None:
    """Tokens, and the bits of the logits that each was chosen by."""
    assert len(found.tokens) == len(want)
    for one, tokens, logits in zip(want, found.tokens, found.logits, strict=True):
        assert tokens == one.tokens[0]
        assert logits.tobytes() == one.logits[0][len(one.prompts[0]) - 1 :].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "k"), slow_but([(4, 3)], [(1, 1), (1, 4), (4, 1), (4, 2), (4, 3), (4, 4)]))
@pytest.mark.parametrize("name", slow_but(["a model of other weights", "now right, now wrong"], DRAFTERS))
def test_the_output_is_the_big_models_greedy_decode(
    name: str, batch: int, k: int, wanted: list[Generation]
) -> None:
    found = speculate(drafter(DRAFTERS[name]()), side(batch), PROMPTS[:batch], COUNT, k)
    require_greedy(found, wanted[:batch])
    assert found.draft_steps == (k + 1) * found.verify_steps
    assert all(sum(one.emitted[i] for one in found.rounds) == COUNT - 1 for i in range(batch))
    if name == "the same model":
        assert found.acceptance_rate == 1.0
        assert found.accepted == found.drafted
        assert found.verify_steps == -(-(COUNT - 1) // (k + 1))
        assert found.tokens_per_verify == (COUNT - 1) / found.verify_steps
    elif name == "a model of other weights":
        assert found.acceptance_rate < 0.2
    else:
        assert 0.2 < found.acceptance_rate < 1.0
        assert 1.0 < found.tokens_per_verify < k + 1


@pytest.mark.slow
def test_counts_of_a_round_by_hand() -> None:
    """The drafter is wrong about positions 10, 15, ..; the prompt is 6 tokens, the first new one at 6.

    Round 1 takes position 6 and drafts 7, 8, 9: all kept, and 10 is the verifier's own. Round 2 takes 10,
    whose draft of 11 is wrong; and so on.
    """
    small = drafter(wrong_where(lambda at: at % 5 == 0))
    found = speculate(small, side(4), PROMPTS[:1], 11, 3)
    assert [one.drafted for one in found.rounds] == [(3,), (3,), (3,), (0,)]
    assert [one.emitted for one in found.rounds] == [(4,), (1,), (4,), (1,)]
    assert (found.drafted, found.accepted, found.acceptance_rate) == (9, 6, 6 / 7)
    assert (found.verify_steps, found.draft_steps, found.prompt_steps) == (4, 16, 6)
    assert found.tokens_per_verify == 10 / 4
    assert found.verified == (6,)


@pytest.mark.slow
def test_a_broken_verifier_is_noticed(wanted: list[Generation]) -> None:
    """So the equality above can fail."""
    gpu = side(1)

    class Broken:
        batch, vocab, context = 1, VOCAB, CONTEXT
        prefill = gpu.prefill

        def rows(self, tokens: Any, positions: Any) -> Any:
            logits, chosen = gpu.rows(tokens, positions)
            return logits, tokens + 0 * chosen

    found = speculate(drafter(mixing()), Broken(), PROMPTS[:1], COUNT, 1)
    with pytest.raises(AssertionError):
        require_greedy(found, wanted[:1])


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 4])
def test_three_turns_go_on_from_the_kv_of_the_turns_before(k: int) -> None:
    """Of four sequences; the reference takes each whole conversation from scratch."""
    prompts, held, small, big = PROMPTS, Held(), drafter(mixing()), side(4)
    for turn in range(3):
        found = speculate(small, big, prompts, 5, k, held=held)
        require_greedy(found, greedy(prompts, 5))
        if turn:
            assert found.verified == (4, 4, 4, 4)
            assert found.prompt_steps == 4
        held = found.held
        said = zip(prompts, found.tokens, strict=True)
        prompts = [[*prompt, *tokens, *ids(3, 10 * turn + i)] for i, (prompt, tokens) in enumerate(said)]


def test_a_turn_that_changes_what_was_said_begins_where_it_differs() -> None:
    small, big = drafter(mixing()), side(4)
    first = speculate(small, big, [ids(12)], 4, 3)
    changed = [*ids(12)[:7], (ids(12)[7] + 1) % VOCAB, *ids(12)[8:]]
    second = speculate(small, big, [changed], 4, 3, held=first.held)
    assert (second.verified, second.prompt_steps) == ((5,), 5)
    require_greedy(second, greedy([changed], 4))


@pytest.mark.parametrize(("prompt", "count"), [(CONTEXT - 4, 5), (CONTEXT, 1), (1, CONTEXT)])
def test_the_context_may_be_filled_to_its_last_position(prompt: int, count: int) -> None:
    """Drafts beyond it are neither taken nor wanted, whatever k is."""
    prompts = [ids(prompt), ids(1, 1), ids(prompt, 2)]
    found = speculate(drafter(mixing()), side(4), prompts, count, 4)
    require_greedy(found, greedy(prompts, count))


def test_a_drafter_takes_long_prompts_in_chunks(wanted: list[Generation]) -> None:
    gpu, sizes = side(4, "fp16", 0, 1), []

    def take(tokens: np.ndarray, at: np.ndarray, sequence: int) -> tuple[np.ndarray, np.ndarray]:
        sizes.append((sequence, int(at[0]), len(tokens)))
        return gpu.prefill(sequence, tokens, int(at[0]))

    small = drafter(gpu.decode, prefill=Prefill(5, take))
    found = speculate(small, side(4), PROMPTS, COUNT, 3)
    require_greedy(found, wanted)
    assert sizes == [(0, 0, 5), (0, 1, 5), (2, 0, 5), (2, 5, 5), (2, 6, 5)]
    assert (found.prompt_chunks, found.prompt_steps, found.acceptance_rate) == (5, 3, 1.0)
    longer = [[*PROMPTS[2], *found.tokens[2]]]
    sizes.clear()
    held = Held((found.held.draft[2],), ())  # the verifier begins anew, the drafter in another sequence's KV
    gpu.put_kv(0, 0, *gpu.kv(2, 0, CONTEXT))
    again = speculate(small, side(4), longer, 3, 3, held=held)
    require_greedy(again, greedy(longer, 3))
    assert (sizes, again.verified, again.acceptance_rate) == ([(0, 17, 5)], (22,), 1.0)


@pytest.mark.slow
def test_a_compiled_program_drafts_and_its_bits_make_every_draft_right() -> None:
    """The scheduled program of the big model itself, on two chips, with KV in their SRAM."""
    compiled = api.compile(little, rack="pair", batch=2, context=[CONTEXT])
    machine = machine_of(compiled.program, compiled.model)
    prompts = [ids(6), ids(3, 1)]
    found = speculate(drafter(restart(machine), 2), side(4), prompts, 7, 2)
    require_greedy(found, greedy(prompts, 7))
    assert (found.acceptance_rate, found.verify_steps, found.draft_steps) == (1.0, 2, 6)


def test_what_does_not_go_together_is_refused_with_both_numbers() -> None:
    decode = decode_of(0)
    other = Drafter(decode=decode, batch=1, vocab=60, context=CONTEXT)
    with pytest.raises(FileError, match=r"drafter has a vocabulary of 60 tokens, the big model one of 61\."):
        speculate(other, side(1), [ids(3)], 2, 1)
    short = Drafter(decode=decode, batch=1, vocab=VOCAB, context=6)
    with pytest.raises(FileError, match="5 prompt tokens and 3 new ones need a context of 7, compiled is 6"):
        speculate(short, side(1), [ids(5)], 3, 1)
    with pytest.raises(FileError, match="2 prompts, the program has a batch of 1"):
        speculate(drafter(decode), side(1), [ids(3), ids(4)], 2, 1)
    with pytest.raises(FileError, match="0 drafts per round"):
        speculate(drafter(decode), side(1), [ids(3)], 2, 0)
