"""States of fixed size in the prefix cache: kept behind a block, found again, saved, and gone on from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beside import made_up
from prefixes import BLOCK, binding
from small_sides import ids

from lpu.decode.prefixes.cache import Layout, PrefixCache
from lpu.decode.prefixes.folder import KeptCache
from lpu.decode.prefixes.states import state_of, with_state
from lpu.decode.prefixes.store import load, save
from lpu.inputs.document import FileError
from models.configs.hybrid import HybridConfig
from models.kv import KVCache, empty_cache
from models.step import family_step

LAYOUT = Layout(layers=1, kv_heads=1, head_dim=2, states=6)
KEPT = binding(kv="fp16", layout=LAYOUT)
HYBRID = HybridConfig(
    name="hybrid", family="hybrid", layers=2, hidden=32, heads=2, kv_heads=1, head_dim=8, ffn=1, vocab=64,
    tied=False, rope_theta=1e4, eps=1e-5, max_context=64, source="made up for tests", pattern=("M", "A"),
    channels=32, states=4, ssm_heads=4,
)  # fmt: skip


def bytes_of(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    k, v = rng.standard_normal((2, 1, count, 1, 2)).astype(np.float16)
    return k, v


def state(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(6).astype(np.float32)


def test_a_prefix_ends_at_the_last_boundary_whose_state_is_kept() -> None:
    prompt, cache = ids(4 * BLOCK), PrefixCache(KEPT, BLOCK)
    cache.store(prompt, *bytes_of(4 * BLOCK), {BLOCK: state(1), 3 * BLOCK: state(3)})
    hit = cache.match([*prompt, 1])
    assert hit.tokens == hit.k.shape[1] == 3 * BLOCK
    assert hit.state is not None
    assert hit.state.tobytes() == state(3).tobytes()
    changed = [*prompt]
    changed[2 * BLOCK + 1] += 1  # the state behind two blocks is not kept: one block is left
    assert cache.match(changed).tokens == BLOCK
    changed[3] += 1
    assert cache.match(changed)[::3] == (0, None)
    held = cache.nbytes
    assert cache.store(prompt, *bytes_of(4 * BLOCK), {2 * BLOCK: state(2)}) == 0
    assert cache.nbytes == held + state(2).nbytes
    assert cache.match(prompt[: 2 * BLOCK + 1]).tokens == 2 * BLOCK


def test_another_state_under_a_key_and_one_of_another_model_are_refused() -> None:
    prompt, cache = ids(BLOCK), PrefixCache(KEPT, BLOCK)
    cache.store(prompt, *bytes_of(BLOCK), {BLOCK: state(1)})
    with pytest.raises(FileError, match="have other KV bytes"):
        cache.store(prompt, *bytes_of(BLOCK), {BLOCK: state(2)})
    with pytest.raises(
        ValueError, match=r"the state behind 16 tokens is float32 \[5\], the cache takes .* \[6\]"
    ):
        cache.store(prompt, *bytes_of(BLOCK), {BLOCK: state(1)[:5]})
    assert KEPT.digest() != replace(KEPT, layout=replace(LAYOUT, states=7)).digest()
    assert "states" not in binding().fields()["layout"]  # caches of other models keep their keys


def test_saved_states_are_restored_to_the_byte_and_altered_ones_are_refused(tmp_path: Path) -> None:
    prompt, cache = ids(3 * BLOCK), PrefixCache(KEPT, BLOCK)
    cache.store(prompt, *bytes_of(3 * BLOCK), {2 * BLOCK: state(2)})
    save(tmp_path / "kv", cache)
    found = load(tmp_path / "kv", KEPT, BLOCK).match([*prompt, 1])
    assert (found.tokens, found.state is not None) == (2 * BLOCK, True)
    assert found.state is not None
    assert found.state.tobytes() == state(2).tobytes()
    with pytest.raises(FileError, match=r"layout is .*states 6, this run has"):
        load(tmp_path / "kv", replace(KEPT, layout=replace(LAYOUT, states=7)), BLOCK)


def test_blocks_in_files_of_their_own_have_their_states_after_a_restart(tmp_path: Path) -> None:
    """A block that gets states later is one file; of two, after a kill in between, the later one is kept."""
    prompt, folder = ids(3 * BLOCK), tmp_path / "kv"
    cache = KeptCache(folder, KEPT, BLOCK)
    cache.store(prompt, *bytes_of(3 * BLOCK), {2 * BLOCK: state(2)})
    before = sorted(folder.glob("*.kv"))
    old = {path: path.read_bytes() for path in before}
    cache.store(prompt, *bytes_of(3 * BLOCK), {3 * BLOCK: state(3)})
    assert (len(set(folder.glob("*.kv")) - set(before)), len([*folder.glob("*.kv")])) == (1, 3)
    cache.close()
    (gone,) = set(before) - set(folder.glob("*.kv"))
    gone.write_bytes(old[gone])
    again = KeptCache(folder, KEPT, BLOCK)
    hit = again.match([*prompt, 1])
    assert (hit.tokens, again.nbytes, again.damaged) == (3 * BLOCK, cache.nbytes, 0)
    assert hit.state is not None
    assert hit.state.tobytes() == state(3).tobytes()
    assert [one.tobytes() for one in hit[1:3]] == [one.tobytes() for one in bytes_of(3 * BLOCK)]
    again.close()
    assert not gone.exists()
    last = sorted(folder.glob("*.kv"))[-1]
    last.write_bytes(last.read_bytes()[:-4])  # a state that is not whole takes its block with it
    short = KeptCache(folder, KEPT, BLOCK)
    assert (short.match([*prompt, 1]).tokens, short.damaged) == (2 * BLOCK, 1)
    short.close()


def test_a_state_is_wanted_where_prompts_part() -> None:
    cache, prompt = PrefixCache(KEPT, BLOCK), ids(4 * BLOCK + 2)
    assert cache.edges(prompt) == (4 * BLOCK,)
    cache.store(prompt, *bytes_of(len(prompt)), {4 * BLOCK: state(4)})
    other = [*prompt[: 2 * BLOCK + 1], *ids(2 * BLOCK, 7)]
    assert (cache.known(other), cache.edges(other)) == (0, (2 * BLOCK, 4 * BLOCK))
    assert PrefixCache(binding(), BLOCK).edges(prompt) == ()


@pytest.mark.slow
def test_a_prompt_goes_on_from_a_kept_state_with_the_bits_of_one_from_scratch() -> None:
    """Real math: chunks of 8 tokens, a second prompt that has the first 16 of the first in common."""
    step = family_step(HYBRID, batch=1, context=32, chunk=8)
    run, params = jax.jit(step.fn), {name: jnp.asarray(one) for name, one in made_up(step).items()}
    params |= {name: jnp.asarray(value) for name, value in step.constants.items()}

    def taken(cache: KVCache, tokens: list[int], first: int) -> tuple[Any, KVCache]:
        at = jnp.arange(first, first + 8, dtype=jnp.int32)
        logits, _, cache = run(params, jnp.asarray(tokens[first : first + 8], jnp.int32), at, cache)
        return np.asarray(logits), cache

    one, other = [token % 64 for token in ids(24)], [token % 64 for token in [*ids(16), *ids(8, 1)]]
    cache, kept = empty_cache(step.cache), {}
    for first in (0, 8, 16):
        _, cache = taken(cache, one, first)
        kept[first + 8] = state_of(cache, 0)
    layout = Layout(layers=1, kv_heads=1, head_dim=8, states=kept[8].size)
    store = PrefixCache(binding(kv="fp16", layout=layout), 8)
    k, v = (np.stack([np.asarray(leaf)[0] for leaf in side])[:, :24] for side in cache[:2])
    store.store(one, k, v, kept)
    hit = store.match(other)
    assert hit.tokens == 16
    assert hit.state is not None
    fresh = with_state(empty_cache(step.cache), 0, hit.state)
    sides = [
        tuple(leaf.at[0, :16].set(part) for leaf, part in zip(held, new, strict=True))
        for held, new in ((fresh.k, hit.k), (fresh.v, hit.v))
    ]
    logits, resumed = taken(fresh._replace(k=sides[0], v=sides[1]), other, 16)
    whole = empty_cache(step.cache)
    for first in (0, 8, 16):
        wanted, whole = taken(whole, other, first)
    assert logits.tobytes() == wanted.tobytes()
    assert state_of(resumed, 0).tobytes() == state_of(whole, 0).tobytes()
    with pytest.raises(ValueError, match="the state has 3 numbers, the model keeps"):
        with_state(whole, 0, np.zeros(3, np.float32))
