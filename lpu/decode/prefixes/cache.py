"""A cache of the KV bytes of prompt prefixes, keyed by their tokens and by everything that decides the bits.

Prefix blocks of `block_tokens` tokens are keyed by a chain of hashes: a changed token changes the key of its
block and of every later one. Of layers with a state of fixed size a block may hold the state behind its last
token: a state is not cut by tokens, so a prefix ends where one is held. Source: facts/afd.md 5.1 and 5.3.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Shaped

from lpu.inputs.document import FileError
from models.kv import KVFormat

KVBytes = Shaped[np.ndarray, "layers tokens kv_heads head_dim"]
StateBytes = Float32[np.ndarray, " numbers"]
DTYPES = {"fp16": np.dtype(np.float16), "fp8": np.dtype(np.uint8)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The shape of one token's KV, and over how many chips its heads (tp) and layers (pp) are sharded.

    states: numbers that the layers of a sequence keep besides, whatever its length.
    """

    layers: int
    kv_heads: int
    head_dim: int
    tp: int = 1
    pp: int = 1
    states: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Everything that the KV bytes of given tokens depend on; a cache serves only runs with an equal binding.

    weights, tokenizer, positions, arithmetic: hashes, made in `binding.py`. adapter: "" if none.
    """

    weights: str
    tokenizer: str
    positions: str
    arithmetic: str
    kv: KVFormat
    layout: Layout
    adapter: str = ""

    def fields(self) -> dict[str, Any]:
        """All fields, for JSON; a layout without states names none, as before there were any."""
        held = asdict(self)
        if not self.layout.states:
            del held["layout"]["states"]
        return held

    def digest(self) -> bytes:
        """Sha256 over all fields."""
        return hashlib.sha256(json.dumps(self.fields(), sort_keys=True).encode()).digest()


class Hit(NamedTuple):
    """The longest cached prefix of a prompt: its number of tokens, their keys and values, a state behind."""

    tokens: int
    k: KVBytes
    v: KVBytes
    state: StateBytes | None = None


class KVBlock(NamedTuple):
    """Tokens after the block with key `before`, their keys and values, and the state behind them if kept."""

    before: bytes
    tokens: Int32[np.ndarray, " tokens"]
    k: KVBytes
    v: KVBytes
    state: StateBytes | None = None

    @property
    def key(self) -> bytes:
        """Sha256 over the key before and the tokens' bytes."""
        return hashlib.sha256(self.before + self.tokens.tobytes()).digest()

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values, and of the state."""
        return self.k.nbytes + self.v.nbytes + (0 if self.state is None else self.state.nbytes)


class PrefixCache:
    """Whole blocks of KV bytes, each held once; above the capacity the least recently used are evicted.

    Order of use is logical: no clock. Of one prompt the last blocks count as older than the first, so a block
    is never evicted before one that can only be reached through it. capacity_bytes: None is no limit.
    """

    def __init__(self, binding: Binding, block_tokens: int, capacity_bytes: int | None = None) -> None:
        if block_tokens < 1:
            raise FileError(f"kv-cache: blocks of {block_tokens} tokens. Take at least 1.")
        self.binding, self.block_tokens, self.capacity_bytes = binding, block_tokens, capacity_bytes
        self._blocks: dict[bytes, KVBlock] = {}  # the least recently used first
        self._bytes = 0

    def store(
        self,
        tokens: Sequence[int],
        k: KVBytes,
        v: KVBytes,
        states: Mapping[int, StateBytes] | None = None,
    ) -> int:
        """Keep copies of the whole blocks of one sequence's KV; returns the number of new blocks.

        states: by the number of tokens that they have seen; those behind whole blocks are kept, too.
        Raises FileError if a block is cached with other bytes, ValueError for arrays of another shape.
        """
        self._check("k", k, len(tokens))
        self._check("v", v, len(tokens))
        blocks = {block.key: block for block in self._cut(tokens, k, v, self._checked(states or {}))}
        added = [key for key in blocks if key not in self._blocks]
        for i, (key, block) in enumerate(blocks.items()):
            if key not in added and not _equal(self._blocks[key], block):
                first = i * self.block_tokens
                raise FileError(
                    f"kv-cache: tokens {first} to {first + self.block_tokens - 1} have other KV bytes than "
                    f"those cached under their key {key.hex()[:16]}. Use another folder or recompute."
                )
        for key, block in blocks.items():
            state = None if block.state is None else block.state.copy()
            if key in added:
                self._put(key, block._replace(k=block.k.copy(), v=block.v.copy(), state=state))
            elif state is not None and self._blocks[key].state is None:
                self._put(key, self._blocks[key]._replace(state=state), old=self._blocks[key].nbytes)
        self._use(list(blocks))
        self._evict()
        return len(added)

    def match(self, tokens: Sequence[int]) -> Hit:
        """The longest cached prefix, never the whole prompt: at least one token remains to be computed.

        Its logits choose the first new token, and no logits are cached. Of a model with states it ends at the
        last boundary whose state is kept: what lies behind must be computed again.
        """
        empty = np.zeros(self._shape(0), DTYPES[self.binding.kv])
        blocks = self._usable(tokens)
        self._use([block.key for block in blocks])
        k = np.concatenate([empty, *(block.k for block in blocks)], axis=1)
        v = np.concatenate([empty, *(block.v for block in blocks)], axis=1)
        return Hit(len(blocks) * self.block_tokens, k, v, blocks[-1].state if blocks else None)

    def known(self, tokens: Sequence[int]) -> int:
        """Tokens that `match` would find; nothing is used by it, and any thread may ask."""
        return len(self._usable(tokens)) * self.block_tokens

    def edges(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Tokens behind which states of a sequence should be kept; none of a model without states.

        Behind its last whole block, and where its KV that is held ends: there another prompt parted from it,
        and a third one may.
        """
        if not self.binding.layout.states:
            return ()
        counts = {len(self._run(tokens)), len(tokens) // self.block_tokens} - {0}
        return tuple(sorted(count * self.block_tokens for count in counts))

    def _run(self, tokens: Sequence[int]) -> list[KVBlock]:
        """The longest run of held blocks from the first on."""
        empty = np.zeros(self._shape(0), DTYPES[self.binding.kv])
        found: list[KVBlock] = []
        for block in self._cut(tokens, empty, empty):
            if (held := self._blocks.get(block.key)) is None:
                break
            found.append(held)
        return found

    def _usable(self, prompt: Sequence[int]) -> list[KVBlock]:
        """The same of a prompt but for its last token; of a model with states up to one that has them."""
        found = self._run(prompt[: max(len(prompt) - 1, 0)])
        while self.binding.layout.states and found and found[-1].state is None:
            found.pop()
        return found

    def close(self) -> None:
        """Nothing is held but memory."""

    def blocks(self) -> list[KVBlock]:
        """Every block, the least recently used first."""
        return list(self._blocks.values())

    def restore(self, blocks: Iterable[KVBlock]) -> None:
        """Insert the blocks of a saved cache, in their order of use; above the capacity the first go."""
        for block in blocks:
            self._put(block.key, block)
        self._evict()

    @property
    def nbytes(self) -> int:
        """Bytes of the keys, values and states that are held."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._blocks)

    def _cut(
        self, tokens: Sequence[int], k: KVBytes, v: KVBytes, states: Mapping[int, StateBytes] | None = None
    ) -> Iterator[KVBlock]:
        """The whole blocks of a sequence; before the first stands the digest of the binding."""
        before, ids, held = self.binding.digest(), np.asarray(tokens, "<i4"), states or {}
        for first in range(0, len(ids) - self.block_tokens + 1, self.block_tokens):
            span = slice(first, first + self.block_tokens)
            block = KVBlock(before, ids[span].copy(), k[:, span], v[:, span], held.get(span.stop))
            before = block.key
            yield block

    def _put(self, key: bytes, block: KVBlock, old: int = 0) -> None:
        self._blocks[key] = block
        self._bytes += block.nbytes - old

    def _use(self, keys: Sequence[bytes]) -> None:
        for key in reversed(keys):
            self._blocks[key] = self._blocks.pop(key)

    def _evict(self) -> None:
        while self.capacity_bytes is not None and self._bytes > self.capacity_bytes:
            key = next(iter(self._blocks))
            self._bytes -= self._blocks.pop(key).nbytes

    def _shape(self, tokens: int) -> tuple[int, int, int, int]:
        layout = self.binding.layout
        return layout.layers, tokens, layout.kv_heads, layout.head_dim

    def _check(self, name: str, array: Shaped[np.ndarray, "*axes"], tokens: int) -> None:
        """Raise ValueError unless the array has the cache's dtype and the shape of `tokens` tokens."""
        wanted, dtype = self._shape(tokens), DTYPES[self.binding.kv]
        if (array.shape, array.dtype) != (wanted, dtype):
            raise ValueError(
                f"kv-cache: {name} is {array.dtype} {list(array.shape)}, "
                f"the cache takes {dtype} {list(wanted)} for {tokens} tokens."
            )

    def _checked(self, states: Mapping[int, StateBytes]) -> Mapping[int, StateBytes]:
        """The states. Raises ValueError unless each has the cache's numbers, in f32."""
        wanted = (self.binding.layout.states,)
        for tokens, state in states.items():
            if (state.shape, state.dtype) != (wanted, np.float32):
                raise ValueError(
                    f"kv-cache: the state behind {tokens} tokens is {state.dtype} {list(state.shape)}, "
                    f"the cache takes float32 {list(wanted)}."
                )
        return states


def _equal(one: KVBlock, other: KVBlock) -> bool:
    states = [block.state.tobytes() for block in (one, other) if block.state is not None]
    same = len(set(states)) < 2  # of one alone there is nothing to compare
    return same and one.k.tobytes() == other.k.tobytes() and one.v.tobytes() == other.v.tobytes()
