"""Run: a linked program executed in JAX, one jitted scan over its steps.

The schedule is data: a step names its kernel, its operands' pool rows and where its results go. Kernels only
read the pools; one update per pool appends what they return. KV is read as the last step left it, with this
step's appended rows put in their place, and is written once at the end.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from compiler.isa import F16_LANES, F32_LANES, stripes
from compiler.program import Program
from lpu import host_memory
from lpu.image import Image, MachineError, Weights, image_bytes, place
from lpu.link import Dataflow, link
from lpu.run_kernels import KERNELS, KV, Env, Pools
from lpu.run_pack import Kind, Layout, Packed, Tables, pack
from models import formats
from models.formats import F16, F32, F64, rn8


class Step(NamedTuple):
    """What one step returns: logits f32 [batch, vocab], the most likely token [batch], and the KV state."""

    logits: Array
    token: Array
    state: KV


class Machine:
    """A program loaded with its weights: `step` runs one token per sequence, the state is the KV cache."""

    def __init__(self, image: Image, kv: list[jax.ShapeDtypeStruct], entries: dict[int, Packed]) -> None:
        self.image, self.entries, self._kv = image, entries, kv
        self.batch = next(iter(entries.values())).layout.batch
        self._tables = {context: jax.device_put(packed.tables) for context, packed in entries.items()}

    def start(self) -> KV:
        """An empty KV cache."""
        keys, values = (tuple(jnp.zeros(s.shape, s.dtype) for s in self._kv) for _ in range(2))
        return KV(keys, values)

    def counts(self, context: int) -> dict[str, int]:
        """Steps, levels, and items per kernel of one context bucket."""
        return dict(self.entries[context].counts)

    def bucket(self, positions: Any) -> int:
        """The smallest context bucket that holds these positions."""
        last = int(np.max(positions))
        for context in sorted(self.entries):
            if last < context:
                return context
        raise MachineError(
            f"run: position {last} is beyond the largest context, {max(self.entries)}. "
            "Compile with a longer --context."
        )

    def step(self, state: KV, tokens: Any, positions: Any) -> Step:
        """One decode step; `state` is consumed.

        Raises MachineError for inputs out of range and for NaN or Inf in the logits.
        """
        tokens, positions = np.asarray(tokens, np.int32), np.asarray(positions, np.int32)
        context = self.bucket(positions)
        layout = self.entries[context].layout
        known = len(self.image.tables[0]) if self.image.tables else layout.vocab
        for name, array, most in (("token", tokens, known), ("position", positions, context)):
            if array.shape != (layout.batch,):
                raise MachineError(
                    f"run: {name}s have shape {array.shape}, the program takes {layout.batch}."
                )
            if array.min() < 0 or array.max() >= most:
                raise MachineError(f"run: {name} {array.min()}..{array.max()} is outside 0..{most - 1}.")
        logits, token, finite, state = execute(
            layout, self._tables[context], self.image, state, jnp.asarray(tokens), jnp.asarray(positions)
        )
        if not bool(finite):
            raise MachineError("run: the logits hold NaN or Inf. The contract knows finite values only.")
        return Step(logits, token, state)


def prepare(program: Program, weights: Weights) -> Machine:
    """Link every context bucket, build the SRAM image, pack the steps.

    Raises LinkError for a program that breaks its schedule, MachineError for weights that do not fit it.
    """
    formats.guard()
    loads, manifest = program.loads(), program.manifest
    flows = {context: link(manifest, loads, program.expand(context)) for context in manifest["contexts"]}
    shapes, stores = _stores(flows)
    kv_bytes = 2 * sum(int(np.prod(shape.shape)) * shape.dtype.itemsize for shape in shapes)
    host_memory.require(image_bytes(loads, program.slots()) + kv_bytes)
    placed = place(loads, program.slots(), weights)
    entries: dict[int, Packed] = {}
    for context, flow in flows.items():
        entries[context] = pack(flow, placed, stores)
    return Machine(placed.image, shapes, entries)


def _stores(flows: Mapping[int, Dataflow]) -> tuple[list[jax.ShapeDtypeStruct], dict[int, int]]:
    """(shape of each KV store, store of each attention kernel); every bucket must use the same regions."""
    places: dict[tuple[int, str, int], np.ndarray] = {}
    stores: dict[int, int] = {}
    for context, flow in flows.items():
        found: dict[tuple[int, str, int], list[int]] = {}
        for region, row in enumerate(flow.append):
            kernel = flow.kernels[int(flow.columns.aux[row])]
            found.setdefault((kernel["head_dim"], kernel["kv"], kernel["capacity"]), []).append(region)
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
    batch = next(iter(flows.values())).batch
    shapes = [
        jax.ShapeDtypeStruct((len(at), batch, capacity, head_dim), np.float16 if kv == "fp16" else np.uint8)
        for (head_dim, kv, capacity), at in places.items()
    ]
    return shapes, stores


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
    layout: Layout, tables: Tables, image: Image, state: KV, tokens: Array, positions: Array
) -> tuple[Array, Array, Array, KV]:
    """(logits, token, whether all logits are finite, state) of one step."""
    env = Env(image, state, tokens, positions)
    branches = [_branch(kind, layout) for kind in layout.kinds]
    pools = Pools(*(jnp.zeros(shape, dtype) for shape, dtype in pool_shapes(layout, layout.pools)))

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
    pools, _ = lax.scan(step, pools, steps)
    assert pools.f16 is not None
    assert pools.f32 is not None
    logits = jnp.moveaxis(pools.f32[tables.logits], 0, 1).reshape(layout.batch, -1)[:, : layout.vocab]
    token = pools.f32[tables.token, :, 1].astype(jnp.int32)
    new = KV(
        *(
            tuple(
                _append(s, pools.f16[r], positions, d)
                for s, r, d in zip(old, rows, tables.dealt, strict=True)
            )
            for old, rows in ((state.keys, tables.keys), (state.values, tables.values))
        )
    )
    return logits, token, jnp.isfinite(logits).all(), new


def _append(store: Array, lines: Array, positions: Array, dealt: Any) -> Array:
    """The store with a head per region and sequence at its position; lines [regions, n, batch, 160].

    A region whose stripe (`dealt`: stripe, stripes) the position does not fall in stays as it was.
    """
    regions, batch, capacity, head_dim = store.shape
    new = jnp.moveaxis(lines, 1, 2).reshape(regions, batch, -1)[..., :head_dim]
    new = rn8(new.astype(F32)) if store.dtype == jnp.uint8 else new
    region, row = jnp.arange(regions)[:, None], jnp.arange(batch)[None]
    turn, count = positions[None] // F32_LANES, dealt[:, 1:]
    place = turn // count * F32_LANES + positions[None] % F32_LANES
    place = jnp.where(turn % count == dealt[:, :1], place, capacity)
    return store.at[region, row, place].set(new, unique_indices=True, indices_are_sorted=True, mode="drop")
