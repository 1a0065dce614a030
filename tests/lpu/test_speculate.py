from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from small_sides import CONTEXT, VOCAB, ids, little, reference, side

from lpu import api
from lpu.decoders import machine_of, restart
from lpu.document import FileError
from lpu.generate import Decode, Generation, Prefill, generate
from lpu.speculate import speculate
from lpu.speculation import Drafter, Held, Speculation

PROMPTS = {1: [ids(6)], 4: [ids(6), ids(1, 1), ids(11, 2), ids(3, 3)]}
COUNT = 11
Wanted = dict[int, Generation]


def decode_of(batch: int, seed: int) -> Decode:
    """A model's single steps, with KV of their own, as another test left it."""
    return side(batch, "fp16", seed, 1).decode


def mixing(batch: int) -> Decode:
    """The big model itself, wrong at positions that differ between sequences."""
    right = decode_of(batch, 0)

    def decode(tokens: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, chosen = right(tokens, at)
        wrong = (at + 2 * np.arange(batch)) % 7 == 0
        return logits, np.where(wrong, (chosen + 1) % VOCAB, chosen)

    return decode


def drafter(decode: Decode, batch: int, **others: Any) -> Drafter:
    return Drafter(decode=decode, batch=batch, vocab=VOCAB, context=CONTEXT, **others)


DRAFTERS = {
    "the same model": lambda batch: decode_of(batch, 0),
    "a model of other weights": lambda batch: decode_of(batch, 7),
    "now right, now wrong": mixing,
}


def greedy(prompts: Sequence[Sequence[int]], count: int, batch: int) -> Generation:
    return generate(reference(batch), prompts, count, batch)


@pytest.fixture(scope="module")
def wanted() -> Wanted:
    return {batch: greedy(prompts, COUNT, batch) for batch, prompts in PROMPTS.items()}


def require_greedy(found: Speculation, want: Generation) -> None:
    """Tokens, and the bits of the logits that each was chosen by."""
    assert found.tokens == want.tokens
    for prompt, ours, theirs in zip(want.prompts, found.logits, want.logits, strict=True):
        assert ours.tobytes() == theirs[len(prompt) - 1 :].tobytes()


def require_drafted(name: str, batch: int, k: int, wanted: Wanted) -> None:
    """The big model's greedy decode, and the counts that such a drafter leads to."""
    found = speculate(drafter(DRAFTERS[name](batch), batch), side(batch), PROMPTS[batch], COUNT, k)
    require_greedy(found, wanted[batch])
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


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("name", DRAFTERS)
def test_the_output_of_four_sequences_is_the_big_models(name: str, k: int, wanted: Wanted) -> None:
    require_drafted(name, 4, k, wanted)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("name", ["the same model", "now right, now wrong"])
def test_the_output_of_one_sequence_is_the_big_models(name: str, k: int, wanted: Wanted) -> None:
    require_drafted(name, 1, k, wanted)


def test_counts_of_a_round_by_hand() -> None:
    """The drafter is wrong about positions 10, 15, ..; the prompt is 6 tokens, the first new one at 6.

    Round 1 takes position 6 and drafts 7, 8, 9: all kept, and 10 is the verifier's own. Round 2 takes 10,
    whose draft of 11 is wrong; and so on.
    """
    right = decode_of(1, 0)

    def decode(tokens: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, chosen = right(tokens, at)
        return logits, np.where(at % 5 == 0, (chosen + 1) % VOCAB, chosen)

    found = speculate(drafter(decode, 1), side(1), PROMPTS[1], 11, 3)
    assert [one.drafted for one in found.rounds] == [(3,), (3,), (3,), (0,)]
    assert [one.emitted for one in found.rounds] == [(4,), (1,), (4,), (1,)]
    assert (found.drafted, found.accepted, found.acceptance_rate) == (9, 6, 6 / 7)
    assert (found.verify_steps, found.draft_steps, found.prompt_steps) == (4, 16, 6)
    assert found.tokens_per_verify == 10 / 4
    assert found.verified == (6,)


def test_a_broken_verifier_is_noticed(wanted: Wanted) -> None:
    """So the equality above can fail."""

    class Broken:
        batch, vocab, context = 1, VOCAB, CONTEXT
        prefill = side(1).prefill

        def rows(self, tokens: Any, positions: Any) -> Any:
            logits, chosen = side(1).rows(tokens, positions)
            return logits, tokens + 0 * chosen

    found = speculate(drafter(mixing(1), 1), Broken(), PROMPTS[1], COUNT, 1)
    with pytest.raises(AssertionError):
        require_greedy(found, wanted[1])


@pytest.mark.parametrize("k", [2, 4])
def test_three_turns_go_on_from_the_kv_of_the_turns_before(k: int) -> None:
    """Of four sequences; the reference takes each whole conversation from scratch."""
    prompts, held = PROMPTS[4], Held()
    for turn in range(3):
        found = speculate(drafter(mixing(4), 4), side(4), prompts, 5, k, held=held)
        require_greedy(found, greedy(prompts, 5, 4))
        if turn:
            assert found.verified == (4, 4, 4, 4)
            assert found.prompt_steps == 4
        held = found.held
        said = zip(prompts, found.tokens, strict=True)
        prompts = [[*prompt, *tokens, *ids(3, 10 * turn + i)] for i, (prompt, tokens) in enumerate(said)]


def test_a_turn_that_changes_what_was_said_begins_where_it_differs() -> None:
    first = speculate(drafter(mixing(1), 1), side(1), [ids(12)], 4, 3)
    changed = [*ids(12)[:7], (ids(12)[7] + 1) % VOCAB, *ids(12)[8:]]
    second = speculate(drafter(mixing(1), 1), side(1), [changed], 4, 3, held=first.held)
    assert (second.verified, second.prompt_steps) == ((5,), 5)
    require_greedy(second, greedy([changed], 4, 1))


@pytest.mark.parametrize(("prompt", "count"), [(CONTEXT - 4, 5), (CONTEXT, 1), (1, CONTEXT)])
def test_the_context_may_be_filled_to_its_last_position(prompt: int, count: int) -> None:
    """Drafts beyond it are neither taken nor wanted, whatever k is."""
    prompts = [ids(prompt), ids(1, 1), ids(prompt, 2)]
    found = speculate(drafter(mixing(4), 4), side(4), prompts, count, 4)
    require_greedy(found, greedy(prompts, count, 4))


def test_a_drafter_takes_long_prompts_in_chunks() -> None:
    gpu, sizes = side(4, "fp16", 0, 1), []

    def take(tokens: np.ndarray, at: np.ndarray, sequence: int) -> tuple[np.ndarray, np.ndarray]:
        sizes.append((sequence, int(at[0]), len(tokens)))
        return gpu.prefill(sequence, tokens, int(at[0]))

    small = drafter(gpu.decode, 4, prefill=Prefill(5, take))
    found = speculate(small, side(4), PROMPTS[4], COUNT, 3)
    require_greedy(found, greedy(PROMPTS[4], COUNT, 4))
    assert sizes == [(0, 0, 5), (0, 1, 5), (2, 0, 5), (2, 5, 5), (2, 6, 5)]
    assert (found.prompt_chunks, found.prompt_steps, found.acceptance_rate) == (5, 3, 1.0)
    longer = [[*PROMPTS[4][2], *found.tokens[2]]]
    sizes.clear()
    held = Held((found.held.draft[2],), ())  # the verifier begins anew, the drafter in another sequence's KV
    gpu.put_kv(0, 0, *gpu.kv(2, 0, CONTEXT))
    again = speculate(small, side(4), longer, 3, 3, held=held)
    require_greedy(again, greedy(longer, 3, 4))
    assert (sizes, again.verified, again.acceptance_rate) == ([(0, 17, 5)], (22,), 1.0)


def test_a_compiled_program_drafts_and_its_bits_make_every_draft_right() -> None:
    """The scheduled program of the big model itself, on two chips, with KV in their SRAM."""
    compiled = api.compile(little, rack="pair", batch=2, context=[CONTEXT])
    machine = machine_of(compiled.program, compiled.model)
    prompts = [ids(6), ids(3, 1)]
    found = speculate(drafter(restart(machine), 2), side(4), prompts, 7, 2)
    require_greedy(found, greedy(prompts, 7, 4))
    assert (found.acceptance_rate, found.verify_steps, found.draft_steps) == (1.0, 2, 6)


def test_what_does_not_go_together_is_refused_with_both_numbers() -> None:
    decode = decode_of(1, 0)
    other = Drafter(decode=decode, batch=1, vocab=60, context=CONTEXT)
    with pytest.raises(FileError, match=r"drafter has a vocabulary of 60 tokens, the big model one of 61\."):
        speculate(other, side(1), [ids(3)], 2, 1)
    short = Drafter(decode=decode, batch=1, vocab=VOCAB, context=6)
    with pytest.raises(FileError, match="5 prompt tokens and 3 new ones need a context of 7, compiled is 6"):
        speculate(short, side(1), [ids(5)], 3, 1)
    with pytest.raises(FileError, match="2 prompts, the program has a batch of 1"):
        speculate(drafter(decode, 1), side(1), [ids(3), ids(4)], 2, 1)
    with pytest.raises(FileError, match="0 drafts per round"):
        speculate(drafter(decode, 1), side(1), [ids(3)], 2, 0)
