"""Hand-over: KV bytes and states between messages of a GPU and the cache of a machine, by a program's rows.

What a region gets is what its row says: the call is the layer, the row's line the KV head and stripe, its
address the region, its count the most tokens that it takes. The machine's own regions are those of its
decode program; a row that names another place, or a region without a row, raises.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Int, Int32, Int64, Shaped

from compiler.program.instructions.attention import KVKernel, kv_words
from compiler.program.instructions.host import HandoverKernel, StateMoveKernel
from compiler.program.isa import COLUMNS, TAGS, Columns, Kernel, Op
from compiler.program.manifest import Move
from compiler.program.program import Program
from compiler.program.ranges import first_of
from lpu.link.error import fail
from lpu.run.error import MachineError
from lpu.run.handed.states import Leaves, MovedStates, get, moved_states, put
from lpu.run.kv import KV, in_stripe
from lpu.run.machine import Machine

Kind = Literal["ingest", "egress"]
Store = Shaped[Array, "regions sequences capacity head_dim"]
_OPS = {"ingest": Op.KVIN, "egress": Op.KVOUT}


class MovedRegions(NamedTuple):
    """Of every KV region of a machine: layer, KV head, [stripe, stripes, run], most tokens of its row."""

    layer: Int64[Array, " regions"]
    head: Int64[Array, " regions"]
    dealt: Int64[Array, "regions 3"]
    most: Int64[Array, " regions"]


@dataclass(frozen=True, slots=True)
class _Moves:
    """A hand-over program on a machine's regions; a message is [layers, tokens, heads, head_dim] twice.

    states: what it moves besides. layers: those with KV; regions: None where there are none.
    """

    regions: MovedRegions | None
    states: MovedStates
    layers: int
    tokens: int
    heads: int


class Handover:
    """The KV cache of a machine filled by an ingest program, and read back by an egress program.

    Raises LinkError or MachineError for a program whose rows are not of this machine's KV regions, each once.
    """

    def __init__(self, machine: Machine, ingest: Program, egress: Program | None = None) -> None:
        self._shapes, self._cached = machine.stores.shapes, machine.stores.cached
        self._context = max(machine.entries)
        self._in = _moves(machine, ingest, "ingest")
        self._out = None if egress is None else _moves(machine, egress, "egress")

    @property
    def moves_kv(self) -> bool:
        """Whether the machine keeps KV, or states only."""
        return self._in.regions is not None

    @property
    def tokens(self) -> int:
        """The most tokens of a message, each way."""
        return min(moves.tokens for moves in (self._in, self._out) if moves is not None)

    def take(self, state: KV, sequence: int, first: int, k: Any, v: Any, states: Leaves = ()) -> KV:
        """The cache with tokens first .. first+count-1 of a sequence, and its states; `state` is consumed.

        k, v: [layers, count, kv_heads, head_dim] in the cache's format (fp16, or e4m3 codes as uint8).
        states: [kept, channels] of every state of the model, as they are behind the message's tokens.
        A count below the program's takes its cycles all the same. Raises MachineError.
        """
        moves = self._in
        if moves.regions is None:
            self._check_sequence(sequence, "ingest")
            return put(moves.states, state, sequence, states)
        (shape,) = self._shapes
        parts = [np.asarray(k), np.asarray(v)]
        count = parts[0].shape[1] if parts[0].ndim == 4 else 0
        wanted = (moves.layers, count, moves.heads, shape.shape[-1])
        for name, part in zip("kv", parts, strict=True):
            if part.shape != wanted or part.dtype != shape.dtype:
                raise MachineError(
                    f"ingest: {name} is {part.dtype} {part.shape}, the program takes {np.dtype(shape.dtype)} "
                    f"({moves.layers}, tokens, {moves.heads}, {shape.shape[-1]})."
                )
        self._check(moves, sequence, first, count, "ingest")
        padded = [np.pad(part, ((0, 0), (0, moves.tokens - count), (0, 0), (0, 0))) for part in parts]
        where = jnp.int32(sequence), jnp.int32(first), jnp.int32(count)
        state = _take(moves.regions, state, *map(jnp.asarray, padded), *where)
        return put(moves.states, state, sequence, states)

    def give(self, state: KV, sequence: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(k, v) of tokens first .. first+count-1 of a sequence, each as `take` takes it.

        Raises MachineError.
        """
        if self._out is None:
            raise MachineError("egress: the hand-over has no egress program. Compile one beside the ingest.")
        moves = self._out
        self._check(moves, sequence, first, count, "egress")
        if moves.regions is None:
            raise MachineError("egress: the machine keeps states only, of which no token has a part.")
        sizes = moves.layers, moves.tokens, moves.heads
        k, v = _give(sizes, moves.regions, state, jnp.int32(sequence), jnp.int32(first))
        return np.asarray(k)[:, :count], np.asarray(v)[:, :count]

    def give_states(self, state: KV, sequence: int, shapes: Sequence[tuple[int, int]]) -> Leaves:
        """The states of a sequence, [kept, channels] each as `shapes` says. Raises MachineError."""
        if self._out is None:
            raise MachineError("egress: the hand-over has no egress program. Compile one beside the ingest.")
        self._check_sequence(sequence, "egress")
        return get(self._out.states, state, sequence, shapes)

    def _check_sequence(self, sequence: int, kind: Kind) -> None:
        if not 0 <= sequence < self._cached:
            raise MachineError(f"{kind}: sequence {sequence} is outside 0..{self._cached - 1}.")

    def _check(self, moves: _Moves, sequence: int, first: int, count: int, kind: Kind) -> None:
        self._check_sequence(sequence, kind)
        if not 1 <= count <= moves.tokens:
            raise MachineError(f"{kind}: {count} tokens, the program moves 1 to {moves.tokens} at a time.")
        if first < 0 or first + count > self._context:
            raise MachineError(
                f"{kind}: tokens {first}..{first + count - 1} are outside 0..{self._context - 1}."
            )


@partial(jax.jit, donate_argnums=1)
def _take(
    regions: MovedRegions,
    state: KV,
    k: Shaped[Array, "layers tokens heads head_dim"],
    v: Shaped[Array, "layers tokens heads head_dim"],
    sequence: Int32[Array, ""],
    first: Int32[Array, ""],
    count: Int32[Array, ""],
) -> KV:
    def written(store: Store, values: Shaped[Array, "layers tokens heads head_dim"]) -> Store:
        moved, place = _moved(regions, first, values.shape[1])
        moved &= jnp.arange(values.shape[1]) < count
        at = jnp.where(moved, place, store.shape[2])
        rows = jnp.arange(len(store))[:, None]
        return store.at[rows, sequence, at].set(values[regions.layer, :, regions.head], mode="drop")

    (keys,), (held,) = state.keys, state.values
    return state._replace(keys=(written(keys, k),), values=(written(held, v),))


@partial(jax.jit, static_argnums=0)
def _give(
    sizes: tuple[int, int, int],
    regions: MovedRegions,
    state: KV,
    sequence: Int32[Array, ""],
    first: Int32[Array, ""],
) -> tuple[Shaped[Array, "layers tokens heads head_dim"], Shaped[Array, "layers tokens heads head_dim"]]:
    layers, tokens, heads = sizes

    def get(store: Store) -> Shaped[Array, "layers tokens heads head_dim"]:
        moved, place = _moved(regions, first, tokens)
        rows = jnp.arange(len(store))[:, None]
        values = store[rows, sequence, jnp.minimum(place, store.shape[2] - 1)]
        at = jnp.where(moved, jnp.arange(tokens), tokens)
        out = jnp.zeros((layers, tokens, heads, store.shape[-1]), store.dtype)
        return out.at[regions.layer[:, None], at, regions.head[:, None]].set(values, mode="drop")

    (keys,), (held,) = state.keys, state.values
    return get(keys), get(held)


def _moved(
    regions: MovedRegions, first: Int32[Array, ""], tokens: int
) -> tuple[Bool[Array, "regions {tokens}"], Int[Array, "regions {tokens}"]]:
    """(whether each region moves each token of a message, where it lies in the region)."""
    inside, place = in_stripe(regions.dealt, (first + jnp.arange(tokens))[None])
    return inside & (jnp.cumsum(inside, axis=1) <= regions.most[:, None]), place


def _moves(machine: Machine, program: Program, kind: Kind) -> _Moves:
    """The program's rows on the machine's regions; LinkError or MachineError where they do not fit."""
    manifest, body = program.manifest, program.manifest.body
    if not isinstance(body, Move) or body.kind != kind:
        raise MachineError(f"{kind}: the program is of kind {manifest.kind!r}, not {kind!r}.")
    if len(machine.stores.shapes) > 1:
        raise MachineError(f"{kind}: the machine keeps {len(machine.stores.shapes)} shapes of KV, needs 1.")
    (context,) = manifest.contexts
    parts = [program.expand_call(call, context) for call in program.calls]
    layer = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    columns = Columns(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS + TAGS}
    )
    op = _OPS[kind]
    if (miss := first_of(columns.op != op)) >= 0:
        fail(columns, miss, f"has no place among the {op.name} rows of a hand-over")
    of_states = np.array([isinstance(kernel, StateMoveKernel) for kernel in manifest.kernels])[columns.aux]
    about = manifest.kernels, layer, np.flatnonzero(of_states), op
    states = moved_states(machine, columns, *about)
    columns, layer = columns.take(~of_states), np.unique(layer[~of_states], return_inverse=True)[1]
    if not machine.stores.shapes and not len(columns):
        return _Moves(None, states, 0, body.tokens, 0)
    regions, layers, heads = _kv_regions(machine, columns, manifest.kernels, layer, kind)
    return _Moves(regions, states, layers, body.tokens, heads)


def _kv_regions(
    machine: Machine,
    columns: Columns,
    kernels: Sequence[Kernel],
    layer: Int[np.ndarray, " rows"],
    kind: Kind,
) -> tuple[MovedRegions, int, int]:
    """Rows that move KV, on the machine's regions; layers and heads of a message."""
    if not machine.stores.shapes:
        fail(columns, 0, "moves KV, of which the machine keeps none")
    rows = _rows_of_regions(machine, columns, _OPS[kind])
    _check_kernels(machine, columns, kernels, rows)
    layers = len(np.unique(layer))
    places = machine.stores.places[0][:, 2:]
    dealt = np.maximum(places, [0, 1, 1])
    line, layer = columns.src3[rows], layer[rows]
    head, stripe = np.divmod(line, dealt[:, 1])
    if (miss := first_of((stripe != dealt[:, 0]) | (line < 0))) >= 0:
        message = (
            f"moves line {line[miss]}: of stripe {stripe[miss]}, its region holds stripe {dealt[miss, 0]}"
        )
        fail(columns, rows[miss], message)
    heads = int(head.max()) + 1
    named = np.unique((layer * heads + head) * dealt[:, 1] + stripe)
    if len(named) != len(line) or len(line) != layers * heads * int(dealt[0, 1]):
        raise MachineError(
            f"{kind}: {len(line)} KV regions take {len(named)} lines of {layers} layers, each with "
            f"{heads} heads of {dealt[0, 1]} stripes. Compile the program again."
        )
    regions = MovedRegions(*map(jnp.asarray, (layer, head, dealt, columns.n[rows])))
    return regions, layers, heads


def _rows_of_regions(machine: Machine, columns: Columns, op: Op) -> Int[np.ndarray, " regions"]:
    """The row of each region of the machine, in the order of its store."""
    word = columns.dst if op is Op.KVIN else columns.src2
    place = machine.stores.places[0]
    key, sought = place[:, 0] << 40 | place[:, 1], columns.chip << 40 | word
    order = np.argsort(key)
    at = order[np.minimum(np.searchsorted(key[order], sought), len(key) - 1)]
    if (miss := first_of(key[at] != sought)) >= 0:
        fail(columns, miss, "no KV region of the machine begins there", word[miss])
    rows = np.full(len(key), -1, np.int64)
    rows[at] = np.arange(len(at))
    if (miss := first_of(rows[at] != np.arange(len(at)))) >= 0:
        fail(columns, miss, f"row {rows[at[miss]]} moves the same KV region", word[miss])
    if (miss := first_of(rows < 0)) >= 0:
        raise MachineError(
            f"run: no {op.name} row moves the KV region at word {place[miss, 1]} of chip {place[miss, 0]}."
        )
    return rows


def _check_kernels(
    machine: Machine, columns: Columns, kernels: Sequence[Kernel], rows: Int[np.ndarray, " regions"]
) -> None:
    """LinkError unless the rows' kernels are of the regions that the machine has."""
    (shape,) = machine.stores.shapes
    _, cached, capacity, head_dim = shape.shape
    kv = "fp16" if shape.dtype == np.float16 else "fp8"
    words = kv_words(head_dim, kv)
    known = KVKernel(
        head_dim=head_dim,
        kv=kv,
        kv_words=words,
        kv_stride=capacity * words,
        capacity=capacity,
        cached=cached,
        run=1,
    )
    for row, (stripes, run) in zip(rows, machine.stores.places[0][:, 3:].tolist(), strict=True):
        found, want = kernels[int(columns.aux[row])], replace(known, stripes=stripes, run=run)
        if not isinstance(found, HandoverKernel):
            fail(columns, row, f"its kernel is one of {found.family}, must be of {HandoverKernel.family}")
        for name in (field.name for field in fields(want)):
            have, value = getattr(found, name), getattr(want, name)
            if have != value:
                fail(columns, row, f"its kernel has {name} {have}, the machine's regions {value}")
