"""Stream: a linked program executed call by call, each with its own weights only.

For models whose weights exceed the host's memory. The dataflow is the linked program's, cut at its calls;
what passes between calls (the residual) lies on the host, as do the KV stores. The bits are those of the
whole machine: the same items on the same operands, in another packing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float32, Int, Int32, Shaped, UInt8

from compiler.program.program import Loads, Program
from lpu.link.link import Dataflow
from lpu.run import host_memory
from lpu.run.clips import Clips, Made, at_limit
from lpu.run.error import MachineError
from lpu.run.execute import take_steps
from lpu.run.fill import shape_of
from lpu.run.image import Image, ImagePlan, Slot, Weights, plan_image
from lpu.run.kv import KV, heads_of, in_region, in_stripe, kv_stores
from lpu.run.machine import Linked, Machine, linked, prepare
from lpu.run.overflow import Overflow, require_enough
from lpu.run.pack.layout import Carried, Counts, StepLayout, StepTables
from lpu.run.pack.pack import logits_rows, pack
from lpu.run.pools import Env, Pool, Pools
from lpu.run.step_inputs import bucket_of, checked_inputs
from lpu.run.streamed.cut import Piece, cut, pool_of
from lpu.run.streamed.feed import Feed, StreamRate, stream_bytes
from models.contract import formats
from models.sources.host_arrays import aligned_zeros, borrow

Progress = Callable[[str, int, int], None]
State = tuple[KV, ...]
PerPool = tuple[Int[np.ndarray, "_"], ...]


class StreamedStep(NamedTuple):
    """What one step returns: logits, the most likely token of each row, and the KV state."""

    logits: Float32[np.ndarray, "batch vocab"]
    token: Int32[np.ndarray, " batch"]
    state: State


@dataclass(frozen=True, slots=True)
class PackedCall:
    """One call in one context bucket, packed.

    takes: per pool the host rows that lie in its first rows; gives: per pool the rows that it leaves, and in
    `at` where on the host they begin. made: what leaves each fp16 row.
    """

    layout: StepLayout
    tables: StepTables
    counts: dict[str, int]
    takes: PerPool
    gives: PerPool
    at: tuple[int, ...]
    made: Made


@dataclass(frozen=True, slots=True)
class Outputs:
    """Host rows per pool of one bucket, and those of the logits lines and the token."""

    rows: Counts
    logits: Int[np.ndarray, " lines"]
    token: int


class StreamedMachine:
    """A program with its weights at hand but not in memory; used as `Machine` is, and has its `clips`."""

    def __init__(
        self,
        weights: Weights,
        plans: Sequence[ImagePlan],
        kv: Sequence[tuple[list[jax.ShapeDtypeStruct], list[jax.ShapeDtypeStruct]]],
        entries: dict[int, list[PackedCall]],
        outputs: dict[int, Outputs],
        program: Program,
        progress: Progress | None,
    ) -> None:
        self.clips, self.overflow, vocab = Clips(program), Overflow(program), program.manifest.vocab
        self.weights, self.entries, self.outputs, self.vocab = weights, entries, outputs, vocab
        self.batch = next(iter(entries.values()))[0].layout.batch
        self._kv, self._feed, self._progress, self._steps = kv, Feed(plans), progress, 0
        tables = [name for one in plans for name in one.tables]
        self._known = min((shape_of(weights, name)[0][0] for name in tables), default=vocab)

    @property
    def waited_seconds(self) -> float:
        """Measured: how long the steps so far waited for weights."""
        return self._feed.waited_seconds

    def rate(self) -> StreamRate:
        """What a step takes of the weights, and how fast a sample of them comes here."""
        return self._feed.measured(self.weights)

    def start(self) -> State:
        """An empty KV cache: stores per call, in host memory that is taken when it is written."""
        self._steps = 0
        self.clips.reset()

        def zeros(shapes: list[jax.ShapeDtypeStruct]) -> tuple[Any, ...]:
            return tuple(aligned_zeros(s.shape, s.dtype) for s in shapes)

        return tuple(KV(zeros(keys), zeros(values)) for keys, values in self._kv)

    def counts(self, context: int) -> dict[str, int]:
        """Steps, levels, and items per kernel of one context bucket, all calls together."""
        out: dict[str, int] = {}
        for entry in self.entries[context]:
            for name, count in entry.counts.items():
                out[name] = out.get(name, 0) + count
        return out

    def bucket(self, positions: Any) -> int:
        """The smallest context bucket that holds these positions."""
        return bucket_of(self.entries, positions)

    def step(self, state: State, tokens: Any, positions: Any) -> StreamedStep:
        """One decode step; `state` is consumed.

        Raises MachineError for inputs out of range and for NaN or Inf in the logits.
        """
        context = self.bucket(positions)
        tokens, positions = checked_inputs(self.batch, self._known, context, tokens, positions)
        outputs, entries = self.outputs[context], self.entries[context]
        layout = entries[0].layout
        host = [np.zeros(shape, dtype) for shape, dtype in layout.pool_shapes(outputs.rows)]
        images, of = self._feed.images(self.weights, tokens), np.arange(self.batch)
        fresh = self.clips.fresh(of, positions)
        for i, (entry, image, kv) in enumerate(zip(entries, images, state, strict=True)):
            if self._progress:
                self._progress(f"streamed step {self._steps + 1}: call", i, len(entries))
            limits = _take_call(entry, image, kv, host, positions)
            self.clips.add(context, entry.made, limits, of, fresh)
        self._steps += 1
        logits = np.moveaxis(host[Pool.F32][outputs.logits], 0, 1).reshape(self.batch, -1)[:, : self.vocab]
        if not np.isfinite(logits).all():
            raise MachineError("run: the logits hold NaN or Inf. The contract knows finite values only.")
        return StreamedStep(logits, host[Pool.F32][outputs.token, :, 1].astype(np.int32), state)


def _take_call(
    entry: PackedCall, image: Image, kv: KV, host: list[np.ndarray], positions: Int32[np.ndarray, " batch"]
) -> UInt8[np.ndarray, "rows batch"]:
    """Compute one call: what it leaves goes to the host, its new keys and values into the stores.

    Returns how many values of each fp16 row are at the limit.
    """
    rows = tuple(pool[index] for pool, index in zip(host, entry.takes, strict=True))
    stores = jax.tree.map(borrow, kv)
    left, keys, values, limits = execute_call(
        entry.layout, entry.tables, image, stores, rows, entry.gives, positions
    )
    for pool, new, first in zip(host, left, entry.at, strict=True):
        pool[first : first + len(new)] = new
    dealt = entry.tables.dealt * 2
    for store, new, stripes in zip((*kv.keys, *kv.values), (*keys, *values), dealt, strict=True):
        inside, place = in_stripe(stripes, positions[None])
        region, row = np.nonzero(inside)
        store[region, row, in_region(place, store.shape[2])[region, row]] = np.asarray(new)[region, row]
    return np.asarray(limits)


@partial(jax.jit, static_argnums=0)
def execute_call(
    layout: StepLayout,
    tables: StepTables,
    image: Image,
    kv: KV,
    rows: tuple[Array, ...],
    gives: tuple[Int32[Array, "_"], ...],
    positions: Int32[Array, " batch"],
) -> tuple[
    tuple[Array, ...],
    tuple[Shaped[Array, "_ batch _"], ...],
    tuple[Shaped[Array, "_ batch _"], ...],
    UInt8[Array, "rows batch"],
]:
    """(rows that the call leaves per pool, new heads of its key stores, of its value stores, fp16 limits).

    `rows`, per pool, of earlier calls lie in the pools from row 1 on. The tables of `image` hold the row of
    each token.
    """
    shapes = layout.pool_shapes(layout.pools)
    pools = [
        jnp.zeros(shape, dtype).at[1 : 1 + len(new)].set(new)
        for new, (shape, dtype) in zip(rows, shapes, strict=True)
    ]
    env = Env(image, kv, jnp.arange(layout.batch, dtype=jnp.int32), positions, jnp.int32(0))
    done = take_steps(layout, tables, env, Pools(*pools))
    assert done.f16 is not None
    left = tuple(pool[index] for pool, index in zip(done, gives, strict=True) if pool is not None)
    keys = tuple(heads_of(s, done.f16[r]) for s, r in zip(kv.keys, tables.keys, strict=True))
    values = tuple(heads_of(s, done.f16[r]) for s, r in zip(kv.values, tables.values, strict=True))
    return left, keys, values, at_limit(done.f16)


def stream(
    program: Program, weights: Weights, progress: Progress | None = None, ready: Linked | None = None
) -> StreamedMachine:
    """Link every context bucket (unless done), cut it at its calls, pack each; no weight is read yet.

    Raises LinkError for a program that breaks its schedule, MachineError for one that cannot be streamed or
    whose largest call does not fit the host's memory.
    """
    require_enough(program, "streaming")
    formats.guard()
    loads, slots, flows, _ = ready or linked(program)
    homes = {context: np.full(len(flow.lines.row), -1, np.int64) for context, flow in flows.items()}
    sizes = {context: [0] * len(Pool) for context in flows}
    entries: dict[int, list[PackedCall]] = {context: [] for context in flows}
    plans: list[ImagePlan] = []
    kv: list[tuple[list[jax.ShapeDtypeStruct], list[jax.ShapeDtypeStruct]]] = []
    kv_bytes = 0
    for pieces in zip(*(cut(program, context, flow) for context, flow in flows.items()), strict=True):
        used = np.unique(np.concatenate([piece.used for piece in pieces]))
        planned = plan_image(*_some(loads, slots, used))
        stores = kv_stores({c: piece.flow for c, piece in zip(flows, pieces, strict=True)})
        for (context, flow), piece in zip(flows.items(), pieces, strict=True):
            entry = _pack(flow, piece, used, planned, stores.of_kernel, homes[context], sizes[context])
            entries[context].append(entry)
        plans.append(planned)
        kv.append((stores.keys, stores.shapes))
        kv_bytes += stores.bytes
    outputs = {
        context: Outputs(
            (sizes[context][0], sizes[context][1], sizes[context][2]),
            logits_rows(flow, homes[context]),
            int(homes[context][flow.token]),
        )
        for context, flow in flows.items()
    }
    host_memory.require(stream_bytes(plans, weights) + kv_bytes, host_memory.STREAMED)
    return StreamedMachine(weights, plans, kv, entries, outputs, program, progress)


def open_machine(
    program: Program, weights: Weights, streamed: bool | None = None, progress: Progress | None = None
) -> Machine | StreamedMachine:
    """The program with all its weights loaded, or streamed: as asked, else if they exceed the free memory.

    Raises LinkError for a program that breaks its schedule, MachineError for weights that do not fit it.
    """
    ready = linked(program)
    if streamed is None:
        streamed = not host_memory.holds(ready.bytes)
    return stream(program, weights, progress, ready) if streamed else prepare(program, weights, ready=ready)


def _some(loads: Loads, slots: list[Slot], used: Int[np.ndarray, " used"]) -> tuple[Loads, list[Slot]]:
    """These loads, and the slots that they name."""
    columns = {name: getattr(loads, name)[used] for name in Loads.__slots__}
    named, columns["tensor"] = np.unique(columns["tensor"], return_inverse=True)
    return Loads(**columns), [slots[slot] for slot in named]


def _pack(
    flow: Dataflow,
    piece: Piece,
    used: Int[np.ndarray, " used"],
    planned: ImagePlan,
    stores: dict[int, int],
    home: Int[np.ndarray, " lines"],
    sizes: list[int],
) -> PackedCall:
    """One call packed; `home` (host row of each line handed over) and `sizes` grow by what it leaves."""
    own = len(piece.flow.lines.row) - len(piece.needs)
    pools = pool_of(flow, piece.needs)
    takes: list[np.ndarray] = []
    rows = np.zeros(len(piece.needs), np.int64)
    for pool in Pool:
        mine = pools == pool
        held, spot = np.unique(home[piece.needs[mine]], return_inverse=True)
        takes.append(held)
        rows[mine] = 1 + spot
    carried = Carried(own + np.arange(len(rows)), rows, (len(takes[0]), len(takes[1]), len(takes[2])))
    piece_flow = piece.reindexed(used)
    packed = pack(piece_flow, planned, stores, carried)
    gives: list[np.ndarray] = []
    at = tuple(sizes)
    pools = pool_of(flow, piece.hand_lines)
    for pool in Pool:
        mine = pools == pool
        left, spot = np.unique(packed.where[piece.hands[mine]], return_inverse=True)
        home[piece.hand_lines[mine]] = at[pool] + spot
        gives.append(left.astype(np.int32))
        sizes[pool] += len(left)
    made = packed.made + np.array([piece.first, 0], np.int32) * (packed.made[:, :1] >= 0)
    return PackedCall(packed.layout, packed.tables, packed.counts, tuple(takes), tuple(gives), at, made)
