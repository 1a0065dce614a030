"""Parts of a matmul and blocks of attention, however chips share them."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_forms.form import cases
from hypothesis import given
from hypothesis import strategies as st

from models.contract import block_attention as blocks
from models.contract import deferral, parts
from models.contract.block_attention import Node
from models.contract.formats import F64, NumericsError, add32, decode_e4m3, odd64, pow2, rn32
from models.contract.numerics import wide
from models.contract.tree import nodes, tree

Merge = Callable[[Node, Node], Node]
CASES = cases()
PARTS2 = CASES["parts2"]  # 16 parts


def bits(x: jax.Array) -> bytes:
    return np.asarray(x).tobytes()


def shares(count: int, chips: int) -> list[tuple[int, int]]:
    return [(chip * count // chips, (chip + 1) * count // chips) for chip in range(chips)]


def from_nodes(count: int, sent: dict[tuple[int, int], np.ndarray]) -> np.ndarray:
    """The root in numpy, from words that chips sent: a node that nobody sent is the sum of its halves."""

    def node(first: int, size: int) -> np.ndarray:
        if (found := sent.get((first, min(first + size, count)))) is not None:
            return found
        half = size // 2
        left = node(first, half)
        return left + node(first + half, half) if first + half < count else left

    return node(0, 1 << (count - 1).bit_length())


@pytest.mark.parametrize("tp", range(1, 17))
def test_chips_that_own_whole_parts_send_nodes_and_keep_the_bits(tp: int) -> None:
    leaf = PARTS2["leaf"]
    sent = {
        (i, j): from_nodes(j - i, {(n, n + 1): leaf[i + n] for n in range(j - i)})
        for share in shares(len(leaf), tp)
        for i, j in nodes(*share, len(leaf))
    }
    assert from_nodes(len(leaf), sent).tobytes() == PARTS2["y"].tobytes()


def test_words_a_lane_are_those_of_the_document() -> None:
    words = {tp: max(len(nodes(*share, 16)) for share in shares(16, tp)) for tp in (1, 2, 4, 8, 16, 12, 5, 3)}
    assert words == {1: 1, 2: 1, 4: 1, 8: 1, 16: 1, 12: 1, 5: 2, 3: 3}


@given(st.integers(1, 40), st.data())
def test_nodes_cover_their_leaves_in_order_and_are_subtrees(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, count))
    end = data.draw(st.integers(first, count))
    found = nodes(first, end, count)
    assert [leaf for node in found for leaf in range(*node)] == list(range(first, end))
    assert len(found) <= 2 * count.bit_length()
    levels = range(count.bit_length() + 1)
    every = {(i, min(i + (1 << m), count)) for m in levels for i in range(0, count, 1 << m)}
    owned = {(i, j) for i, j in every if first <= i and j <= end}
    inside = {(i, j): [(a, b) for a, b in owned if a <= i and j <= b] for i, j in owned}
    assert set(found) == {node for node, around in inside.items() if around == [node]}


def test_a_tree_of_any_number_of_leaves_is_that_of_its_nodes() -> None:
    leaves = np.random.default_rng(0).standard_normal((11, 3)).astype(np.float32)
    want = np.asarray(jax.jit(lambda x: tree(x, add32))(leaves))
    assert from_nodes(11, {(i, i + 1): leaves[i] for i in range(11)}).tobytes() == want.tobytes()
    sizes = [8, 2, 1]
    cuts = [(0, 8), (8, 10), (10, 11)]
    owned = [
        jnp.asarray(from_nodes(j - i, {(n, n + 1): leaves[i + n] for n in range(j - i)})) for i, j in cuts
    ]
    assert bits(parts.tree32([jnp.asarray(node) for node in owned], sizes)) == want.tobytes()
    with pytest.raises(ValueError, match=r"\[7, 4\] leaves are no nodes of a tree of 11"):
        parts.tree32([jnp.asarray(node) for node in owned[:2]], [7, 4])


@pytest.mark.parametrize("cut", [1, 7, 31])
def test_a_cut_inside_a_part_keeps_the_bits_as_wide_pairs(cut: int) -> None:
    a, w, scale = jnp.asarray(PARTS2["a"]), jnp.asarray(PARTS2["w"]), pow2(jnp.asarray(PARTS2["e"]))
    one, two = wide(a[:, :cut], w[:cut]), wide(a[:, cut:32], w[cut:32])
    joined = rn32(odd64(one.high + two.high, one.low + two.low) * scale)
    assert bits(joined) == PARTS2["leaf"][0].tobytes()


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    a, w, scale = jnp.asarray(PARTS2["a"]), jnp.asarray(PARTS2["w"]), pow2(jnp.asarray(PARTS2["e"]))
    starts = tuple(PARTS2["starts"].tolist())
    product = jax.jit(lambda row: parts.product(row, w, scale, starts))
    alone = [product(a[row : row + 1]) for row in range(len(a))]
    assert np.concatenate(alone).tobytes() == PARTS2["y"].tobytes()


def test_parts_begin_where_the_rule_says() -> None:
    assert parts.starts_of(64 * 128, 128) == tuple(range(0, 8193, 512))
    assert parts.starts_of(72 * 64, 64) == tuple(p * 72 // 16 * 64 for p in range(17))  # of 4 or 5 heads
    assert parts.starts_of(3 * 512, 512) == (0, 512, 1536)
    assert parts.starts_of(96, 32) == ()


@pytest.mark.parametrize("starts", [[0, 5, 5, 8], [1, 8], [0, 7], [0]])
def test_parts_that_do_not_cover_k_are_refused(starts: list[int]) -> None:
    a, w = jnp.zeros((1, 8), jnp.float16), jnp.zeros((8, 1), jnp.uint8)
    with pytest.raises(ValueError, match=r"do not rise from 0 to K = 8"):
        parts.leaves(a, w, jnp.ones((1,)), starts)


@pytest.mark.parametrize("name", ["parts", "parts_tree"])
def test_sums_beyond_f32_are_refused(name: str) -> None:
    a, w, e, starts = (CASES["error"][f"{name}_{array}"] for array in ("a", "w", "e", "starts"))
    y = jax.jit(partial(parts.product, starts=tuple(starts.tolist())))(a, w, pow2(jnp.asarray(e)))
    with pytest.raises(NumericsError, match=r"o: 1 of 1 sums pass the largest f32"):
        parts.refuse_overflow("o", np.asarray(y))
    parts.refuse_overflow("o", PARTS2["y"])


def test_codes_that_are_no_number_are_refused() -> None:
    with pytest.raises(NumericsError, match=r"2 of 3 e4m3 codes"):
        parts.refuse_codes("o", np.array([0x7F, 0xFF, 0x7E], np.uint8))
    parts.refuse_codes("o", PARTS2["w"])


def test_clips_of_a_deferred_norm_are_counted_and_refused() -> None:
    case = CASES["defer3"]
    gain = jnp.asarray(case["g"]).astype(F64) * pow2(-jnp.asarray(case["k"]))
    count = int(deferral.clips(jnp.asarray(case["x"]), gain))
    assert count == int(case["clips"]) == 2
    with pytest.raises(NumericsError, match=r"layers.0: 2 values pass 65504 x 2\^0"):
        deferral.refuse_clips("layers.0", count, 0)
    deferral.refuse_clips("layers.0", 0, 0)


def test_the_default_exponent_lies_one_binade_above_the_largest_gain() -> None:
    gains = ([0.99, -0.1], [1.0, 0.5], [-3.9, 1.0], [0.0, 0.0])
    assert [int(deferral.shift(jnp.array(gain, jnp.float32))) for gain in gains] == [1, 2, 3, 1]


def leaves_of(name: str) -> Node:
    """The leaves of a case without a sink, one for each block."""
    case = CASES[name]
    block, tokens = int(case["bt"]), len(case["k"])
    pad = -tokens % block
    score = np.pad(case["s"], ((0, 0), (0, pad)))
    see = np.broadcast_to(np.arange(tokens + pad) <= case["pos"], score.shape)
    v = np.pad(case["v"], ((0, pad), (0, 0))).reshape(-1, block, case["v"].shape[1])
    score, see = (np.moveaxis(part.reshape(len(part), -1, block), 1, 0) for part in (score, see))
    p = blocks.weight_bits(block)
    return jax.jit(lambda s, see, v: blocks.leaf(blocks.exponents(s), see, v, p))(score, see, v)


def test_a_context_over_chips_gives_the_bits_of_one() -> None:
    leaves = leaves_of("attn6")
    count = len(leaves.l)
    over = jax.jit(lambda part: tree(part, blocks.merge))
    whole = over(leaves)
    assert bits(blocks.quotient(whole)) == CASES["attn6"]["block_f"].tobytes()
    padded = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), leaves, blocks.absent(whole))
    assert all(map(np.array_equal, over(padded), whole))
    merge = jax.jit(blocks.merge)
    for chips in (2, 3, 5):
        sent = {
            (i, j): over(jax.tree.map(lambda x, i=i, j=j: x[i:j], leaves))
            for share in shares(count, chips)
            for i, j in nodes(*share, count)
        }
        assert all(map(np.array_equal, merged(sent, 0, 1 << (count - 1).bit_length(), count, merge), whole))


def merged(sent: dict[tuple[int, int], Node], first: int, size: int, count: int, merge: Merge) -> Node:
    if (found := sent.get((first, min(first + size, count)))) is not None:
        return found
    half = size // 2
    left = merged(sent, first, half, count, merge)
    return merge(left, merged(sent, first + half, half, count, merge)) if first + half < count else left


def test_tokens_of_a_block_may_come_in_any_order_and_in_shares() -> None:
    case = CASES["attn4"]
    p, order = blocks.weight_bits(48), np.random.default_rng(0).permutation(48)
    s, v = jnp.asarray(case["s"]), jnp.asarray(case["v"])

    @jax.jit
    def leaf(s: jax.Array, v: jax.Array) -> Node:
        return blocks.leaf(blocks.exponents(s), jnp.ones(s.shape, bool), v, p)

    @jax.jit
    def share(s: jax.Array, v: jax.Array, a: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        w = blocks.weights(blocks.exponents(s), jnp.ones(s.shape, bool), a, p)
        return jnp.sum(w, axis=-1), blocks.weighted(w, v)

    whole = leaf(s, v)
    assert all(map(np.array_equal, leaf(s[:, order], v[order]), whole))
    halves = (order[:24], order[24:])
    a = np.maximum(*(np.asarray(leaf(s[:, half], v[half]).a) for half in halves))
    (one, (high, low)), (two, (other_high, other_low)) = (
        share(s[:, half], v[half], jnp.asarray(a)) for half in halves
    )
    assert np.array_equal((one + two) * 2.0**-p, whole.l)
    assert np.array_equal(rn32(odd64(high + other_high, low + other_low) * 2.0**-p), whole.o)


def test_e4m3_keys_and_values_weigh_as_their_values_do() -> None:
    rng = np.random.default_rng(1)
    codes = jnp.asarray(rng.integers(0, 0x60, (2, 24, 16), dtype=np.uint8))
    q = jnp.asarray(rng.standard_normal((3, 16)).astype(np.float16))

    @jax.jit
    def attended(k: jax.Array, v: jax.Array) -> Node:
        score = blocks.scores(q, k, 0.25)
        return blocks.attend(score, jnp.ones(score.shape, bool), v, block=16)

    halves = decode_e4m3(codes).astype(jnp.float16)
    assert all(map(np.array_equal, attended(*codes), attended(*halves)))


def test_a_score_without_a_weight_and_a_query_that_sees_nothing_are_refused() -> None:
    case = CASES["error"]
    q, k = (jnp.asarray(case[f"score_{name}"]) for name in "qk")
    score = np.asarray(jax.jit(blocks.scores)(q, k, float(case["score_sigma"])))
    with pytest.raises(NumericsError, match=r"attention: \d scores are beyond"):
        blocks.refuse_scores(score, np.ones(score.shape, bool))
    fine = CASES["attn0"]["s"]
    blocks.refuse_scores(fine, np.ones(fine.shape, bool))
    with pytest.raises(NumericsError, match=r"attention: 2 queries see no token"):
        blocks.refuse_scores(fine, np.zeros(fine.shape, bool))
