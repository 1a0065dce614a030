"""The KV cache of a machine: its arrays, the regions of a program that they hold, and what a step appends."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float16, Int, Int32, Shaped

from compiler.program.instructions.attention import KVKernel
from lpu.link.link import Dataflow
from lpu.run.error import MachineError
from models.contract.formats import F32, rn8


class KV(NamedTuple):
    """The cache, per shape of attention: keys and values [regions, sequences, capacity, head_dim]."""

    keys: tuple[Array, ...]
    values: tuple[Array, ...]


class Stores(NamedTuple):
    """The KV arrays of a program.

    shapes: of each array. of_kernel: the array that an attention kernel (an index of the manifest's) uses.
    places: of each array int64 [regions, 5]: chip and first word of a region, its stripe (-1: the only one),
    how many stripes there are, and tokens that they are dealt at a time.
    """

    shapes: list[jax.ShapeDtypeStruct]
    of_kernel: dict[int, int]
    places: list[np.ndarray]

    @property
    def bytes(self) -> int:
        """Host bytes of keys and values."""
        return 2 * sum(int(np.prod(s.shape)) * s.dtype.itemsize for s in self.shapes)


class _RegionShape(NamedTuple):
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
            shape = _RegionShape(kernel.head_dim, kernel.kv, kernel.capacity, kernel.cached)
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
    shapes = [
        jax.ShapeDtypeStruct(
            (len(at), shape.cached, shape.capacity, shape.head_dim),
            np.float16 if shape.kv == "fp16" else np.uint8,
        )
        for shape, at in places.items()
    ]
    return Stores(shapes, stores, list(places.values()))


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
