"""The gated delta rule of one head: GDN with one decay a head, KDA with one per key channel.

Heads and value channels may lie anywhere; of key channels, aligned subtrees (8 bytes a lane).
Source: facts/contract2.md section 8.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float32

from models.contract.formats import F64, add32, mul32, rn32
from models.contract.functions.curves import softplus
from models.contract.functions.exponential import exp32
from models.contract.numerics import inverse_root
from models.contract.tree import tree64

State = Float32[Array, "key_dim value_dim"]


def decay(
    raw: Float32[Array, "*shape"], a: Float32[Array, "*a"], bias: Float32[Array, "*bias"]
) -> Float32[Array, "*shape"]:
    """The g of a token, A softplus(raw + bias), which is at most 0 as A is."""
    return mul32(jnp.broadcast_to(a, raw.shape), softplus(add32(raw, jnp.broadcast_to(bias, raw.shape))))


def renewed(
    s: Float32[Array, "key_dim *lanes"],
    left: Float32[Array, "*left"],
    q: Float32[Array, "*q"],
    k: Float32[Array, "*k"],
    v: Float32[Array, "*lanes"],
    beta: Float32[Array, "*beta"],
) -> tuple[Float32[Array, "key_dim *lanes"], Float32[Array, "*lanes"]]:
    """The state after a token, lane by lane, and its result; left: e^g, of all keys or of each."""
    kept = mul32(left, s)
    key = k.astype(F64)
    read = rn32(tree64(kept.astype(F64) * key))
    change = mul32(add32(v, -read), beta)
    new = rn32(kept.astype(F64) + key * change.astype(F64))
    read = tree64(new.astype(F64) * q.astype(F64))
    return new, rn32(read * inverse_root(len(s)))


def step(
    s: State,
    q: Float32[Array, " key_dim"],
    k: Float32[Array, " key_dim"],
    v: Float32[Array, " value_dim"],
    g: Float32[Array, " key_dim_or_1"],
    beta: Float32[Array, ""],
) -> tuple[State, Float32[Array, " value_dim"]]:
    """The state after a token and its result; q and k come from `l2_norm`, beta from `sigmoid`."""
    return renewed(s, exp32(g)[:, None], q[:, None], k[:, None], v, beta)


def scan(
    s: State,
    q: Float32[Array, "tokens key_dim"],
    k: Float32[Array, "tokens key_dim"],
    v: Float32[Array, "tokens value_dim"],
    g: Float32[Array, "tokens key_dim_or_1"],
    beta: Float32[Array, " tokens"],
) -> tuple[State, Float32[Array, "tokens value_dim"]]:
    """The state after all tokens, and their results."""

    def one(held: Array, token: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, Array]:
        return step(held, *token)

    return lax.scan(one, s, (q, k, v, g, beta))
