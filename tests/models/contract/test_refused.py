"""What the contract gives no value for: refused with a line that says what, how much and what helps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_forms.form import cases

from models.contract import dot16, rotary
from models.contract.experts import combine, route
from models.contract.experts.choose import largest
from models.contract.formats import NumericsError
from models.contract.functions import quadratic
from models.contract.norms.layer import Moments, layer_stat
from models.contract.recurrent.convolution import convolve
from models.contract.recurrent.state_space import gated_norm
from models.contract.scales import mxfp4
from models.contract.scales.block import matmul_blocks
from models.contract.scales.int4 import int4_leaves

ERROR = cases()["error"]
ONE = jnp.ones((1,), jnp.int64)


def test_a_combine_beyond_2_to_the_53_is_counted_and_refused() -> None:
    w, t = (jnp.asarray(ERROR[f"combine_{name}"]) for name in "wt")
    lanes = int(combine.overflows(w, t, int(ERROR["combine_F"])))
    assert lanes == 1
    with pytest.raises(
        NumericsError, match=r"layers.3: 1 lanes of the combine pass 2\^53 at 32 bits .* 2.09715e"
    ):
        combine.refuse_overflow("layers.3", lanes)
    combine.refuse_overflow("layers.3", 0)


@pytest.mark.parametrize(
    ("leaves", "value", "lanes"),
    [(1, 2.0**21, 0), (2, 2.0**20, 0), (2, 2.0**21, 2), (200, 2.0**23, 2), (1, 2.0**24, 2), (3, 2.0**120, 2)],
)
def test_sums_that_wrap_around_are_seen(leaves: int, value: float, lanes: int) -> None:
    """At 32 bits a term is legal below 2^24 and a sum up to 2^21; 2^31 would wrap an int64 around."""
    t = jnp.full((leaves, 2), value, jnp.float32)
    assert int(combine.overflows(jnp.ones((leaves,), jnp.float32), t)) == lanes


def test_a_scale_of_mxfp4_that_is_no_number_is_refused() -> None:
    with pytest.raises(NumericsError, match=r"experts: 1 of 1 MXFP4 scales are byte 255"):
        mxfp4.refuse_scales("experts", ERROR["mxfp4_scale"])
    mxfp4.refuse_scales("experts", np.array([[254]], np.uint8))


def test_weights_that_e4m3_does_not_hold_are_counted_and_refused_if_strict() -> None:
    nibbles = jnp.full((64, 1), 1, jnp.uint8)  # 0.5
    spreads = {14: 0, 15: 32}  # of the two blocks, in binades: 0.5 x 2^-9 is no multiple of 2^-9
    convert = jax.jit(mxfp4.from_mxfp4)
    for spread, changed in spreads.items():
        found = convert(nibbles, jnp.array([[127], [127 - spread]], jnp.uint8))
        assert (int(found.exponent[0]), int(found.changed)) == (-6, changed)
    with pytest.raises(NumericsError, match=r"experts: 32 of 64 MXFP4 weights .* more than 14 binades"):
        mxfp4.refuse_changes("experts", 32, 64)
    mxfp4.refuse_changes("experts", 0, 64)


def test_scores_that_sum_to_nothing_are_refused() -> None:
    s = jnp.zeros((2, 4), jnp.float32).at[0, 1].set(0.5)
    weights = np.asarray(route.score_route(s, jnp.zeros((4,), jnp.float32), 2, eps=0.0).weights)
    with pytest.raises(NumericsError, match=r"layers.3: 1 rows choose experts whose scores sum to 0"):
        route.refuse_weights("layers.3", weights)
    route.refuse_weights("layers.3", weights[:1])


def test_a_table_that_is_not_the_contracts_is_refused() -> None:
    wrong = quadratic.table("tanh").copy()
    wrong[2, 100] += 1
    with pytest.raises(NumericsError, match=r"tables: tanh has sha1 \w{40}, the contract's is 257d90a5"):
        quadratic.check("tanh", wrong)


def zeros(*shape: int) -> jnp.ndarray:
    return jnp.zeros(shape, jnp.float32)


def test_shapes_and_counts_that_do_not_fit_are_refused() -> None:
    a, w = jnp.zeros((1, 64), jnp.float16), jnp.zeros((64, 3), jnp.uint8)
    with pytest.raises(ValueError, match=r"top-k: 5 of 4 experts"):
        largest(zeros(1, 4), 5)
    for groups, keep, k in ((3, 1, 2), (8, 2, 2), (4, 5, 2), (4, 1, 3)):
        with pytest.raises(
            ValueError, match=rf"score route: {k} of 8 experts in {groups} groups, of which {keep}"
        ):
            route.score_route(zeros(1, 8), zeros(8), k, groups=groups, keep=keep)
    with pytest.raises(ValueError, match=r"block scales: are \(1, 1\), weights 64 x 3 .* need \(2, 2\)"):
        matmul_blocks(a, w, zeros(1, 1), 32, 2)
    with pytest.raises(ValueError, match=r"int4: scales are \(1, 3\), weights 64 x 3 need one per 32 rows"):
        int4_leaves(a, w.astype(jnp.int8), zeros(1, 3))
    with pytest.raises(ValueError, match=r"mxfp4: scales are \(1, 3\), weights 64 x 3 need one per 32 rows"):
        mxfp4.from_mxfp4(w, jnp.zeros((1, 3), jnp.uint8))
    with pytest.raises(ValueError, match=r"dot16: 8193 terms in a sum"):
        dot16.sums(jnp.zeros((1, 8193), jnp.float16), jnp.zeros((8193, 1), jnp.float16))
    with pytest.raises(ValueError, match=r"layer_norm: 1048577 lanes"):
        layer_stat(Moments(ONE, ONE), jnp.ones((1,), jnp.int32), 1048577, 1e-5)
    with pytest.raises(ValueError, match=r"conv1d: 3 taps, 3 kept inputs take 4"):
        convolve(zeros(1, 2), zeros(3, 2), zeros(2, 3), zeros(2))
    with pytest.raises(ValueError, match=r"gated norm: 3 groups do not divide 8 lanes"):
        gated_norm(zeros(1, 8), zeros(1, 8), zeros(8), eps=1e-5, groups=3)
    with pytest.raises(ValueError, match=r"rope: a share of 1.5 of the pairs"):
        rotary.proportional_speeds(64, 1e4, 1.5)
