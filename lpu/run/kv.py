"""What a machine keeps from step to step: its arrays, the regions that they hold, what a step leaves.

States of fixed size lie line by line: those of one shape in one array, in the order of their places.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float16, Float32, Int, Int32, Shaped

from compiler.program.instructions.attention import AttentionKernel, KVKernel
from compiler.program.isa import F32_LANES, ceil_div
from lpu.link.link import Dataflow
from lpu.run.error import MachineError
from models.contract.formats import F32, rn8


class KV(NamedTuple):
    """The cache, per shape of attention: keys and values [regions, sequences, capacity, head_dim].

    states: per shape of state, f32 [lines, sequences, kept, 80].
    """

    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    states: tuple[Array, ...] = ()


class Stores(NamedTuple):
    """The KV arrays of a program.

    shapes: of each array of values; keys: of each array of keys, beside them. of_kernel: the arrays that an
    attention kernel (an index of the manifest's) uses.
    places: of each array int64 [regions, 5]: chip and first word of a region, its stripe (-1: the only one),
    how many stripes there are, and tokens that they are dealt at a time. states: the shapes of the states;
    state_places: of each line of each of them chip and first word.
    """

    shapes: list[jax.ShapeDtypeStruct]
    of_kernel: dict[int, int]
    places: list[np.ndarray]
    keys: list[jax.ShapeDtypeStruct]
    states: list[jax.ShapeDtypeStruct]
    state_places: list[np.ndarray]

    @property
    def bytes(self) -> int:
        """Host bytes of keys, values and states."""
        every = (*self.keys, *self.shapes, *self.states)
        return sum(int(np.prod(s.shape)) * s.dtype.itemsize for s in every)

    @property
    def cached(self) -> int:
        """Sequences that are kept; 0 where nothing is."""
        return next((shape.shape[1] for shape in (*self.shapes, *self.states)), 0)


class StateClass(NamedTuple):
    """States of one shape: what they keep of a channel, of how many sequences, and which of a dataflow's."""

    kept: int
    cached: int
    lines: slice


def state_classes(flow: Dataflow) -> list[StateClass]:
    """The states of a dataflow by shape."""
    shapes, first, count = np.unique(flow.states[:, 2:4], axis=0, return_index=True, return_counts=True)
    return [
        StateClass(kept, cached, slice(begin, begin + lines))
        for (kept, cached), begin, lines in zip(shapes.tolist(), first.tolist(), count.tolist(), strict=True)
    ]


def start(stores: Stores) -> KV:
    """An empty cache, and states that are zero."""
    every = (stores.keys, stores.shapes, stores.states)
    return KV(*(tuple(jnp.zeros(s.shape, s.dtype) for s in shapes) for shapes in every))


class _RegionShape(NamedTuple):
    key_lanes: int
    head_dim: int
    kv: str
    capacity: int
    cached: int


def kv_stores(flows: Mapping[int, Dataflow]) -> Stores:
    """The KV arrays of a program, by its dataflow of each context bucket.

    Raises MachineError unless every bucket uses the same regions, all of one shape.
    """
    places: dict[_RegionShape, np.ndarray] = {}
    stores: dict[int, int] = {}
    of_shape: dict[_RegionShape, int] = {}
    for context, flow in flows.items():
        found: dict[_RegionShape, list[int]] = {}
        for region, row in enumerate(flow.append):
            kernel = region_kernel(flow, row)
            shape = _RegionShape(
                kernel.key_lanes, kernel.head_dim, kernel.kv, kernel.kept_tokens, kernel.cached
            )
            found.setdefault(shape, []).append(region)
            stores[int(flow.columns.aux[row])] = of_shape.setdefault(shape, len(of_shape))
        for shape, regions in found.items():
            rows = flow.append[regions]
            kernels = [region_kernel(flow, row) for row in rows]
            stripes = [(kernel.stripes, kernel.run) for kernel in kernels]
            at = np.column_stack([flow.region_at[regions], flow.columns.src3[rows], stripes])
            if not np.array_equal(places.setdefault(shape, at), at) or len(found) < len(of_shape):
                raise MachineError(
                    f"run: the KV regions of context {context} differ from those of another context."
                )
    keys, values = (
        [
            jax.ShapeDtypeStruct(
                (len(at), shape.cached, shape.capacity, shape[lanes]),
                np.float16 if shape.kv == "fp16" else np.uint8,
            )
            for shape, at in places.items()
        ]
        for lanes in (0, 1)
    )
    return Stores(values, stores, list(places.values()), keys, *_states(flows))


def _states(flows: Mapping[int, Dataflow]) -> tuple[list[jax.ShapeDtypeStruct], list[np.ndarray]]:
    """Shapes and places of the states. Raises MachineError unless every bucket keeps the same."""
    flow = next(iter(flows.values()))
    for context, other in flows.items():
        if not np.array_equal(flow.states[:, :4], other.states[:, :4]):
            raise MachineError(f"run: the states of context {context} differ from those of another context.")
    classes = state_classes(flow)
    shapes = [
        jax.ShapeDtypeStruct((one.lines.stop - one.lines.start, one.cached, one.kept, F32_LANES), np.float32)
        for one in classes
    ]
    return shapes, [flow.states[one.lines, :2] for one in classes]


def held_states(
    store: Float32[Array, "lines sequences kept 80"], sequence: Int32[Array, ""], takes: int
) -> Float32[Array, "lines takes kept 80"]:
    """The states of the sequences that a step takes."""
    return lax.dynamic_slice_in_dim(store, sequence, takes, 1)


def rows_of_states(
    new: Float32[Array, "items sequences kept 80"], batch: int
) -> Float32[Array, "items rows batch 80"]:
    """Pool rows of the states of each item: kept values beside each other, a run per sequence."""
    items, sequences, kept, lanes = new.shape
    share = batch // sequences
    count = int(ceil_div(kept, share))
    padded = jnp.pad(new, ((0, 0), (0, 0), (0, count * share - kept), (0, 0)))
    cut = padded.reshape(items, sequences, count, share, lanes)
    return jnp.moveaxis(cut, 2, 1).reshape(items, count, batch, lanes)


def renew(
    store: Float32[Array, "lines sequences kept 80"],
    pool: Float32[Array, "rows batch 80"],
    rows: Int32[Any, " lines"],
    sequence: Int32[Array, ""],
    takes: int,
) -> Float32[Array, "lines sequences kept 80"]:
    """The store with the states of the sequences that a step took, from the pool rows where they begin."""
    lines, _, kept, lanes = store.shape
    batch = pool.shape[1]
    count = int(ceil_div(kept, batch // takes))
    new = pool[rows[:, None] + jnp.arange(count)].reshape(lines, count, takes, -1, lanes)
    new = jnp.moveaxis(new, 1, 2).reshape(lines, takes, -1, lanes)[:, :, :kept]
    return lax.dynamic_update_slice_in_dim(store, new, sequence, 1)


def region_numbers(flow: Dataflow, stores: Mapping[int, int]) -> Int[np.ndarray, " regions"]:
    """Which of the regions in its KV array each region is; stores: the array of each attention kernel."""
    of = np.array([stores[int(flow.columns.aux[row])] for row in flow.append], np.int64)
    numbers = np.zeros(len(of), np.int64)
    for store in np.unique(of):
        numbers[of == store] = np.arange(np.sum(of == store))
    return numbers


def region_kernel(flow: Dataflow, row: Any) -> KVKernel:
    """The kernel of a row that appends to a KV region."""
    kernel = flow.kernels[int(flow.columns.aux[row])]
    assert isinstance(kernel, KVKernel)
    return kernel


def early_tokens(kernel: KVKernel) -> int:
    """Tokens of a context that lie in DDR5, where a step appends none."""
    return kernel.early * kernel.block if isinstance(kernel, AttentionKernel) else 0


def append(
    store: Shaped[Array, "regions sequences capacity head_dim"],
    lines: Float16[Array, "regions lines batch 160"],
    dealt: Int32[Any, "regions 3"],
    sequence: Int32[Array, " batch"],
    positions: Int32[Array, " batch"],
) -> Shaped[Array, "regions sequences capacity head_dim"]:
    """The store with the new head of each region and row in its place.

    A region whose stripe (`dealt`: stripe, stripes, run) the position does not fall in stays as it was.
    """
    inside, place = in_stripe(dealt, positions[None])
    at = jnp.where(inside, in_region(place, store.shape[2]), store.shape[2])
    regions = jnp.arange(len(store))[:, None]
    return store.at[regions, sequence[None], at].set(heads_of(store, lines), mode="drop")


def in_stripe(
    dealt: Int[Any, "regions 3"], positions: Int[Any, "1 tokens"]
) -> tuple[Bool[Any, "regions tokens"], Int[Any, "regions tokens"]]:
    """(whether positions fall in the stripe of each region, where in it).

    dealt: its stripe, stripes, and tokens of a run, which the stripes are dealt in turn.
    """
    count, run = dealt[:, 1:2], dealt[:, 2:]
    turn = positions // run
    return turn % count == dealt[:, :1], turn // count * run + positions % run


def in_region(place: Int[Any, "regions tokens"], capacity: int) -> Int[Any, "regions tokens"]:
    """Where tokens lie in regions of that many tokens, which take turns in a ring."""
    return place % capacity


def heads_of(
    store: Shaped[Array, "regions sequences capacity head_dim"],
    lines: Float16[Array, "regions lines batch 160"],
) -> Shaped[Array, "regions batch head_dim"]:
    """The heads in the lines of each region, as the store keeps them."""
    regions, _, rows, _ = lines.shape
    new = jnp.moveaxis(lines, 1, 2).reshape(regions, rows, -1)[..., : store.shape[-1]]
    return rn8(new.astype(F32)) if store.dtype == jnp.uint8 else new
