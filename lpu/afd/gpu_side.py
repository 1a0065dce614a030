"""The GPU's part of the work as real math: a model and its KV cache on one device, under the contract.

What it gives has the bits of the reference, which takes one token at a time. Its time is modelled elsewhere.
"""

from copy import copy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from lpu.afd.gpu_pieces import GpuPieces, Hop
from lpu.decode.decoders import reference_params
from lpu.decode.prefixes.cache import KVBytes, StateBytes
from lpu.decode.prefixes.states import state_of, with_state
from lpu.inputs.model import OpenModel
from lpu.run.step_inputs import checked_inputs
from models.kv import KVCache, empty_cache
from models.step import in_sequence

CHUNK = 64  # tokens of a prompt at a time: the rows of one sequence that attend at once

Tokens = Int[np.ndarray, " batch"]


class TakenTokens(NamedTuple):
    """Logits f32 [..., vocab] and the most likely next token [...] of every token that was taken."""

    logits: np.ndarray
    chosen: np.ndarray


class GpuSide:
    """A model with the KV of `batch` sequences (the model's own batch if not given), held on the device.

    Tokens may be taken in any order of positions: one at a position replaces what lay there, and a token sees
    what lies up to its own position. Where a model keeps states each token is taken once, in order, and
    position 0 begins anew. chunk: tokens that `prefill` takes at a time.
    Methods raise MachineError for tokens outside the vocabulary and positions outside the context.
    """

    def __init__(self, model: OpenModel, *, batch: int | None = None, chunk: int = CHUNK) -> None:
        step = model.chunks(1, batch=batch or model.step.batch)
        self.model, self.batch = model, step.batch
        self.vocab, self.context = model.vocab, step.context
        self.chunk = min(chunk, self.context)
        self._params = reference_params(model)
        self._cache: KVCache = empty_cache(step.cache)
        self._steps: dict[int, Any] = {1: jax.jit(step.fn, donate_argnums=3)}
        self._write: Any = jax.jit(_write, donate_argnums=0)
        self._prefill: Any = jax.jit(in_sequence(model.chunks(self.chunk, batch=1)), donate_argnums=3)
        self.state_shapes = [(leaf.shape[1], leaf.shape[2]) for leaf in step.cache.state]
        self._single: Any = jax.jit(in_sequence(model.chunks(1, batch=1)), donate_argnums=3)

    def beside(self) -> "GpuSide":
        """Another one with an empty KV cache of its own; what is compiled is compiled once for both."""
        other = copy(self)
        other._cache = empty_cache(self.model.chunks(1, batch=self.batch).cache)
        return other

    def prefill(self, sequence: int, tokens: Any, start: int = 0) -> TakenTokens:
        """Take tokens of one sequence from position `start` on, in chunks: logits [tokens, vocab] of all.

        The rows that the last chunk has too many repeat its last token at its position, which writes the
        same bytes again. So there is one shape to compile, and nothing beyond the tokens is touched. A model
        with states takes the tokens of a last chunk that is not whole one by one.
        """
        tokens = np.asarray(tokens, np.int32)
        if not len(tokens):
            raise ValueError("prefill: no tokens. At least one must be taken, for its logits.")
        self._check_sequence(sequence)
        where = np.arange(start, start + len(tokens), dtype=np.int32)
        tokens, where = checked_inputs(len(tokens), self.vocab, self.context, tokens, where)
        parts: list[TakenTokens] = []
        whole = len(tokens) - len(tokens) % self.chunk if self.state_shapes else len(tokens)
        for first in range(0, whole, self.chunk):
            row = np.minimum(np.arange(first, first + self.chunk), len(tokens) - 1)
            done = self._run(self._prefill, tokens[row], where[row], jnp.int32(sequence))
            count = min(self.chunk, len(tokens) - first)
            parts.append(TakenTokens(done.logits[:count], done.chosen[:count]))
        for at in range(whole, len(tokens)):
            one = slice(at, at + 1)
            parts.append(self._run(self._single, tokens[one], where[one], jnp.int32(sequence)))
        return TakenTokens(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def decode(self, tokens: Tokens, positions: Tokens) -> TakenTokens:
        """One token of every sequence at its position: logits [batch, vocab]."""
        tokens, positions = checked_inputs(self.batch, self.vocab, self.context, tokens, positions)
        return self._run(self._steps[1], tokens, positions)

    def divided(self, pieces: GpuPieces, tokens: Tokens, positions: Tokens, hop: Hop) -> TakenTokens:
        """`decode` with its hops computed elsewhere."""
        tokens, positions = checked_inputs(self.batch, self.vocab, self.context, tokens, positions)
        rows = jnp.asarray(tokens), jnp.asarray(positions)
        logits, chosen, self._cache = pieces.step(self._params, *rows, self._cache, hop)
        return TakenTokens(np.asarray(logits), np.asarray(chosen))

    def rows(
        self, tokens: Int[np.ndarray, "batch rows"], positions: Int[np.ndarray, "batch rows"]
    ) -> TakenTokens:
        """As many tokens of every sequence in one step: logits [batch, rows, vocab].

        Positions of a sequence ascend, or repeat with the same token. Each number of rows is compiled once.
        """
        tokens, positions = np.asarray(tokens, np.int32), np.asarray(positions, np.int32)
        rows = tokens.shape[1]
        flat = self.batch * rows, self.vocab, self.context
        tokens, positions = checked_inputs(*flat, tokens.reshape(-1), positions.reshape(-1))
        if rows not in self._steps:
            step = self.model.chunks(rows, batch=self.batch)
            self._steps[rows] = jax.jit(step.fn, donate_argnums=3)
        done = self._run(self._steps[rows], tokens, positions)
        return TakenTokens(done.logits.reshape(self.batch, rows, -1), done.chosen.reshape(self.batch, rows))

    def kv(self, sequence: int, begin: int, end: int) -> tuple[KVBytes, KVBytes]:
        """Keys and values of the positions begin to end - 1 in the cache's own format (fp16, e4m3 codes)."""
        self._check_span(sequence, begin, end)
        parts = [[np.asarray(leaf[sequence])[begin:end] for leaf in part] for part in self._cache[:2]]
        none = np.zeros((0, end - begin, 1, 1), np.float16)
        k, v = (np.stack(part) if part else none for part in parts)
        return k, v

    def state(self, sequence: int) -> StateBytes:
        """The states of a sequence behind the last token that it took, one after another."""
        self._check_sequence(sequence)
        return state_of(self._cache, sequence)

    def put_state(self, sequence: int, state: StateBytes) -> None:
        """Go on behind what `state` gave."""
        self._check_sequence(sequence)
        self._cache = with_state(self._cache, sequence, state)

    def put_kv(self, sequence: int, begin: int, k: KVBytes, v: KVBytes) -> None:
        """Write keys and values at the positions from `begin` on: what `kv` gave, to the byte."""
        self._check_span(sequence, begin, begin + k.shape[1])
        if not self._cache.k:
            return
        leaf = self._cache.k[0]
        wanted = (len(self._cache.k), k.shape[1], *leaf.shape[2:])
        for name, array in (("k", k), ("v", v)):
            if (array.shape, array.dtype) != (wanted, leaf.dtype):
                raise ValueError(
                    f"put_kv: {name} is {array.dtype} {list(array.shape)}, "
                    f"the cache takes {leaf.dtype} {list(wanted)}."
                )
        if k.shape[1]:
            self._cache = self._write(
                self._cache, KVCache(tuple(k), tuple(v)), jnp.int32(sequence), jnp.int32(begin)
            )

    def _run(self, step: Any, tokens: np.ndarray, positions: np.ndarray, *more: Any) -> TakenTokens:
        rows = jnp.asarray(tokens), jnp.asarray(positions)
        logits, chosen, self._cache = step(self._params, *rows, self._cache, *more)
        return TakenTokens(np.asarray(logits), np.asarray(chosen))

    def _check_sequence(self, sequence: int) -> None:
        if not 0 <= sequence < self.batch:
            raise ValueError(f"gpu: sequence {sequence} is outside 0..{self.batch - 1}.")

    def _check_span(self, sequence: int, begin: int, end: int) -> None:
        self._check_sequence(sequence)
        if not 0 <= begin <= end <= self.context:
            raise ValueError(f"gpu: positions {begin} to {end} are outside the context, 0 to {self.context}.")


def _write(cache: KVCache, new: KVCache, sequence: Array, begin: Array) -> KVCache:
    zero = jnp.int32(0)

    def put(leaf: Array, tokens: Array) -> Array:
        return jax.lax.dynamic_update_slice(leaf, tokens[None], (sequence, begin, zero, zero))

    pairs = ((cache.k, new.k), (cache.v, new.v))
    k, v = (tuple(put(*one) for one in zip(*pair, strict=True)) for pair in pairs)
    return cache._replace(k=k, v=v)
