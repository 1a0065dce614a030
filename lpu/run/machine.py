"""Run: a linked program executed in JAX, one jitted scan over its steps.

The schedule is data: a step names its kernel, its operands' pool rows and where its results go. Kernels only
read the pools; one update per pool appends what they return. KV is read as the last step left it, with this
step's appended rows put in their place, and is written once at the end.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from compiler.program.isa import F16_LANES, F32_LANES, stripes
from compiler.program.program import Loads, Program
from lpu.link.link import Dataflow, link
from lpu.run import host_memory
from lpu.run.fill import place
from lpu.run.image import Image, MachineError, Placed, Slot, Weights, image_bytes, same_image
from lpu.run.kernels import KERNELS, KV, Env, Pools
from lpu.run.pack import Kind, Layout, Packed, Tables, pack
from models.contract import formats
from models.contract.formats import F16, F32, F64, rn8


class Step(NamedTuple):
    """What one step returns: logits f32 [rows, vocab], the most likely token [rows], and the KV state."""

    logits: Array
    token: Array
    state: KV


class Machine:
    """A program loaded with its weights: `step` takes one token per row, the state is the KV cache.

    rows: tokens of a step, in equal runs of `takes` sequences of the `cached` ones.
    """

    def __init__(self, placed: Placed, stores: "Stores", entries: dict[int, Packed]) -> None:
        self.placed, self.image, self.entries, self.stores = placed, placed.image, entries, stores
        layout = next(iter(entries.values())).layout
        self.rows, self.takes = layout.batch, layout.sequences
        self.cached = stores.shapes[0].shape[1] if stores.shapes else self.takes
        self._tables = {context: jax.device_put(packed.tables) for context, packed in entries.items()}

    def start(self) -> KV:
        """An empty KV cache."""
        keys, values = (tuple(jnp.zeros(s.shape, s.dtype) for s in self.stores.shapes) for _ in range(2))
        return KV(keys, values)

    def counts(self, context: int) -> dict[str, int]:
        """Steps, levels, and items per kernel of one context bucket."""
        return dict(self.entries[context].counts)

    def bucket(self, positions: Any) -> int:
        """The smallest context bucket that holds these positions."""
        return bucket_of(self.entries, positions)

    def step(self, state: KV, tokens: Any, positions: Any, sequence: int = 0) -> Step:
        """One step; `state` is consumed. sequence: the first of the cache's that it is for.

        Raises MachineError for inputs out of range and for NaN or Inf in the logits.
        """
        context = self.bucket(positions)
        layout = self.entries[context].layout
        known = len(self.image.tables[0]) if self.image.tables else layout.vocab
        tokens, positions = checked_inputs(layout.batch, known, context, tokens, positions)
        if not 0 <= sequence <= self.cached - self.takes:
            raise MachineError(f"run: sequence {sequence} is outside 0..{self.cached - self.takes}.")
        if (np.diff(positions.reshape(self.takes, -1), axis=1) < 1).any():
            raise MachineError("run: the positions of a chunk do not ascend.")
        logits, token, finite, state = execute(
            layout,
            self._tables[context],
            self.image,
            state,
            jnp.asarray(tokens),
            jnp.asarray(positions),
            jnp.int32(sequence),
        )
        if not bool(finite):
            raise MachineError("run: the logits hold NaN or Inf. The contract knows finite values only.")
        return Step(logits, token, state)


class Stores(NamedTuple):
    """The KV arrays: shape of each, store of each attention kernel, chip and word of the regions of each."""

    shapes: list[jax.ShapeDtypeStruct]
    of_kernel: dict[int, int]
    places: list[np.ndarray]


def bucket_of(contexts: Iterable[int], positions: Any) -> int:
    """The smallest of these context buckets that holds the positions."""
    last = int(np.max(positions))
    largest = max(contexts := sorted(contexts))
    if last >= largest:
        raise MachineError(
            f"run: position {last} is beyond the largest context, {largest}. Compile with a longer --context."
        )
    return next(context for context in contexts if last < context)


def checked_inputs(
    batch: int, known: int, context: int, tokens: Any, positions: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens below `known` and positions below `context`, one per sequence; MachineError for others."""
    tokens, positions = np.asarray(tokens, np.int32), np.asarray(positions, np.int32)
    for name, array, most in (("token", tokens, known), ("position", positions, context)):
        if array.shape != (batch,):
            raise MachineError(f"run: {name}s have shape {array.shape}, the program takes {batch}.")
        if array.min() < 0 or array.max() >= most:
            raise MachineError(f"run: {name} {array.min()}..{array.max()} is outside 0..{most - 1}.")
    return tokens, positions


class Linked(NamedTuple):
    """A program's preloads, their tensors, the dataflow of each context bucket, the host bytes it takes."""

    loads: Loads
    slots: list[Slot]
    flows: dict[int, Dataflow]
    bytes: int


def linked(program: Program) -> Linked:
    """Link every context bucket; raises LinkError for a program that breaks its schedule."""
    loads, slots, manifest = program.loads(), program.slots(), program.manifest
    flows = {context: link(manifest, loads, program.expand(context)) for context in manifest.contexts}
    kv_bytes = 2 * sum(int(np.prod(s.shape)) * s.dtype.itemsize for s in kv_stores(flows).shapes)
    return Linked(loads, slots, flows, image_bytes(loads, slots) + kv_bytes)


def prepare(
    program: Program, weights: Weights, beside: Machine | None = None, ready: Linked | None = None
) -> Machine:
    """Link every context bucket (unless done), build the SRAM image, pack the steps.

    beside: a machine whose image and KV state this one shares; the programs must have been compiled together.
    Raises LinkError for a program that breaks its schedule, MachineError for weights that do not fit it.
    """
    formats.guard()
    loads, slots, flows, bytes_ = ready or linked(program)
    stores = kv_stores(flows)
    if beside is None:
        host_memory.require(bytes_)
        placed = place(loads, slots, weights)
    else:
        placed = beside.placed
        _shared(beside, stores, loads, slots)
    entries: dict[int, Packed] = {}
    for context, flow in flows.items():
        entries[context] = pack(flow, placed, stores.of_kernel)
    if beside is not None:
        host_memory.require(max(_pool_bytes(packed.layout) for packed in entries.values()), host_memory.LINES)
    return Machine(placed, stores, entries)


def _pool_bytes(layout: Layout) -> int:
    """Host bytes of all lines that a step computes."""
    shapes = pool_shapes(layout, layout.pools)
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in shapes)


def _shared(beside: Machine, stores: Stores, loads: Loads, slots: list[Slot]) -> None:
    """Raise MachineError unless a program may use a machine's image and KV state."""
    other = beside.stores
    differs = [
        name
        for name, same in (
            ("preloaded values", same_image(beside.placed, loads, slots)),
            ("KV shapes", stores.shapes == other.shapes),
            ("KV regions", all(map(np.array_equal, stores.places, other.places))),
        )
        if not same
    ]
    if differs:
        raise MachineError(
            f"run: the programs have different {' and '.join(differs)}: no common memory image. "
            "Compile them together, with --prefill."
        )


def kv_stores(flows: Mapping[int, Dataflow]) -> Stores:
    """The KV arrays of a program; every bucket must use the same regions."""
    places: dict[tuple[int, str, int, int], np.ndarray] = {}
    stores: dict[int, int] = {}
    for context, flow in flows.items():
        found: dict[tuple[int, str, int, int], list[int]] = {}
        for region, row in enumerate(flow.append):
            kernel = flow.kernels[int(flow.columns.aux[row])]
            shape = (kernel.head_dim, kernel.kv, kernel.capacity, kernel.cached)
            found.setdefault(shape, []).append(region)
            stores[int(flow.columns.aux[row])] = 0
        for shape, regions in found.items():
            rows = flow.append[regions]
            dealt = [stripes(flow.kernels[int(aux)]) for aux in flow.columns.aux[rows]]
            at = np.column_stack([flow.region_at[regions], flow.columns.src3[rows], dealt])
            if not np.array_equal(places.setdefault(shape, at), at):
                raise MachineError(
                    f"run: the KV regions of context {context} differ from those of another context."
                )
    if len(places) > 1:
        raise MachineError(
            f"run: {len(places)} shapes of KV in one program, {sorted(places)}, only one is supported."
        )
    shapes = [
        jax.ShapeDtypeStruct((len(at), cached, capacity, head_dim), np.float16 if kv == "fp16" else np.uint8)
        for (head_dim, kv, capacity, cached), at in places.items()
    ]
    return Stores(shapes, stores, list(places.values()))


def _branch(kind: Kind, layout: Layout) -> Any:
    """The kernel of one kind as a branch: a new block of rows for each pool, zeros where it has none."""
    shapes = pool_shapes(layout, layout.block)

    def run(env: Env, pools: Pools, table: Array, offset: Array) -> tuple[Array, ...]:
        t = lax.dynamic_slice(table, (offset,), (kind.batch * kind.width,)).reshape(kind.batch, kind.width)
        rows = KERNELS[kind.kernel](dict(kind.params), env, pools, t)
        out: list[Array] = []
        for new, (shape, dtype) in zip(rows, shapes, strict=True):
            if new is None:
                out.append(jnp.zeros(shape, dtype))
            else:
                out.append(jnp.pad(new, [(0, shape[0] - len(new))] + [(0, 0)] * (len(shape) - 1)))
        return tuple(out)

    return run


def pool_shapes(layout: Layout, rows: tuple[int, int, int]) -> list[tuple[tuple[int, ...], Any]]:
    """(shape, dtype) of the three pools or of blocks of them."""
    lanes = (
        ((layout.batch, F16_LANES), F16),
        ((layout.batch, F32_LANES), F32),
        ((2, layout.batch, F32_LANES), F64),
    )
    return [((count, *shape), dtype) for count, (shape, dtype) in zip(rows, lanes, strict=True)]


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def execute(
    layout: Layout,
    tables: Tables,
    image: Image,
    state: KV,
    tokens: Array,
    positions: Array,
    sequence: Array,
) -> tuple[Array, Array, Array, KV]:
    """(logits, token, whether all logits are finite, state) of one step."""
    env = Env(image, state, tokens, positions, sequence)
    pools = Pools(*(jnp.zeros(shape, dtype) for shape, dtype in pool_shapes(layout, layout.pools)))
    pools = take_steps(layout, tables, env, pools)
    assert pools.f16 is not None
    assert pools.f32 is not None
    logits = jnp.moveaxis(pools.f32[tables.logits], 0, 1).reshape(layout.batch, -1)[:, : layout.vocab]
    token = pools.f32[tables.token, :, 1].astype(jnp.int32)
    at = sequence + jnp.arange(layout.batch) // (layout.batch // layout.sequences)
    append = partial(_append, sequence=at, positions=positions)
    keys = zip(state.keys, tables.keys, tables.dealt, strict=True)
    values = zip(state.values, tables.values, tables.dealt, strict=True)
    new = KV(
        tuple(append(s, pools.f16[r], d) for s, r, d in keys),
        tuple(append(s, pools.f16[r], d) for s, r, d in values),
    )
    return logits, token, jnp.isfinite(logits).all(), new


def take_steps(layout: Layout, tables: Tables, env: Env, pools: Pools) -> Pools:
    """The pools after all steps."""
    branches = [_branch(kind, layout) for kind in layout.kinds]

    def step(pools: Pools, now: tuple[Array, Array, Array]) -> tuple[Pools, None]:
        kind, offset, rows = now
        blocks = lax.switch(kind, branches, env, pools, tables.table, offset)
        out = [
            lax.dynamic_update_slice(pool, block, (rows[i], *(jnp.int32(0) for _ in block.shape[1:])))
            for i, (pool, block) in enumerate(zip(pools, blocks, strict=True))
            if pool is not None
        ]
        return Pools(*out), None

    steps: Any = (tables.kind, tables.offset, tables.rows)
    return lax.scan(step, pools, steps)[0]


def _append(store: Array, lines: Array, dealt: Any, sequence: Array, positions: Array) -> Array:
    """The store with the head of each region and row in place; lines [regions, n, rows, 160].

    A region whose stripe (`dealt`: stripe, stripes) the position does not fall in stays as it was.
    """
    inside, place = in_stripe(dealt, positions[None])
    at = jnp.where(inside, place, store.shape[2])
    regions = jnp.arange(len(store))[:, None]
    return store.at[regions, sequence[None], at].set(heads_of(store, lines), mode="drop")


def in_stripe(dealt: Any, positions: Any) -> tuple[Any, Any]:
    """(whether positions [1, rows] fall in the stripe of each region, where in it); dealt [regions, 2]."""
    turn, count = positions // F32_LANES, dealt[:, 1:]
    return turn % count == dealt[:, :1], turn // count * F32_LANES + positions % F32_LANES


def heads_of(store: Array, lines: Array) -> Array:
    """The heads [regions, rows, head_dim] in lines [regions, n, rows, 160], as the store keeps them."""
    regions, _, rows, _ = lines.shape
    new = jnp.moveaxis(lines, 1, 2).reshape(regions, rows, -1)[..., : store.shape[-1]]
    return rn8(new.astype(F32)) if store.dtype == jnp.uint8 else new
