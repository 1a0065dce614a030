"""A step as a pure function over weights by path: what the compiler traces and the reference runs.

A decode step takes one token of each of `batch` sequences. A chunk step takes `chunk` tokens of each: that is
how a prompt is prefilled, one sequence at a time (`in_sequence`) into the cache of a decode step.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jaxtyping import Shaped

from models.config import TransformerConfig
from models.families.registry import family_of
from models.kv import KVCache, KVFormat
from models.own.made import Made

Params = dict[str, Array]
Constants = dict[str, Shaped[np.ndarray, "*axes"]]
Outputs = tuple[Array, Array, KVCache]
KEPT = 16  # steps that were asked for last
CONTRACT = (
    "It takes a factory (batch=, context=, kv=) of an nnx.Module with cache_shape() and "
    "__call__(tokens, position, cache) -> (logits, token, cache)."
)


class ModuleError(TypeError):
    """A user's module that does not keep the contract; `CONTRACT` says it."""


@runtime_checkable
class Factory(Protocol):
    """Makes a module with `__call__(tokens, position, cache)`, `cache_shape()` and perhaps `constants()`."""

    def __call__(self, *, batch: int, context: int, kv: KVFormat) -> nnx.Module:
        """The module for that batch, context and KV format."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: `fn(params, tokens, position, cache) -> (logits, token, cache)`.

    Its rows are `chunk` tokens of each of `batch` sequences, one after another. `params` holds the shape of
    everything that `fn` takes by path (`layers.3.ffn.up.codes`), `constants` the values of those that follow
    from the configuration (`angles`), `plain_constants` the same for the plain f32 step; the others are
    weights. made: what some of them are made of, where a user's module holds them in another form. notes: a
    line for each choice that the user may not expect.
    """

    fn: Callable[[Params, Array, Array, KVCache], Outputs]
    params: dict[str, jax.ShapeDtypeStruct]
    cache: KVCache
    batch: int
    context: int
    kv: KVFormat
    constants: Constants
    plain_constants: Constants
    chunk: int = 1
    made: Mapping[str, Made] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Tokens that one step takes."""
        return self.batch * self.chunk

    def inputs(self) -> tuple[Any, Any, Any, Any]:
        """Shapes of the arguments of `fn`, to trace it with."""
        row = jax.ShapeDtypeStruct((self.rows,), np.int32)
        return self.params, row, row, self.cache


def build_step(factory: Factory, *, batch: int, context: int, kv: KVFormat = "fp16", chunk: int = 1) -> Step:
    """The step of the module that the factory makes; shapes only, nothing is allocated for its weights.

    The module of a chunk step is one for `batch * chunk` rows; its cache is that of `batch` sequences.
    """
    _check_signature(factory)

    def make() -> nnx.Module:
        made = factory(batch=batch * chunk, context=context, kv=kv)
        _check_module(made)
        return made

    model: Any = nnx.eval_shape(make)
    alone: Any = nnx.eval_shape(partial(factory, batch=batch, context=context, kv=kv)) if chunk > 1 else model
    graph, state = nnx.split(model)
    leaves = {".".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(state)}

    def fn(params: Params, tokens: Array, position: Array, cache: KVCache) -> Any:
        check_names(params, leaves)
        flat = [(path, leaf.replace(params[name])) for name, (path, leaf) in leaves.items()]
        module: Any = nnx.merge(graph, nnx.from_flat_state(flat))
        outputs: Any = module(tokens, position, cache)
        if not isinstance(outputs, tuple) or len(outputs) != 3:
            held = f"{len(outputs)} results" if isinstance(outputs, tuple) else "one result"
            raise ModuleError(f"{_named(type(module))} returns {held}, not (logits, token, cache)")
        return outputs

    constants: Constants = model.constants() if hasattr(model, "constants") else {}
    return Step(
        fn=fn,
        params={name: leaf.get_value() for name, (_, leaf) in leaves.items()},
        cache=alone.cache_shape(),
        batch=batch,
        context=context,
        kv=kv,
        constants=constants,
        plain_constants=model.plain_constants() if hasattr(model, "plain_constants") else constants,
        chunk=chunk,
    )


def reading(step: Step, names: Collection[str]) -> Step:
    """The step with these parameters only: of the others, which it never reads, the values do not matter."""
    unread = {name: leaf for name, leaf in step.params.items() if name not in names}

    def fn(params: Params, tokens: Array, position: Array, cache: KVCache) -> Any:
        return step.fn(
            {**{name: _blank(leaf) for name, leaf in unread.items()}, **params}, tokens, position, cache
        )

    def read(held: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in held.items() if name in names}

    return replace(
        step,
        fn=fn,
        params=read(step.params),
        constants=read(step.constants),
        plain_constants=read(step.plain_constants),
    )


def family_step(
    config: TransformerConfig, *, batch: int, context: int, kv: KVFormat = "fp16", chunk: int = 1
) -> Step:
    """The step of a model of a known family; the same one if it was asked for lately.

    Raises UnknownFamilyError.
    """
    return _family_step(family_of(config).module, config, batch, context, kv, chunk)


@lru_cache(maxsize=KEPT)
def _family_step(
    module: Callable[..., nnx.Module],
    config: TransformerConfig,
    batch: int,
    context: int,
    kv: KVFormat,
    chunk: int,
) -> Step:
    """What JAX traced or compiled of `fn` is kept with it, so that a step asked for again costs neither."""
    step = build_step(partial(module, config), batch=batch, context=context, kv=kv, chunk=chunk)
    for table in (*step.constants.values(), *step.plain_constants.values()):
        table.setflags(write=False)
    return step


def in_sequence(step: Step) -> Callable[[Params, Array, Array, KVCache, Array], Outputs]:
    """The step of one sequence (batch 1) on that sequence of a larger cache, given as a last int32 scalar."""
    return _in_sequence(step.fn)


@lru_cache(maxsize=KEPT)
def _in_sequence(
    step: Callable[[Params, Array, Array, KVCache], Outputs],
) -> Callable[[Params, Array, Array, KVCache, Array], Outputs]:
    def fn(params: Params, tokens: Array, position: Array, cache: KVCache, sequence: Array) -> Outputs:
        own = jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, sequence, 1), cache)
        logits, token, own = step(params, tokens, position, own)
        put: Callable[[Array, Array], Array] = partial(_put, sequence)
        return logits, token, jax.tree.map(put, cache, own)

    return fn


def _put(sequence: Array, every: Array, one: Array) -> Array:
    return lax.dynamic_update_slice_in_dim(every, one, sequence, 0)


def _blank(leaf: jax.ShapeDtypeStruct) -> Array:
    """Any values of that shape and dtype, keys of random numbers included."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), leaf.shape)
    return jnp.zeros(leaf.shape, leaf.dtype)


def _check_signature(factory: Factory) -> None:
    try:
        made: Any = factory
        called = partial(made.__init__, None) if inspect.isclass(made) else made
        inspect.signature(called).bind(batch=1, context=1, kv="fp16")
    except TypeError as error:
        raise ModuleError(f"{_named(factory)} cannot be called with batch, context and kv: {error}") from None
    except ValueError:  # has no signature: it is called and seen
        return


def _check_module(made: object) -> None:
    kind = type(made)
    if not isinstance(made, nnx.Module):
        raise ModuleError(f"the factory gives {kind.__module__}.{kind.__qualname__}, not an nnx.Module")
    missing = [name for name in ("cache_shape", "__call__") if not any(name in vars(c) for c in kind.__mro__)]
    if missing:
        raise ModuleError(f"{_named(kind)} has no {' and no '.join(missing)}")


def _named(code: Any) -> str:
    """`name (file:line)` of a class or function."""
    name = getattr(code, "__name__", type(code).__name__)
    try:
        return f"{name} ({inspect.getsourcefile(code)}:{inspect.getsourcelines(code)[1]})"
    except (OSError, TypeError):
        return str(name)


def check_names(params: Params, leaves: Mapping[str, Any]) -> None:
    """Raise ValueError unless a step gets the parameters that it takes."""
    missing, unknown = sorted(leaves.keys() - params.keys()), sorted(params.keys() - leaves.keys())
    if missing or unknown:
        raise ValueError(
            f"step: {len(missing)} of {len(leaves)} parameters are missing "
            f"({', '.join(missing[:3]) or 'none'}), "
            f"{len(unknown)} are unknown ({', '.join(unknown[:3]) or 'none'}). Pass what Step.params names."
        )
