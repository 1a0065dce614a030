from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.contract import block_attention as blocks
from models.contract import numerics, ops
from models.contract.formats import decode_e4m3
from models.contract.ops import OPS
from models.routing import Routing

FLOAT, HALF, INT, BYTE = jnp.float32, jnp.float16, jnp.int32, jnp.uint8


def zeros(dtype: Any, *shape: int) -> jax.Array:
    return jnp.zeros(shape, dtype)


CACHE = zeros(HALF, 2, 16, 2, 8)
OPERANDS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "embed": ((zeros(HALF, 10, 6), zeros(INT, 2)), {}),
    "matmul": ((zeros(HALF, 2, 6), zeros(BYTE, 6, 5), zeros(INT, 5)), {}),
    "matmul_scaled": ((zeros(HALF, 2, 6), zeros(BYTE, 6, 5), zeros(FLOAT, 5)), {}),
    "rms_norm": ((zeros(FLOAT, 2, 4, 6), zeros(FLOAT, 6)), {"eps": 1e-5}),
    "rms_norm32": ((zeros(FLOAT, 2, 6), zeros(FLOAT, 6)), {"eps": 1e-5}),
    "layer_norm32": ((zeros(FLOAT, 2, 6), zeros(FLOAT, 6), zeros(FLOAT, 6)), {"eps": 1e-5}),
    "prescale": ((zeros(FLOAT, 2, 6), zeros(FLOAT, 6)), {}),
    "rms_stat": ((zeros(FLOAT, 2, 6), zeros(FLOAT, 6)), {"eps": 1e-5}),
    "rope": ((zeros(FLOAT, 2, 4, 8), zeros(INT, 16, 2, 4), zeros(INT, 2)), {}),
    "round16": ((zeros(FLOAT, 2, 4),), {}),
    "round8": ((zeros(HALF, 2, 4),), {}),
    "attention": (
        (zeros(HALF, 2, 4, 8), zeros(HALF, 2, 2, 8), zeros(HALF, 2, 2, 8), CACHE, CACHE, zeros(INT, 2)),
        {"block": 4},
    ),
    "head_matmul": ((zeros(HALF, 2, 4, 6), zeros(BYTE, 24, 5), zeros(INT, 20)), {}),
    "latent_attention": (
        (
            *(zeros(HALF, 2, 4, 8), zeros(HALF, 2, 4, 6), zeros(HALF, 2, 1, 6), zeros(HALF, 2, 1, 8)),
            *(zeros(HALF, 2, 16, 1, 6), zeros(HALF, 2, 16, 1, 8), zeros(INT, 2)),
        ),
        {"sigma": 0.25, "block": 4},
    ),
    "glu": ((zeros(FLOAT, 2, 6), zeros(FLOAT, 2, 6)), {"activation": "gelu"}),
    "add": ((zeros(FLOAT, 2, 6), zeros(FLOAT, 2, 6)), {}),
    "multiply": ((zeros(FLOAT, 2, 6),), {"factor": 0.5}),
    "multiply_add": ((zeros(FLOAT, 2, 6), zeros(FLOAT, 2, 6)), {"factor": 0.5}),
    "multiply_lanes": ((zeros(FLOAT, 2, 6), zeros(FLOAT, 6)), {}),
    "bias": ((zeros(FLOAT, 2, 6), zeros(FLOAT, 6)), {}),
    "softcap": ((zeros(FLOAT, 2, 6),), {"cap": 30.0}),
    "argmax": ((zeros(FLOAT, 2, 9),), {}),
    "matmul16": ((zeros(HALF, 2, 6), zeros(HALF, 6, 5)), {}),
    "route": (
        (zeros(FLOAT, 2, 5), zeros(FLOAT, 2, 1), zeros(INT, 5)),
        {"routing": Routing(chosen=2, renormalise=True)},
    ),
    "experts": (
        (
            *(zeros(HALF, 2, 6), zeros(FLOAT, 2, 1), zeros(FLOAT, 2, 5)),
            *((zeros(BYTE, 5, 6, 8), zeros(INT, 8)), (zeros(BYTE, 5, 4, 7), zeros(INT, 7))),
        ),
        {"chosen": 2, "activation": "silu", "starts": (0, 4)},
    ),
    "conv": (
        (zeros(FLOAT, 4, 6), zeros(FLOAT, 2, 3, 6), zeros(INT, 4), (zeros(FLOAT, 6),) * 4, zeros(FLOAT, 6)),
        {},
    ),
    "gate16": ((zeros(HALF, 2, 6), zeros(FLOAT, 2, 6)), {}),
    "l2_norm": ((zeros(FLOAT, 2, 4, 6),), {"eps": 1e-6}),
    "delta": (
        (
            *(zeros(FLOAT, 4, 6), zeros(FLOAT, 4, 4), zeros(FLOAT, 4, 8), zeros(FLOAT, 6)),
            *(zeros(FLOAT, 2, 4, 6), zeros(INT, 4)),
        ),
        {"groups": 1},
    ),
    "ssm": (
        (
            *(zeros(FLOAT, 4, 6), zeros(FLOAT, 4, 2), zeros(FLOAT, 4, 16), zeros(FLOAT, 24)),
            *(zeros(FLOAT, 6), zeros(FLOAT, 2, 4, 6), zeros(INT, 4)),
        ),
        {"groups": 2, "low": 0.001, "high": 0.1},
    ),
    "gate": ((zeros(FLOAT, 2, 6), zeros(FLOAT, 2, 6)), {}),
}


def test_every_op_of_the_table_is_tested_here() -> None:
    assert OPERANDS.keys() == OPS.keys()


@pytest.mark.parametrize("name", OPS)
def test_an_op_is_one_named_equation_and_its_shapes_are_what_it_computes(name: str) -> None:
    operands, attributes = OPERANDS[name]
    public = getattr(ops, name)
    jaxpr = jax.make_jaxpr(lambda *x: public(*x, **attributes))(*operands)
    (equation,) = jaxpr.jaxpr.eqns
    assert equation.primitive.name == f"lpu_{name}"
    assert equation.params == attributes
    assert ops.op_of(equation.primitive) is OPS[name]
    for run in (public, jax.jit(public, static_argnames=list(attributes))):
        got = jax.tree.leaves(run(*operands, **attributes))
        assert [(x.shape, x.dtype) for x in got] == [(x.shape, x.dtype) for x in jaxpr.out_avals]


def test_flops_and_bytes_of_a_matmul_and_of_attention() -> None:
    shapes = [jax.typeof(x) for x in OPERANDS["matmul"][0]]
    assert OPS["matmul"].flops(*shapes) == 2 * 2 * 6 * 5
    assert OPS["matmul"].bytes(*shapes) == 2 * 6 * 2 + 6 * 5 + 5 * 4 + 2 * 5 * 4
    shapes = [jax.typeof(x) for x in OPERANDS["attention"][0]]
    assert OPS["attention"].flops(*shapes, block=4) == 4 * (2 * 4 * 8) * 16
    cache, token, heads = 2 * 16 * 2 * 8 * 2, 2 * 2 * 8 * 2, 2 * 4 * 8 * 2
    assert OPS["attention"].bytes(*shapes, block=4) == 2 * heads + 2 * cache + 4 * token


@pytest.mark.parametrize("name", OPS)
def test_every_row_counts_flops_and_bytes(name: str) -> None:
    operands, attributes = OPERANDS[name]
    shapes = [jax.typeof(x) for x in jax.tree.leaves(operands)]
    assert OPS[name].flops(*shapes, **attributes) >= 0
    assert OPS[name].bytes(*shapes, **attributes) > 0


def test_shapes_that_do_not_fit_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="matmul: k of a and of codes: 6 and 7 differ"):
        OPS["matmul"].primitive.bind(zeros(HALF, 2, 6), zeros(BYTE, 7, 5), zeros(INT, 5))
    with pytest.raises(ValueError, match="a is float32, it takes float16"):
        OPS["matmul"].primitive.bind(zeros(FLOAT, 2, 6), zeros(BYTE, 6, 5), zeros(INT, 5))
    with pytest.raises(TypeError, match=r"weights are float32, the contract takes e4m3 codes"):
        ops.matmul(zeros(HALF, 2, 6), zeros(FLOAT, 6, 5), zeros(INT, 5))


def test_rows_are_equal_shares_of_the_sequences_of_a_cache() -> None:
    operands = OPERANDS["attention"][0]
    three = [jnp.concatenate([x, x[:1]]) for x in operands[:3]]
    with pytest.raises(ValueError, match="3 rows are no equal share for 2 sequences of the cache"):
        OPS["attention"].primitive.bind(*three, CACHE, CACHE, zeros(INT, 3), block=4)


@pytest.mark.parametrize("block", [0, 8193])
def test_a_block_whose_weights_would_have_few_bits_is_refused(block: int) -> None:
    with pytest.raises(ValueError, match=f"block is {block}, it takes 1 to 8192"):
        OPS["attention"].primitive.bind(*OPERANDS["attention"][0], block=block)


def test_an_attribute_that_attention_has_not_is_named() -> None:
    wrong: Any = {"windows": 3}
    with pytest.raises(
        TypeError, match=r"attention: windows is no attribute\. It has window, span, scale, cap, w"
    ):
        ops.attention(*OPERANDS["attention"][0], block=4, **wrong)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [HALF, BYTE])
@pytest.mark.parametrize("block", [4, 5, 512], ids=["whole blocks", "a rest", "one block"])
def test_attention_appends_and_sees_tokens_up_to_its_position(dtype: Any, block: int) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((2, h, 8)).astype(np.float16)) for h in (4, 2, 2))
    caches = [rng.standard_normal((2, 16, 2, 8)).astype(np.float32) for _ in range(2)]
    if dtype == BYTE:
        caches = [np.asarray(numerics.rn8(jnp.asarray(c))) for c in caches]
    keys, values = (jnp.asarray(c.astype(dtype)) for c in caches)
    position = jnp.array([5, 11], jnp.int32)
    run = jax.jit(OPS["attention"].contract, static_argnames="block")
    out, keys, values = run(q, k, v, keys, values, position, block=block)
    for row, last in enumerate((5, 11)):
        want_k = numerics.rn8(k[row].astype(FLOAT)) if dtype == BYTE else k[row]
        assert np.array_equal(keys[row, last], want_k)
        for h in range(2):
            want = attend(
                q[row, 2 * h : 2 * h + 2], keys[row, : last + 1, h], values[row, : last + 1, h], block
            )
            assert np.array_equal(out[row, 16 * h : 16 * h + 16], want.reshape(-1))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [6, 130], ids=["few rows", "more than a piece"])
def test_rows_of_a_chunk_attend_as_single_steps_do(rows: int) -> None:
    """Two sequences, `rows` tokens of each from position 3 on, against one token of each at a time."""
    rng = np.random.default_rng(1)
    q, k, v = (
        jnp.asarray(rng.standard_normal((2, rows, heads, 8)).astype(np.float16)) for heads in (4, 2, 2)
    )
    keys, values = (jnp.asarray(rng.standard_normal((2, 140, 2, 8)).astype(np.float16)) for _ in range(2))
    run = jax.jit(OPS["attention"].contract, static_argnames="block")
    flat = [x.reshape(2 * rows, *x.shape[2:]) for x in (q, k, v)]
    position = jnp.tile(jnp.arange(3, 3 + rows, dtype=jnp.int32), 2)
    out, *caches = run(*flat, keys, values, position, block=4)
    for i in range(rows):
        at = jnp.full(2, 3 + i, jnp.int32)
        want, keys, values = run(q[:, i], k[:, i], v[:, i], keys, values, at, block=4)
        assert np.array_equal(out.reshape(2, rows, -1)[:, i], want)
    assert np.array_equal(caches[0], keys)
    assert np.array_equal(caches[1], values)


@partial(jax.jit, static_argnames="block")
def attend(q: jax.Array, k: jax.Array, v: jax.Array, block: int) -> jax.Array:
    """The same by hand: one KV head, no cache, no mask."""
    scores = numerics.attention_scores(q, k)
    return blocks.out(blocks.attend(scores, jnp.ones(scores.shape, bool), v, block=block))


def test_round8_gives_the_nearest_e4m3_value_and_leaves_those_that_are_one() -> None:
    codes = np.array([c for c in range(256) if c & 0x7F != 0x7F and c != 0x80], np.uint8)
    values = np.asarray(decode_e4m3(jnp.asarray(codes)), np.float16)
    np.testing.assert_array_equal(np.asarray(ops.round8(jnp.asarray(values))), values)
    between = jnp.array([1.0625, 1.07, 500.0, -3e-4], HALF)
    assert np.asarray(ops.round8(between)).tolist() == [1.0, 1.125, 448.0, 0.0]


def test_a_sum_takes_a_float16_operand_as_the_number_that_it_is() -> None:
    x, y = jnp.array([1e-3, 2.5], FLOAT), jnp.array([0.1, -7.0], HALF)
    np.testing.assert_array_equal(ops.add(x, y), ops.add(x, y.astype(FLOAT)))
    np.testing.assert_array_equal(
        ops.multiply_add(x, y, factor=0.5), ops.multiply_add(x, y.astype(FLOAT), factor=0.5)
    )
    rows, gain = jnp.stack([x, y.astype(FLOAT)]).astype(HALF), jnp.ones(2, FLOAT)
    np.testing.assert_array_equal(
        ops.rms_norm32(rows, gain, eps=1e-5), ops.rms_norm32(rows.astype(FLOAT), gain, eps=1e-5)
    )
