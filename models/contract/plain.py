"""A second reading of a traced function: every op by its plain f32 rule instead of its contract.

The jaxpr is the same, so the baseline cannot drift from the model. Source: the interpreter of JAX autodidax.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from models.contract.formats import pow2
from models.contract.ops import op_of
from models.contract.vocabulary.matmul import by_column, decode

CALLS = ("jit", "pjit", "closed_call")


@lru_cache(maxsize=8)
def plain(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function in plain f32, the same one if it was asked for lately; it may be jitted.

    Takes f32 [k, n] in place of codes and f32 caches.
    """

    def run(*args: Any) -> Any:
        closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)
        values = _evaluate(closed, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(out), values)

    return run


def plain_params(params: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The same weights decoded to f32 (4 bytes each), under the same paths; fp16 tables become f32 too."""
    return {name: _plain_param(params, name, value) for name, value in params.items()}


def plain_cache(cache: Any) -> Any:
    """An empty f32 cache of the shape of the given one."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), cache)


def _plain_param(params: dict[str, jax.Array], name: str, value: jax.Array) -> jax.Array:
    if name.endswith(".codes"):
        scale = params.get(name.removesuffix("codes") + "scale")
        if scale is not None:
            return by_column(decode(value, jnp.zeros(scale.shape, jnp.int32)), scale)
        return decode(value, params[name.removesuffix("codes") + "exponent"])
    if name.endswith(".halves"):
        return _widen(value) * pow2(params[name.removesuffix("halves") + "exponent"]).astype(jnp.float32)
    return _widen(value)


def _widen(value: Any) -> Any:
    return value.astype(jnp.float32) if getattr(value, "dtype", None) == jnp.float16 else value


def _evaluate(closed: ClosedJaxpr, arguments: list[Any]) -> list[Any]:
    jaxpr: Jaxpr = closed.jaxpr
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return _widen(atom.val) if isinstance(atom, Literal) else values[atom]

    values.update(zip(jaxpr.constvars, map(_widen, closed.consts), strict=True))
    values.update(zip(jaxpr.invars, map(_widen, arguments), strict=True))
    for equation in jaxpr.eqns:
        out = _apply(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, out, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, operands: list[Any]) -> list[Any]:
    record = op_of(equation.primitive)
    if record is not None:
        out = record.plain(*operands, **equation.params)
        return list(out) if isinstance(out, tuple) else [out]
    if equation.primitive.name in CALLS:
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        return _evaluate(inner, operands)
    params = equation.params
    if params.get("new_dtype") == jnp.float16:
        params = {**params, "new_dtype": jnp.dtype("float32")}
    out = equation.primitive.bind(*operands, **params)
    return list(out) if equation.primitive.multiple_results else [out]
