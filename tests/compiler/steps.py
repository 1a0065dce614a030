"""Small decode steps for the compiler's tests, written in the op vocabulary without Flax."""

from typing import Any

import jax
import jax.numpy as jnp

from compiler.program.manifest import ModelIdentity
from compiler.source import Source
from models.contract import ops
from models.contract.numerics import enable

enable()
Shape = jax.ShapeDtypeStruct


def llama(
    *, layers: int = 2, batch: int = 1, context: int = 160, heads: int = 8, kv_heads: int = 4, wide: int = 256
) -> Source:
    """A two-layer Llama of the given shape; vocabulary 259, ffn 704, head_dim 32."""
    head_dim, ffn, vocab = 32, 704, 259
    params: dict[str, Any] = {
        "embed.table": Shape((vocab, wide), jnp.float16),
        "angles": Shape((context, 2, head_dim // 2), jnp.int32),
        "norm.gain": Shape((wide,), jnp.float32),
    }

    def linear(name: str, k: int, n: int) -> None:
        params[name + ".codes"] = Shape((k, n), jnp.uint8)
        params[name + ".exponent"] = Shape((n,), jnp.int32)

    for i in range(layers):
        for part in ("attention", "ffn"):
            params[f"layers.{i}.{part}.norm.gain"] = Shape((wide,), jnp.float32)
        linear(f"layers.{i}.attention.q", wide, heads * head_dim)
        linear(f"layers.{i}.attention.k", wide, kv_heads * head_dim)
        linear(f"layers.{i}.attention.v", wide, kv_heads * head_dim)
        linear(f"layers.{i}.attention.o", heads * head_dim, wide)
        linear(f"layers.{i}.ffn.gate", wide, ffn)
        linear(f"layers.{i}.ffn.up", wide, ffn)
        linear(f"layers.{i}.ffn.down", ffn, wide)
    linear("head", wide, vocab)
    cache = Shape((batch, context, kv_heads, head_dim), jnp.float16)

    def step(p: dict[str, Any], tokens: Any, position: Any, caches: Any) -> Any:
        def mm(a: Any, name: str) -> Any:
            return ops.matmul(a, p[name + ".codes"], p[name + ".exponent"])

        x = ops.embed(p["embed.table"], tokens)
        out = []
        for i in range(layers):
            with jax.named_scope(f"layers.{i}.attention"):
                at = f"layers.{i}.attention"
                y = ops.rms_norm(x, p[at + ".norm.gain"], eps=1e-5)
                q = ops.rope(mm(y, at + ".q").reshape(batch, heads, head_dim), p["angles"], position)
                k = ops.rope(mm(y, at + ".k").reshape(batch, kv_heads, head_dim), p["angles"], position)
                v = ops.round16(mm(y, at + ".v").reshape(batch, kv_heads, head_dim))
                o, *kv = ops.attention(q, k, v, caches[i][0], caches[i][1], position, block=80)
                out.append(tuple(kv))
                x = ops.add(x, mm(o, at + ".o"))
            with jax.named_scope(f"layers.{i}.ffn"):
                at = f"layers.{i}.ffn"
                y = ops.rms_norm(x, p[at + ".norm.gain"], eps=1e-5)
                h = ops.glu(mm(y, at + ".gate"), mm(y, at + ".up"), activation="silu")
                x = ops.add(x, mm(h, at + ".down"))
        with jax.named_scope("head"):
            logits = mm(ops.rms_norm(x, p["norm.gain"], eps=1e-5), "head")
            return logits, ops.argmax(logits), tuple(out)

    sequence = Shape((batch,), jnp.int32)
    return Source(
        step=step,
        params=params,
        tokens=sequence,
        position=sequence,
        cache=tuple((cache, cache) for _ in range(layers)),
        contexts=(context,),
        model=ModelIdentity(name="test"),
    )
