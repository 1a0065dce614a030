"""Forms of attention: in blocks, and over the whole context with its maximum, as numerics.md has it."""

import jax.numpy as jnp
from contract_forms.form import Case, Compute, Results, form
from jax import Array

from models.contract import block_attention as blocks
from models.contract import latent_attention as latent
from models.contract import numerics
from models.contract.formats import F64, odd64, rn16, rn32
from models.contract.functions.curves import softcap


@form("attn", "q", "k", "v", "sigma", "pos", "sink")
def attn(case: Case) -> Compute:
    block, cap = int(case["bt"]), float(case["cap"])
    causal, window, chunk = (int(case[name]) for name in ("causal", "window", "chunk"))

    def compute(q: Array, k: Array, v: Array, sigma: Array, pos: Array, sink: Array | None = None) -> Results:
        score = blocks.scores(q, k, sigma)
        score = softcap(score, cap) if cap else score
        see = blocks.seen(
            pos, jnp.arange(len(k), dtype=jnp.int32), causal=bool(causal), window=window, chunk=chunk
        )
        node = blocks.attend(score, jnp.broadcast_to(see, score.shape), v, block=block, sink=sink)
        ends = {"block_f": blocks.quotient(node), "block_o": blocks.out(node)}
        return {"s": score, **ends, **over_all(score, see, v, sink)}

    return compute


def over_all(score: Array, see: Array, v: Array, sink: Array | None, p: int = 20) -> Results:
    """The global form: one maximum, then integer sums over all that is seen."""
    seen = jnp.where(see, score, jnp.float32(numerics.MASKED))
    largest = jnp.max(seen, axis=-1)
    largest = largest if sink is None else jnp.maximum(largest, sink)
    weights, total = numerics.softmax_weights(seen, largest, p)
    if sink is not None:
        total = total + numerics.expq(sink - largest, p)
    part = numerics.attention_values(weights, v)
    mean = rn32(odd64(part.high, part.low) / total[..., None].astype(F64))
    return {"global_f": mean, "global_o": rn16(mean)}


@form("mla", "qn", "qr", "wuk", "euk", "c", "kr", "wuv", "euv", "sigma")
def mla(case: Case) -> Compute:
    block = int(case["bt"])

    def compute(
        qn: Array,
        qr: Array,
        wuk: Array,
        euk: Array,
        c: Array,
        kr: Array,
        wuv: Array,
        euv: Array,
        sigma: Array,
    ) -> Results:
        q, clips = latent.into_latent(qn[:, None], wuk, euk)
        score = latent.latent_scores(q[:, 0], qr, c, kr, sigma)
        node = blocks.attend(score, jnp.ones(score.shape, bool), c, block=block)
        mean = blocks.out(node)
        o = latent.out_of_latent(mean[:, None], wuv, euv)[:, 0]
        return {"ql": q[:, 0], "clips": clips, "ol": mean, "o": o}

    return compute
