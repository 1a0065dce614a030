from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from small_sides import ids, opened, side

from lpu.decode.prefixes.binding import binding_of
from lpu.decode.prefixes.cache import Binding, Layout, PrefixCache
from lpu.inputs.document import FileError

BINDING = Binding(
    weights="w", tokenizer="t", positions="p", arithmetic="a", kv="fp16",
    layout=Layout(layers=2, kv_heads=1, head_dim=4),
)  # fmt: skip
BLOCK = 16
BLOCK_BYTES = 2 * 2 * BLOCK * 4 * 2  # keys and values, layers, tokens, lanes, bytes


def kv_of(tokens: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Made-up KV that depends on each token and all before it, as real KV does."""
    sums = np.cumsum(np.array(tokens, np.float64) * np.arange(1, len(tokens) + 1)) % 1000
    k = np.broadcast_to(sums.astype(np.float16)[None, :, None, None], (2, len(tokens), 1, 4)).copy()
    return k, (-k).astype(np.float16)


def holding(*prompts: list[int], capacity_bytes: int | None = None) -> PrefixCache:
    cache = PrefixCache(BINDING, BLOCK, capacity_bytes)
    for prompt in prompts:
        cache.store(prompt, *kv_of(prompt))
    return cache


def test_what_was_stored_comes_back_to_the_byte() -> None:
    prompt = ids(70)
    hit = holding(prompt).match(prompt)
    assert hit.tokens == 64
    for ours, theirs in zip((hit.k, hit.v), kv_of(prompt), strict=True):
        assert ours.dtype == np.float16
        assert ours.tobytes() == theirs[:, :64].tobytes()


@pytest.mark.parametrize("place", [0, 15, 16, 40, 63])
def test_a_changed_token_invalidates_its_block_and_every_later_one(place: int) -> None:
    prompt = ids(70)
    changed = [*prompt[:place], prompt[place] + 1, *prompt[place + 1 :]]
    assert holding(prompt).match(changed).tokens == place // BLOCK * BLOCK


def test_a_varying_header_hides_a_stable_body_and_stripping_it_does_not() -> None:
    """The preamble case of Dynamo, as far as it needs no clock. Source: facts/afd.md section 5.2."""
    body = ids(205, 1)
    cache = PrefixCache(BINDING, BLOCK)
    for turn, header in enumerate(([7, 1], [7, 2], [7, 3])):
        prompt = [*header, *body]
        assert cache.match(prompt).tokens == 0
        assert cache.store(prompt, *kv_of(prompt)) == 12, turn
    assert cache.match(body).tokens == 0
    cache.store(body, *kv_of(body))
    assert cache.match(body).tokens == 205 // BLOCK * BLOCK == 192  # all but the last, partial block


def test_a_whole_prompt_is_never_a_hit() -> None:
    """One token must remain to be computed: its logits choose the next."""
    cache = holding(ids(64))
    assert cache.match(ids(64)).tokens == 48
    assert cache.match([*ids(64), 5]).tokens == 64
    assert cache.match(ids(64)[:16]).tokens == 0
    assert cache.match(ids(64)[:17]).tokens == 16
    assert cache.match([]).tokens == 0
    assert cache.match([]).k.shape == (2, 0, 1, 4)


def test_only_whole_blocks_are_held_and_each_once() -> None:
    cache = PrefixCache(BINDING, BLOCK)
    first, second = ids(40), [*ids(32), *ids(40, 5)]
    assert [cache.store(one, *kv_of(one)) for one in (first, second, first)] == [2, 2, 0]
    assert (len(cache), cache.nbytes) == (4, 4 * BLOCK_BYTES)
    assert cache.store([1, 2], *kv_of([1, 2])) == 0


def test_the_cache_keeps_bytes_and_not_the_callers_array() -> None:
    prompt, cache = ids(32), PrefixCache(BINDING, BLOCK)
    k, v = kv_of(prompt)
    cache.store(prompt, k, v)
    want = k.tobytes()
    k[:] = 0
    assert cache.match([*prompt, 1]).k.tobytes() == want


def test_the_least_recently_used_go_first_and_never_the_middle_of_a_prompt() -> None:
    a, b, c = ids(48, 1), ids(48, 2), ids(32, 3)
    cache = holding(a, b, capacity_bytes=6 * BLOCK_BYTES)
    cache.match([*a, 0])  # b is the older one now
    cache.store(c, *kv_of(c))
    assert [cache.match([*one, 0]).tokens for one in (a, b, c)] == [48, 16, 32]
    assert cache.nbytes == 6 * BLOCK_BYTES


def test_of_a_prompt_over_the_capacity_the_beginning_stays() -> None:
    cache = holding(ids(16, 4), ids(80), capacity_bytes=3 * BLOCK_BYTES + 5)
    assert cache.match(ids(80)).tokens == 48
    assert cache.match([*ids(16, 4), 0]).tokens == 0
    assert len(holding(ids(80), capacity_bytes=0)) == 0


def test_every_block_that_is_held_can_be_reached() -> None:
    """After any mix of stores and matches over the capacity."""
    rng, cache = np.random.default_rng(0), PrefixCache(BINDING, BLOCK, 9 * BLOCK_BYTES)
    prompts = [[*ids(32, i % 3), *ids(48, i)] for i in range(9)]
    for _ in range(200):
        prompt = prompts[rng.integers(9)][: rng.integers(1, 81)]
        if rng.integers(2):
            cache.store(prompt, *kv_of(prompt))
        else:
            cache.match(prompt)
        keys = {block.key for block in cache.blocks()}
        assert all(block.before in keys | {BINDING.digest()} for block in cache.blocks())
        assert cache.nbytes == len(cache) * BLOCK_BYTES <= 9 * BLOCK_BYTES


def test_keys_depend_on_the_binding() -> None:
    one, other = holding(ids(40)), PrefixCache(replace(BINDING, weights="x"), BLOCK)
    other.store(ids(40), *kv_of(ids(40)))
    keys = [{block.key for block in cache.blocks()} for cache in (one, other)]
    assert not keys[0] & keys[1]


def test_other_bytes_under_a_known_key_are_refused() -> None:
    prompt = ids(40)
    cache, (k, v) = holding(prompt), kv_of(prompt)
    v[1, 20, 0, 2] += 1
    with pytest.raises(FileError, match="kv-cache: tokens 16 to 31 have other KV bytes than those cached"):
        cache.store(prompt, k, v)


def test_arrays_of_another_shape_or_format_are_refused_with_both() -> None:
    cache, (k, v) = PrefixCache(BINDING, BLOCK), kv_of(ids(40))
    with pytest.raises(ValueError, match=r"k is float16 \[2, 40, 1, 4\], .* \[2, 39, 1, 4\] for 39 tokens"):
        cache.store(ids(39), k, v)
    with pytest.raises(ValueError, match=r"v is uint8 .* the cache takes float16"):
        cache.store(ids(40), k, v.astype(np.uint8))
    with pytest.raises(FileError, match="blocks of 0 tokens"):
        PrefixCache(BINDING, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kv", ["fp16", "fp8"])
def test_a_prefill_from_cached_kv_has_the_logits_and_kv_of_one_from_scratch(kv: str) -> None:
    """Real math: three prompts with a common beginning, in a sequence with something else in its KV."""
    gpu = side(3, kv)
    cache = PrefixCache(binding_of(opened(3, kv)), 8)
    prompts = [ids(20), [*ids(20), *ids(9, 1)], [*ids(17), *ids(14, 2)]]
    for prompt, cached in zip(prompts, (0, 16, 16), strict=True):
        gpu.prefill(1, ids(40, 9))
        hit = cache.match(prompt)
        gpu.put_kv(1, 0, hit.k, hit.v)
        taken = gpu.prefill(1, prompt[hit.tokens :], hit.tokens)
        cache.store(prompt, *gpu.kv(1, 0, len(prompt)))
        whole = gpu.prefill(2, prompt)
        assert hit.tokens == cached
        assert taken.logits.tobytes() == whole.logits[cached:].tobytes()
        for ours, theirs in zip(gpu.kv(1, 0, len(prompt)), gpu.kv(2, 0, len(prompt)), strict=True):
            assert ours.tobytes() == theirs.tobytes()
    assert len(cache) == 2 + 1 + 1


def test_a_longer_prompt_hits_at_least_as_much() -> None:
    cache = holding(ids(100))
    found = [cache.match(ids(100)[:n]).tokens for n in range(1, 101)]
    assert all(one <= other for one, other in pairwise(found))
