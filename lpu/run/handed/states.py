"""Hand-over of states: those of a sequence as a model keeps them, in and out of a machine's store.

A message has the lines of all layers one behind the other: of each state its channels, 80 a line. Which of
them a place of the machine takes is what the row of a program says.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int, Int64

from compiler.program.instructions.host import StateMoveKernel
from compiler.program.isa import F32_LANES, Columns, Kernel, Op
from compiler.program.ranges import first_of, ramp
from lpu.link.error import fail
from lpu.run.error import MachineError
from lpu.run.kv import KV
from lpu.run.machine import Machine

Leaves = Sequence[Float32[np.ndarray, "_kept _channels"]]


class MovedStates(NamedTuple):
    """For each array of states of a machine the line of the message of each of its lines; kept: by line."""

    lines: tuple[Int64[np.ndarray, " lines"], ...]
    kept: Int64[np.ndarray, " message"]


def moved_states(
    machine: Machine,
    columns: Columns,
    kernels: Sequence[Kernel],
    layer: Int[np.ndarray, " rows"],
    rows: Int[np.ndarray, " some"],
    op: Op,
) -> MovedStates:
    """What `rows` of a hand-over program move. layer: of every row of it.

    Raises LinkError for a row that is not of this machine's states, MachineError for states left out.
    """
    held = [kernels[int(aux)] for aux in columns.aux[rows]]
    about = np.array([(k.kept, k.cached) for k in held if isinstance(k, StateMoveKernel)]).reshape(-1, 2)
    many = np.repeat(np.arange(len(rows)), columns.n[rows])
    within, (kept, cached) = ramp(columns.n[rows]), about[many].T
    word = (columns.dst if op is Op.KVIN else columns.src2)[rows][many] + within * kept * cached
    of, line = layer[rows][many], columns.src3[rows][many] + within
    order = np.lexsort((line, of))
    _, begin, which = np.unique(of[order], return_index=True, return_inverse=True)
    line, wanted = line[order], np.arange(len(order)) - begin[which]
    if (miss := first_of(line != wanted)) >= 0:
        what = f"moves line {line[miss]} of its layer's states, where line {wanted[miss]} must be"
        fail(columns, rows[many[order[miss]]], what)
    place = {at: i for i, at in enumerate(zip(columns.chip[rows][many].tolist(), word.tolist(), strict=True))}
    message = np.empty(len(order), np.int64)
    message[order] = np.arange(len(order))
    found: list[np.ndarray] = []
    for shape, places in zip(machine.stores.states, machine.stores.state_places, strict=True):
        lines = np.array([place.pop((chip, at), -1) for chip, at in places.tolist()], np.int64)
        if (miss := first_of(lines < 0)) >= 0:
            chip, at = places[miss]
            raise MachineError(f"run: no {op.name} row moves the state at word {at} of chip {chip}.")
        wrong = (kept[lines] != shape.shape[2]) | (cached[lines] != shape.shape[1])
        if (miss := first_of(wrong)) >= 0:
            have = f"{kept[lines[miss]]} of {cached[lines[miss]]} sequences"
            what = f"moves {have}, the machine keeps {shape.shape[2]} of {shape.shape[1]} there"
            fail(columns, rows[many[lines[miss]]], what)
        found.append(message[lines])
    for (_, at), i in place.items():
        fail(columns, rows[many[i]], "no state of the machine begins there", at)
    return MovedStates(tuple(found), kept[order].astype(np.int64))


def put(moves: MovedStates, state: KV, sequence: int, leaves: Leaves) -> KV:
    """The cache with the states of a sequence. leaves: of every state, as a model has them.

    Raises MachineError.
    """
    cut = [_lines_of(np.asarray(leaf)) for leaf in leaves]
    kept = np.array([one.shape[1] for one in cut for _ in one], np.int64)
    if any(one.dtype != np.float32 for one in cut) or not np.array_equal(kept, moves.kept):
        have = ", ".join(f"{np.asarray(leaf).dtype} {np.asarray(leaf).shape}" for leaf in leaves[:3])
        raise MachineError(
            f"ingest: {len(leaves)} states of {len(kept)} lines ({have}), the program moves "
            f"{len(moves.kept)} lines of f32 that keep other counts or are of other channels."
        )
    if not len(moves.kept):
        return state
    every = [line for one in cut for line in one]
    new = tuple(np.stack([every[i] for i in lines]) for lines in moves.lines)
    return state._replace(states=_put(state.states, new, jnp.int32(sequence)))


def get(moves: MovedStates, state: KV, sequence: int, shapes: Sequence[tuple[int, int]]) -> Leaves:
    """The states of a sequence as a model has them. shapes: (kept, channels) of each."""
    every: dict[int, Any] = {}
    for store, lines in zip(state.states, moves.lines, strict=True):
        every |= dict(zip(lines.tolist(), np.asarray(store[:, sequence]), strict=True))
    counts = [-(-channels // F32_LANES) for _, channels in shapes]
    kept = np.repeat([kept for kept, _ in shapes], counts)
    if not np.array_equal(kept, moves.kept):
        raise MachineError(f"egress: the model has {len(kept)} lines of states, the program {len(every)}.")
    ends = np.cumsum(counts).tolist()
    return [
        np.concatenate([every[i] for i in range(end - count, end)], axis=1)[:, :channels]
        for end, count, (_, channels) in zip(ends, counts, shapes, strict=True)
    ]


def _lines_of(leaf: Float32[np.ndarray, "kept channels"]) -> Float32[np.ndarray, "lines kept 80"]:
    kept, channels = leaf.shape
    padded = np.pad(leaf, ((0, 0), (0, -channels % F32_LANES)))
    return padded.reshape(kept, -1, F32_LANES).swapaxes(0, 1)


@jax.jit
def _put(stores: tuple[Any, ...], new: tuple[Any, ...], sequence: Any) -> tuple[Any, ...]:
    return tuple(store.at[:, sequence].set(one) for store, one in zip(stores, new, strict=True))
