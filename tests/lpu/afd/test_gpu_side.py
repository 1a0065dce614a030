import numpy as np
import pytest
from slow import slow_but
from small_sides import CONTEXT, VOCAB, greedy, ids, side

from lpu.decode.generate import generate
from lpu.run.error import MachineError

TOKENS = 21


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "kv"), slow_but([(3, "fp8")], [(1, "fp16"), (1, "fp8"), (3, "fp16"), (3, "fp8")])
)
def test_chunks_single_steps_and_rows_have_the_bits_of_the_reference(batch: int, kv: str) -> None:
    """Of 21 tokens 11 are prefilled in chunks of 8, then come 2 single steps and two steps of 4 rows."""
    lines = [ids(TOKENS, seed) for seed in range(batch)]
    want = np.stack([one.logits[0] for one in greedy(lines, 1, kv)])
    gpu, table = side(batch, kv), np.array(lines, np.int32)
    prefilled = [gpu.prefill(i, line[:11]) for i, line in enumerate(lines)]
    for at in (11, 12):
        done = gpu.decode(table[:, at], np.full(batch, at))
        assert done.chosen.tolist() == want[:, at].argmax(axis=-1).tolist()
        assert done.logits.tobytes() == want[:, at].tobytes()
    for first in (13, 17):
        span = np.tile(np.arange(first, first + 4), (batch, 1))
        done = gpu.rows(table[:, first : first + 4], span)
        assert done.logits.tobytes() == want[:, first : first + 4].tobytes()
        assert done.chosen.tolist() == want[:, first : first + 4].argmax(axis=-1).tolist()
    for done, logits in zip(prefilled, want[:, :11], strict=True):
        assert done.logits.tobytes() == logits.tobytes()
        assert done.chosen.tolist() == logits.argmax(axis=-1).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, CONTEXT])
def test_prompts_of_any_length_leave_the_same_kv_and_no_more(count: int) -> None:
    """Shorter than a chunk, equal to it, and as long as the context; the reference is single steps."""
    line = ids(count)
    gpu = side()

    def clear() -> None:
        k, v = gpu.kv(0, 0, CONTEXT)
        gpu.put_kv(0, 0, np.zeros_like(k), np.zeros_like(v))

    clear()
    logits, chunked = gpu.prefill(0, line).logits, gpu.kv(0, 0, CONTEXT)
    clear()
    for at, token in enumerate(line):
        done = gpu.decode(np.array([token]), np.array([at]))
        assert done.logits[0].tobytes() == logits[at].tobytes()
    for ours, theirs in zip(chunked, gpu.kv(0, 0, CONTEXT), strict=True):
        assert ours.shape == (2, CONTEXT, 2, 16)
        assert ours.tobytes() == theirs.tobytes()
        assert ours[:, :count].any(axis=(0, 2, 3)).all()
        assert not ours[:, count:].any()


def test_a_sequence_is_prefilled_without_touching_its_neighbours() -> None:
    gpu = side(3)
    for i in (0, 2):
        gpu.prefill(i, ids(9, i))
    before = [gpu.kv(i, 0, 9) for i in (0, 2)]
    gpu.prefill(1, ids(12, 1))
    for (k, v), i in zip(before, (0, 2), strict=True):
        assert [k.tobytes(), v.tobytes()] == [one.tobytes() for one in gpu.kv(i, 0, 9)]


@pytest.mark.parametrize("kv", ["fp16", "fp8"])
def test_a_prefill_that_starts_from_moved_kv_has_the_bits_of_one_from_scratch(kv: str) -> None:
    line, gpu = ids(20), side(3, kv)
    whole = gpu.prefill(2, line)
    gpu.prefill(0, ids(20, 9))
    gpu.put_kv(0, 0, *gpu.kv(2, 0, 13))
    rest = gpu.prefill(0, line[13:], 13)
    assert rest.logits.tobytes() == whole.logits[13:].tobytes()
    for ours, theirs in zip(gpu.kv(0, 0, 20), gpu.kv(2, 0, 20), strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_kv_of_other_bits_changes_the_logits() -> None:
    """So the equality above can fail."""
    line, gpu = ids(20), side()
    whole = gpu.prefill(0, line).logits
    k, v = gpu.kv(0, 0, 13)
    v = v.copy()
    v[0, 5, 1, 3] += np.float16(0.5)
    gpu.put_kv(0, 0, k, v)
    assert gpu.prefill(0, line[13:], 13).logits.tobytes() != whole[13:].tobytes()


@pytest.mark.slow
def test_a_greedy_decode_is_that_of_the_reference() -> None:
    gpu = side(3)
    prompts = [ids(5), ids(2, 1), ids(9, 2)]
    found = generate(gpu.decode, prompts, 6, 3)
    for want, tokens, logits in zip(greedy(prompts, 6), found.tokens, found.logits, strict=True):
        assert tokens == want.tokens[0]
        assert logits.tobytes() == want.logits[0].tobytes()


def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    gpu = side()
    with pytest.raises(MachineError, match=f"position 40..50 is outside 0..{CONTEXT - 1}"):
        gpu.prefill(0, ids(11), 40)
    with pytest.raises(MachineError, match=f"token 61..61 is outside 0..{VOCAB - 1}"):
        gpu.decode(np.array([VOCAB]), np.array([0]))
    with pytest.raises(ValueError, match="prefill: no tokens"):
        gpu.prefill(0, [])
    with pytest.raises(ValueError, match=r"sequence 1 is outside 0\.\.0"):
        gpu.kv(1, 0, 4)
    with pytest.raises(ValueError, match="positions 4 to 50 are outside the context, 0 to 48"):
        gpu.kv(0, 4, 50)
    k, v = gpu.kv(0, 0, 4)
    with pytest.raises(
        ValueError, match=r"k is float16 \[1, 4, 2, 16\], the cache takes float16 \[2, 4, 2, 16\]"
    ):
        gpu.put_kv(0, 0, k[:1], v[:1])
    with pytest.raises(ValueError, match=r"v is float32 \[2, 4"):
        gpu.put_kv(0, 0, k, v.astype(np.float32))


def test_two_sides_share_what_is_compiled_and_no_kv() -> None:
    one, line = side(), ids(9)
    other = one.beside()
    before = [part.tobytes() for part in one.kv(0, 0, CONTEXT)]
    found = other.prefill(0, line)
    assert [part.tobytes() for part in one.kv(0, 0, CONTEXT)] == before
    assert found.logits.tobytes() == one.prefill(0, line).logits.tobytes()
    for here, there in zip(one.kv(0, 0, 9), other.kv(0, 0, 9), strict=True):
        assert here.tobytes() == there.tobytes()
    assert not any(part.any() for part in other.kv(0, 9, CONTEXT))
