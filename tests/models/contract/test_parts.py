"""Parts of a matmul and blocks of attention, however chips share them."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_forms.form import cases
from hypothesis import given
from hypothesis import strategies as st

from models.contract import block_attention as blocks
from models.contract import deferred, parts
from models.contract.block_attention import Attended
from models.contract.formats import NumericsError, Wide, add32, decode_e4m3, pow2
from models.contract.numerics import wide
from models.contract.tree import nodes, tree, tree32

CASES = cases()
PARTS2 = CASES["parts2"]  # 16 parts


def bits(x: jax.Array) -> bytes:
    return np.asarray(x).tobytes()


def shares(count: int, chips: int) -> list[tuple[int, int]]:
    return [(chip * count // chips, (chip + 1) * count // chips) for chip in range(chips)]


def from_nodes(count: int, sent: dict[tuple[int, int], jax.Array]) -> jax.Array:
    """The root, from words that chips sent: a node that nobody sent is the sum of its halves."""

    def node(first: int, size: int) -> jax.Array:
        if (found := sent.get((first, min(first + size, count)))) is not None:
            return found
        half = size // 2
        left = node(first, half)
        return add32(left, node(first + half, half)) if first + half < count else left

    return node(0, 1 << (count - 1).bit_length())


@pytest.mark.parametrize("tp", range(1, 17))
def test_chips_that_own_whole_parts_send_nodes_and_keep_the_bits(tp: int) -> None:
    leaf = jnp.asarray(PARTS2["leaf"])
    sent = {(i, j): tree32(leaf[i:j]) for share in shares(len(leaf), tp) for i, j in nodes(*share, len(leaf))}
    assert bits(from_nodes(len(leaf), sent)) == PARTS2["y"].tobytes()


def test_words_a_lane_are_those_of_the_document() -> None:
    words = {tp: max(len(nodes(*share, 16)) for share in shares(16, tp)) for tp in (1, 2, 4, 8, 16, 12, 5, 3)}
    assert words == {1: 1, 2: 1, 4: 1, 8: 1, 16: 1, 12: 1, 5: 2, 3: 3}


@pytest.mark.slow
@given(st.integers(1, 40), st.data())
def test_nodes_cover_their_leaves_in_order_and_are_subtrees(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, count))
    end = data.draw(st.integers(first, count))
    found = nodes(first, end, count)
    assert [leaf for node in found for leaf in range(*node)] == list(range(first, end))
    leaves = np.random.default_rng(0).standard_normal(count).astype(np.float32)
    sent = {node: tree32(jnp.asarray(leaves[slice(*node)])) for node in found}
    sent |= {(i, i + 1): jnp.asarray(leaves[i]) for i in range(count) if not first <= i < end}
    assert bits(from_nodes(count, sent)) == bits(tree32(jnp.asarray(leaves)))


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 7, 31])
def test_a_cut_inside_a_part_keeps_the_bits_as_wide_pairs(cut: int) -> None:
    a, w, scale = jnp.asarray(PARTS2["a"]), jnp.asarray(PARTS2["w"]), pow2(jnp.asarray(PARTS2["e"]))
    starts = PARTS2["starts"].tolist()
    found: list[jax.Array] = []
    for i, j in pairwise(starts):
        one, two = wide(a[:, i : i + cut], w[i : i + cut]), wide(a[:, i + cut : j], w[i + cut : j])
        found.append(parts.leaf(Wide(one.high + two.high, one.low + two.low), scale))
    assert bits(jnp.stack(found)) == PARTS2["leaf"].tobytes()


@pytest.mark.slow
def test_rows_of_a_batch_do_not_see_each_other() -> None:
    a, w, e = (jnp.asarray(PARTS2[name]) for name in "awe")
    starts = PARTS2["starts"].tolist()
    alone = [parts.matmul_parts(a[row : row + 1], w, e, starts) for row in range(len(a))]
    assert bits(jnp.concatenate(alone)) == PARTS2["y"].tobytes()


def test_parts_begin_where_the_rule_says() -> None:
    assert parts.part_starts(64, 128, 16) == tuple(range(0, 8193, 512))
    assert parts.part_starts(9, 64)[-1] == 9 * 64
    assert len(parts.part_starts(9, 64)) == 9  # 8 parts
    assert parts.part_starts(9, 64)[:3] == (0, 64, 128)
    assert parts.down_starts(28_672) == tuple(range(0, 28_673, 3584))
    assert parts.down_starts(704) == (0, 352, 704)  # two parts have 256 rows, three would not
    assert parts.down_starts(96) == ()
    assert parts.starts_of(8192, 128) == tuple(range(0, 8193, 1024))
    with pytest.raises(ValueError, match=r"0 units of 64 rows"):
        parts.part_starts(0, 64)


@pytest.mark.parametrize("starts", [[0, 5, 5, 8], [1, 8], [0, 7], [0]])
def test_parts_that_do_not_cover_k_are_refused(starts: list[int]) -> None:
    with pytest.raises(ValueError, match=r"do not rise from 0 to K = 8"):
        parts.check_starts(starts, 8)


@pytest.mark.parametrize("name", ["parts", "parts_tree"])
def test_sums_beyond_f32_are_refused(name: str) -> None:
    case = {array: CASES["error"][f"{name}_{array}"] for array in ("a", "w", "e", "starts")}
    a, w, e = (jnp.asarray(case[array]) for array in "awe")
    y = parts.matmul_parts(a, w, e, case["starts"].tolist())
    with pytest.raises(NumericsError, match=r"o: 1 of 1 sums pass the largest f32"):
        parts.refuse_overflow("o", np.asarray(y))
    parts.refuse_overflow("o", PARTS2["y"])


def test_codes_that_are_no_number_are_refused() -> None:
    with pytest.raises(NumericsError, match=r"2 of 3 e4m3 codes"):
        parts.refuse_codes("o", np.array([0x7F, 0xFF, 0x7E], np.uint8))
    parts.refuse_codes("o", PARTS2["w"])


def test_clips_of_a_deferred_norm_are_counted_and_refused() -> None:
    case = CASES["defer3"]
    _, clips = deferred.before(jnp.asarray(case["x"]), jnp.asarray(case["g"]), int(case["k"]))
    assert int(clips) == int(case["clips"]) == 2
    with pytest.raises(NumericsError, match=r"layers.0: 2 values pass 65504 x 2\^0"):
        deferred.refuse_clips("layers.0", int(clips), 0)
    deferred.refuse_clips("layers.0", 0, 0)


def test_the_default_exponent_lies_one_binade_above_the_largest_gain() -> None:
    assert [deferred.default_exponent(np.array([g, -0.1], np.float32)) for g in (0.99, 1.0, 3.9)] == [1, 2, 3]


def attended(name: str) -> tuple[Attended, jax.Array, jax.Array, int]:
    """The leaves of a case without a sink, with scores and mask, and its block."""
    case = CASES[name]
    block, tokens = int(case["bt"]), len(case["k"])
    pad = -tokens % block
    score = jnp.pad(jnp.asarray(case["s"]), ((0, 0), (0, pad)))
    place = jnp.arange(tokens + pad, dtype=jnp.int32)
    see = jnp.broadcast_to(blocks.seen(jnp.asarray(case["pos"]), place), score.shape)
    v = jnp.pad(jnp.asarray(case["v"]), ((0, pad), (0, 0)))
    p = blocks.weight_bits(block)
    y = blocks.exponents(score)
    found = [
        blocks.leaf(y[:, i : i + block], see[:, i : i + block], v[i : i + block], p)
        for i in range(0, tokens + pad, block)
    ]
    return jax.tree.map(lambda *x: jnp.stack(x), *found), score, v, block


@pytest.mark.slow
@pytest.mark.parametrize("chips", [2, 3, 5, 9])
def test_a_context_over_chips_gives_the_bits_of_one(chips: int) -> None:
    leaves, *_ = attended("attn6")
    count = len(leaves.l)
    whole = blocks.root(leaves)
    assert bits(blocks.quotient(whole)) == CASES["attn6"]["block_f"].tobytes()
    padded = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), leaves, blocks.absent(whole))
    again = blocks.root(padded)
    assert all(map(np.array_equal, again, whole))
    sent = {
        node: tree(jax.tree.map(lambda x, node=node: x[slice(*node)], leaves), blocks.merge)
        for share in shares(count, chips)
        for node in nodes(*share, count)
    }

    def node(first: int, size: int) -> Attended:
        if (found := sent.get((first, min(first + size, count)))) is not None:
            return found
        left = node(first, size // 2)
        at = first + size // 2
        return blocks.merge(left, node(at, size // 2)) if at < count else left

    assert all(map(np.array_equal, node(0, 1 << (count - 1).bit_length()), whole))


@pytest.mark.slow
def test_tokens_of_a_block_may_come_in_any_order_and_in_shares() -> None:
    case = CASES["attn4"]
    p, order = blocks.weight_bits(48), np.random.default_rng(0).permutation(48)
    y, v = blocks.exponents(jnp.asarray(case["s"])), jnp.asarray(case["v"])
    see = jnp.ones(y.shape, bool)
    whole = blocks.leaf(y, see, v, p)
    mixed = blocks.leaf(y[:, order], see, v[order], p)
    assert all(map(np.array_equal, whole, mixed))
    a = jnp.maximum(*(blocks.leaf_exponent(y[:, part], see[:, part]) for part in (order[:20], order[20:])))
    shares = [blocks.weights(y[:, part], see[:, part], a, p) for part in (order[:20], order[20:])]
    sums = [blocks.weighted(w, v[part]) for w, part in zip(shares, (order[:20], order[20:]), strict=True)]
    assert np.array_equal(sum(jnp.sum(w, axis=-1) for w in shares) * 2.0**-p, whole.l)
    joined = parts.leaf(Wide(sums[0][0] + sums[1][0], sums[0][1] + sums[1][1]), pow2(jnp.asarray(-p)))
    assert np.array_equal(joined, whole.o)


@pytest.mark.slow
def test_e4m3_keys_and_values_weigh_as_their_values_do() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 0x60, (2, 24, 16), dtype=np.uint8)
    k, v = (decode_e4m3(jnp.asarray(part)).astype(jnp.float16) for part in codes)
    q = jnp.asarray(rng.standard_normal((3, 16)).astype(np.float16))
    want = blocks.scores(q, k, 0.25)
    got = blocks.scores(q, jnp.asarray(codes[0]), 0.25)
    assert bits(got) == bits(want)
    see = jnp.ones(got.shape, bool)
    one, two = (blocks.attend(got, see, part, block=16) for part in (v, jnp.asarray(codes[1])))
    assert all(map(np.array_equal, one, two))


@pytest.mark.slow
def test_a_score_without_a_weight_and_a_query_that_sees_nothing_are_refused() -> None:
    case = CASES["error"]
    score = np.asarray(
        blocks.scores(jnp.asarray(case["score_q"]), jnp.asarray(case["score_k"]), float(case["score_sigma"]))
    )
    see = np.ones(score.shape, bool)
    with pytest.raises(NumericsError, match=r"attention: \d scores are beyond"):
        blocks.refuse_scores(score, see)
    fine = CASES["attn0"]["s"]
    blocks.refuse_scores(fine, np.ones(fine.shape, bool))
    with pytest.raises(NumericsError, match=r"attention: 2 queries see no token"):
        blocks.refuse_scores(fine, np.zeros(fine.shape, bool))
