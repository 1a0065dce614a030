"""The reference for models larger than memory: a `Decoder` with one layer's weights at a time.

The family's own modules under the same contract, so the same bits; one jitted function serves all layers.
While a layer is computed, threads read or draw the weights of the next.
"""

import functools
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float16, Float32, Int, Int32, Shaped

from models.config import TransformerConfig
from models.contract import ops
from models.decoder import layer_at, logits_of, scaled
from models.families.family import TABLE
from models.families.registry import family_of
from models.kv import KVCache, KVFormat, kv_shape_of
from models.parts import Embedding, Linear, Norm
from models.sources.host_arrays import aligned_zeros, borrow
from models.sources.weights import ReadRows

THREADS = 2  # that read or draw weights, beside those that XLA computes with
STRIP_BYTES = 8 << 20  # of a matrix that is read at a time

Arrays = dict[str, Shaped[np.ndarray, "*axes"]]
Params = dict[str, Array]
Tokens = Int[np.ndarray, " batch"]


@runtime_checkable
class TensorReader(Protocol):
    """Weights and constants by path."""

    def __getitem__(self, name: str, /) -> Shaped[np.ndarray, "*axes"]:
        """The tensor of that path, whole."""
        ...

    def row_reader(self, name: str) -> ReadRows | None:
        """Reads rows of a tensor on any thread; None where it can only be had whole."""
        ...


class _Embedded(Embedding):
    """The rows of some tokens, with the model's factor."""

    def __init__(self, config: TransformerConfig, rows: int) -> None:
        super().__init__(rows, config.hidden)
        self.factor = config.embedding_scale

    def __call__(self, tokens: Int32[Array, " batch"]) -> Float32[Array, "batch hidden"]:
        """One row per token."""
        return scaled(super().__call__(tokens), self.factor)


class Head(nnx.Module):
    """What follows the last layer."""

    def __init__(self, config: TransformerConfig) -> None:
        self.config = config
        self.norm = Norm(config.hidden, config.eps)
        self.head = Linear(config.hidden, config.vocab, scaled=config.column_scales == "f32")

    def __call__(
        self, x: Float32[Array, "batch hidden"]
    ) -> tuple[Float32[Array, "batch vocab"], Int32[Array, " batch"]]:
        """(logits, the most likely token)."""
        logits = logits_of(self.config, self.head(self.norm.deferred(x)))
        return logits, ops.argmax(logits)


class StreamedReference:
    """A decoder step by step, layer by layer, of a family that states its layer.

    The KV cache lies in host memory whose pages are taken when they are written; `step` changes it in place.
    """

    def __init__(
        self, config: TransformerConfig, weights: TensorReader, *, batch: int, context: int, kv: KVFormat
    ) -> None:
        self.config, self._weights = config, weights
        shapes = kv_shape_of(config, batch, context, kv)
        self.cache: KVCache = jax.tree.map(lambda leaf: aligned_zeros(leaf.shape, leaf.dtype), shapes)
        self._sides: tuple[Arrays, Arrays] = ({}, {})
        made = _functions(config, batch, context)
        (self._embed, _), (self._head, self._head_shapes), *layers = made
        self._layers = dict(zip(_kinds(config), layers, strict=True))

    def step(
        self, tokens: Tokens, position: Tokens
    ) -> tuple[Float32[np.ndarray, "batch vocab"], Int32[np.ndarray, " batch"]]:
        """(logits, the most likely token) of one token of each sequence and its position."""
        angles, at = jnp.asarray(self._weights["angles"]), jnp.asarray(position, jnp.int32)
        sequence = np.arange(len(tokens))
        x = self._embed({"table": self._table_rows(tokens)}, jnp.arange(len(tokens), dtype=jnp.int32))
        kinds = map(self.config.kind_of, range(self.config.layers))
        params = self._params()
        for kind, keys, values in zip(kinds, self.cache.k, self.cache.v, strict=True):
            x, k, v = self._layers[kind][0](next(params), x, angles, at, borrow(keys), borrow(values))
            keys[sequence, position], values[sequence, position] = k, v  # waits: the weights are free again
        logits, token = self._head(next(params), x)
        out = np.array(logits), np.array(token)
        params.close()
        return out

    def _params(self) -> Generator[Params]:
        """The parameters of each layer, then of the head; each valid until the next is asked for."""
        layers = self.config.layers
        kinds = map(self.config.kind_of, range(layers))
        groups = [(f"layers.{i}.", self._layers[kind][1]) for i, kind in enumerate(kinds)]
        groups.append(("", self._head_shapes))
        with ThreadPoolExecutor(THREADS, "weights") as threads:
            ahead = self._start(threads, 0, *groups[0])
            try:
                for i in range(len(groups)):
                    for job in ahead[1]:
                        job.result()
                    now = {name: borrow(values) for name, values in ahead[0].items()}
                    if i + 1 < len(groups):
                        ahead = self._start(threads, (i + 1) % 2, *groups[i + 1])
                    yield now
            finally:
                for job in ahead[1]:
                    job.cancel()

    def _start(
        self, threads: ThreadPoolExecutor, side: int, prefix: str, shapes: dict[str, jax.ShapeDtypeStruct]
    ) -> tuple[Arrays, list[Future[None]]]:
        """Arrays of this side, and the jobs that fill them with the tensors under that prefix."""
        into: Arrays = {}
        jobs: list[Future[None]] = []
        for name, shape in shapes.items():
            held = self._sides[side].get(name)
            if held is None or held.shape != shape.shape:
                held = self._sides[side][name] = aligned_zeros(shape.shape, shape.dtype)
            into[name] = held
            read = self._weights.row_reader(prefix + name)
            if read is None:
                jobs.append(threads.submit(self._copy, prefix + name, held))
                continue
            every = held.reshape(-1, held.shape[-1])  # of a stack one matrix below the other
            rows = max(STRIP_BYTES // every[0].nbytes, 1)
            for first in range(0, len(every), rows):
                jobs.append(threads.submit(_copy_rows, read, first, every[first : first + rows]))
        return into, jobs

    def _copy(self, name: str, into: Shaped[np.ndarray, "*axes"]) -> None:
        into[...] = self._weights[name]

    def _table_rows(self, tokens: Tokens) -> Float16[np.ndarray, "batch hidden"]:
        """The table's rows of the tokens [batch, hidden]."""
        read = self._weights.row_reader(TABLE)
        if read is None:
            return self._weights[TABLE][tokens]
        return np.concatenate([read(int(token), int(token) + 1) for token in tokens])


def _copy_rows(read: ReadRows, first: int, into: Shaped[np.ndarray, "*axes"]) -> None:
    into[...] = read(first, first + len(into))


def _take_layer(
    layer: Any, x: Array, angles: Array, position: Array, keys: Array, values: Array
) -> tuple[Array, Array, Array]:
    """(x after the layer, the heads that it appended to the keys, to the values)."""
    x, keys, values = layer(x, angles, position, keys, values)
    sequence = jnp.arange(len(position))
    return x, keys[sequence, position], values[sequence, position]


@functools.lru_cache(maxsize=2)
def _functions(
    config: TransformerConfig, batch: int, context: int
) -> tuple[tuple[Any, dict[str, jax.ShapeDtypeStruct]], ...]:
    """(jitted function, shapes of its parameters) of the embedding, the head and a layer of each kind."""
    layer = family_of(config).layer
    assert layer is not None, config.family
    makers: list[tuple[Callable[[], nnx.Module], Callable[..., Any]]] = [
        (partial(_Embedded, config, batch), _call),
        (partial(Head, config), _call),
    ]
    first = [next(i for i in range(config.layers) if config.kind_of(i) == kind) for kind in _kinds(config)]
    makers += [(partial(layer_at, layer, config, i, context), _take_layer) for i in first]
    stateless = [_stateless(make, call) for make, call in makers]
    return tuple((jax.jit(fn), shapes) for fn, shapes in stateless)


def _kinds(config: TransformerConfig) -> list[str]:
    """The kinds of layers that a model has."""
    return list(dict.fromkeys(map(config.kind_of, range(config.layers))))


def _call(module: Any, x: Array) -> Any:
    return module(x)


def _stateless(
    make: Callable[[], nnx.Module], call: Callable[..., Any]
) -> tuple[Callable[..., Any], dict[str, jax.ShapeDtypeStruct]]:
    """(`call(module, ...)` as a function of the module's parameters by path, their shapes)."""
    graph, state = nnx.split(nnx.eval_shape(make))
    leaves = {".".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(state)}

    def fn(params: Params, *args: Any) -> Any:
        flat = [(path, leaf.replace(params[name])) for name, (path, leaf) in leaves.items()]
        return call(nnx.merge(graph, nnx.from_flat_state(flat)), *args)

    return fn, {name: leaf.get_value() for name, (_, leaf) in leaves.items()}
