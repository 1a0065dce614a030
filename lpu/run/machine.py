"""The executor: a linked program loaded with its weights, which takes a step at a time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float32, Int32

from compiler.program.instructions.attention import AttentionKernel
from compiler.program.manifest import Step, Waves
from compiler.program.program import Loads, Program
from lpu.link.link import Dataflow, link
from lpu.run import host_memory
from lpu.run.clips import Clips
from lpu.run.error import MachineError
from lpu.run.execute import execute
from lpu.run.fill import fill_image
from lpu.run.image import LoadedImage, Slot, Weights, image_bytes, same_image
from lpu.run.kv import KV, Stores, kv_stores, start
from lpu.run.overflow import Overflow
from lpu.run.pack.layout import Packed
from lpu.run.pack.pack import pack
from lpu.run.step_inputs import bucket_of, check_order, checked_inputs
from models.contract import formats


class StepResult(NamedTuple):
    """What one step returns: logits, the most likely token of each row, and the KV state."""

    logits: Float32[Array, "batch vocab"]
    token: Int32[Array, " batch"]
    state: KV


class Machine:
    """A program loaded with its weights: `step` takes one token per row, the state is the KV cache.

    rows: tokens of a step, in equal runs of `takes` sequences of the `cached` ones. clips: what it clipped;
    overflow: the experts that found no slot.
    whole: whether each of its rows sees all rows of its sequence.
    """

    def __init__(
        self,
        loaded: LoadedImage,
        stores: Stores,
        entries: dict[int, Packed],
        counts: tuple[Clips, Overflow],
        *,
        whole: bool,
    ) -> None:
        self.loaded, self.image, self.entries, self.stores = loaded, loaded.image, entries, stores
        (self.clips, self.overflow), self.whole = counts, whole
        layout = next(iter(entries.values())).layout
        self.rows, self.takes = layout.batch, layout.sequences
        self.cached = stores.cached or self.takes
        self._tables = {context: jax.device_put(packed.tables) for context, packed in entries.items()}

    def start(self) -> KV:
        """An empty KV cache, and states that are zero; what was clipped is counted anew."""
        self.clips.reset()
        self.overflow.reset()
        return start(self.stores)

    def counts(self, context: int) -> dict[str, int]:
        """Steps, levels, and items per kernel of one context bucket."""
        return dict(self.entries[context].counts)

    def bucket(self, positions: Any) -> int:
        """The smallest context bucket that holds these positions."""
        return bucket_of(self.entries, positions)

    def step(self, state: KV, tokens: Any, positions: Any, sequence: int = 0) -> StepResult:
        """One step; `state` is consumed. sequence: index of the first KV-cache sequence that it works on.

        Raises MachineError for inputs out of range and for NaN or Inf in the logits.
        """
        context = self.bucket(positions)
        layout = self.entries[context].layout
        known = len(self.image.tables[0]) if self.image.tables else layout.vocab
        tokens, positions = checked_inputs(layout.batch, known, context, tokens, positions)
        if not 0 <= sequence <= self.cached - self.takes:
            raise MachineError(f"run: sequence {sequence} is outside 0..{self.cached - self.takes}.")
        check_order(tokens.reshape(self.takes, -1), positions.reshape(self.takes, -1), whole=self.whole)
        logits, token, finite, limits, without, state = execute(
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
        self.overflow.add(context, self.entries[context].counting, np.asarray(without), positions)
        of = sequence + np.arange(layout.batch) // (layout.batch // self.takes)
        fresh = _once(positions, self.takes) if self.whole else self.clips.fresh(of, positions)
        self.clips.add(context, self.entries[context].made, np.asarray(limits), of, fresh)
        return StepResult(logits, token, state)


def _once(positions: Int32[np.ndarray, " rows"], takes: int) -> Bool[np.ndarray, " rows"]:
    """Which rows of whole sequences are no fillers."""
    return (np.diff(positions.reshape(takes, -1), axis=1, prepend=-1) > 0).reshape(-1)


class Linked(NamedTuple):
    """A program's preloads, their tensors, the dataflow of each context bucket, the host bytes it takes."""

    loads: Loads
    slots: list[Slot]
    flows: dict[int, Dataflow]
    bytes: int


def linked(program: Program) -> Linked:
    """Link every context bucket.

    Raises LinkError for a program that breaks its schedule, MachineError for one that is made of no steps.
    """
    loads, slots, manifest = program.loads(), program.slots(), program.manifest
    if not isinstance(manifest.body, Step | Waves):
        raise MachineError(f"run: the program is of kind {manifest.kind!r}, a machine takes steps.")
    flows = {context: link(manifest, loads, program.expand(context)) for context in manifest.contexts}
    return Linked(loads, slots, flows, image_bytes(loads, slots) + kv_stores(flows).bytes)


def prepare(
    program: Program, weights: Weights, share: Machine | None = None, ready: Linked | None = None
) -> Machine:
    """Link every context bucket (unless done), build the SRAM image, pack the steps.

    share: a machine whose image and KV state this one uses, too; the programs must have been compiled
    together. Raises LinkError for a program that breaks its schedule, MachineError for weights that do not
    fit it.
    """
    formats.guard()
    loads, slots, flows, bytes_ = ready or linked(program)
    stores = kv_stores(flows)
    if share is None:
        host_memory.require(bytes_)
        loaded = fill_image(loads, slots, weights)
    else:
        loaded = share.loaded
        _require_same(share, stores, loads, slots)
    entries = {context: pack(flow, loaded.plan, stores.of_kernel) for context, flow in flows.items()}
    if share is not None:
        most = max(packed.layout.pool_bytes for packed in entries.values())
        host_memory.require(most, host_memory.LINES)
    whole = any(isinstance(one, AttentionKernel) and one.whole for one in program.manifest.kernels)
    clips = Clips(program, beside=share and share.clips)
    overflow = Overflow(program, beside=share and share.overflow)
    return Machine(loaded, stores, entries, (clips, overflow), whole=whole)


def _require_same(machine: Machine, stores: Stores, loads: Loads, slots: list[Slot]) -> None:
    """Raise MachineError unless a program may use a machine's image and KV state."""
    other = machine.stores
    differs = [
        name
        for name, same in (
            ("preloaded values", same_image(machine.loaded, loads, slots)),
            ("KV shapes", (stores.keys, stores.shapes) == (other.keys, other.shapes)),
            ("KV regions", all(map(np.array_equal, stores.places, other.places))),
            ("states", stores.states == other.states),
            ("places of states", all(map(np.array_equal, stores.state_places, other.state_places))),
        )
        if not same
    ]
    if differs:
        raise MachineError(
            f"run: the programs have different {' and '.join(differs)}: no common memory image. "
            "Compile them together, with --prefill."
        )
