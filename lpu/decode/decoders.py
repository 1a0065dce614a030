"""Three ways to take a decode step: the machine, the reference under the contract, plain f32."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from compiler.program.program import Program
from lpu.decode.generate import BatchIds, BatchResult, ChunkIds, ChunkResult, Decode, Prefill, WholeStep
from lpu.folder import Progress
from lpu.inputs.model import OpenModel
from lpu.run.error import MachineError
from lpu.run.machine import Machine, prepare
from lpu.run.streamed.stream import StreamedMachine, open_machine
from models import streamed
from models.contract.plain import plain, plain_cache, plain_params
from models.families.registry import family_of
from models.kv import empty_cache
from models.sources.weights import ReadRows, Shapes, Weights, row_reader
from models.step import Params


def machine_of(
    program: Program, model: OpenModel, stream: bool | None = None, progress: Progress | None = None
) -> Machine | StreamedMachine:
    """The linked program with its weights in SRAM, or streamed (`None`: if they exceed the host's memory).

    Raises LinkError or MachineError.
    """
    return open_machine(program, Tensors(model), stream, progress)


def share_image(program: Program, model: OpenModel, machine: Machine) -> Machine:
    """A program with the memory image of `machine`, sharing its weights and KV; raises like `machine_of`."""
    return prepare(program, Tensors(model), share=machine)


def restart(machine: Machine | StreamedMachine) -> Decode:
    """The machine's decode step, starting with an empty KV cache."""
    state: Any = machine.start()

    def decode(tokens: BatchIds, at: BatchIds) -> BatchResult:
        nonlocal state
        logits, chosen, state = machine.step(state, tokens, at)
        return np.asarray(logits), np.asarray(chosen)

    if isinstance(machine, Machine) and machine.whole:
        return WholeStep(decode, machine.takes)
    return decode


def restart_pair(machine: Machine, long: Machine) -> tuple[Decode, Prefill]:
    """The steps of both machines of a memory image, sharing one KV cache that is empty at the start."""
    state = machine.start()

    def decode(tokens: BatchIds, at: BatchIds) -> BatchResult:
        nonlocal state
        logits, chosen, state = machine.step(state, tokens, at)
        return np.asarray(logits), np.asarray(chosen)

    def take(tokens: ChunkIds, at: ChunkIds, sequence: int) -> ChunkResult:
        nonlocal state
        logits, chosen, state = long.step(state, tokens, at, sequence)
        return np.asarray(logits), np.asarray(chosen)

    return decode, Prefill(long.rows, take, overlaps=not long.stores.states)


def reference_decode(model: OpenModel, *, stream: bool = False) -> Decode:
    """The module on one device under the numerics contract, without a schedule. stream: layer by layer."""
    if stream:
        step = model.step
        check_layers(model)
        assert model.config is not None
        return streamed.StreamedReference(
            model.config, Tensors(model), batch=step.batch, context=step.context, kv=step.kv
        ).step
    step = _decode(model.step.fn, reference_params(model), empty_cache(model.step.cache))
    return WholeStep(step, model.step.batch) if model.encodes else step


def check_layers(model: OpenModel) -> None:
    """Raise MachineError for a module whose layers are not known: a user's, or of such a family."""
    if model.config is None or family_of(model.config).layer is None:
        raise MachineError(
            f"reference: {model.name} is a user's module, only models of the catalog and of Hugging Face "
            "folders are known layer by layer. Certify it where its weights fit in memory, without --stream."
        )


def plain_decode(model: OpenModel, *, rounded: bool = True) -> Decode:
    """The module in plain f32, with its e4m3 weights or (`rounded=False`) those before quantisation."""
    if rounded:
        params = plain_params(reference_params(model))
    else:
        params = {name: jnp.asarray(model.weights.plain(name)) for name in model.weights.shapes}
        params |= {name: jnp.asarray(value) for name, value in model.step.plain_constants.items()}
    step = _decode(plain(model.step.fn), params, plain_cache(model.step.cache))
    return WholeStep(step, model.step.batch) if model.encodes else step


def reference_params(model: OpenModel) -> Params:
    """Everything the step takes, on the device."""
    tensors = Tensors(model)
    return {name: jnp.asarray(tensors[name]) for name in model.step.params}


def _decode(fn: Any, params: Params, cache: Any) -> Decode:
    step: Any = jax.jit(fn, donate_argnums=3)
    state = cache

    def decode(tokens: BatchIds, at: BatchIds) -> BatchResult:
        nonlocal state
        logits, chosen, state = step(params, jnp.asarray(tokens), jnp.asarray(at), state)
        return np.asarray(logits), np.asarray(chosen)

    return decode


Tensor = Shaped[np.ndarray, "*axes"]


class Tensors(Mapping[str, Tensor]):
    """Weights and constants of a model by parameter path."""

    def __init__(self, model: OpenModel) -> None:
        self._weights, self._constants = model.weights, model.step.constants
        self._scales: dict[str, Tensor] = {}
        self._lock = threading.Lock()
        self.shapes = dict(model.step.params)

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of that path, one thread at a time: sources cache the matrix quantised last."""
        if name in self._constants:
            return self._constants[name]
        with self._lock:
            if name in self._scales:
                return self._scales.pop(name)
            values = self._weights[name]
            for kind in ("exponent", "scale") if name.endswith(".codes") else ():
                partner = name.removesuffix("codes") + kind
                if partner in self._weights.shapes:
                    self._scales[partner] = self._weights[partner]
            return values

    def row_reader(self, name: str) -> ReadRows | None:
        """A reader of single rows of a tensor; None if the weights have none."""
        return None if name in self._constants else row_reader(self._weights, name)

    def __contains__(self, name: object) -> bool:
        return name in self._constants or name in self._weights.shapes

    def __iter__(self) -> Iterator[str]:
        return iter([*self._weights.shapes, *self._constants])

    def __len__(self) -> int:
        return len(self._weights.shapes) + len(self._constants)


@dataclass(frozen=True, slots=True)
class Flipped:
    """Weights with the sign bit of one code of the output head flipped: for tests of the comparisons."""

    weights: Weights
    name: str

    @property
    def shapes(self) -> Shapes:
        """Delegates to the wrapped weights."""
        return self.weights.shapes

    @property
    def identity(self) -> str:
        """Delegates to the wrapped weights: only a comparison of bits may notice the flip."""
        return self.weights.identity

    @property
    def notes(self) -> Sequence[str]:
        """Delegates to the wrapped weights."""
        return self.weights.notes

    @property
    def relative_errors(self) -> Mapping[str, float]:
        """Delegates to the wrapped weights."""
        return self.weights.relative_errors

    def __getitem__(self, name: str) -> Tensor:
        """The tensor; with one bit flipped if it is the one of `name`."""
        values = self.weights[name]
        if name == self.name:
            values = values.copy()
            values.flat[int(np.argmax(values & 0x7F != 0))] ^= 0x80
        return values

    def row_reader(self, name: str) -> ReadRows | None:
        """Delegates to the wrapped weights; None for the tensor with the flipped bit."""
        return None if name == self.name else row_reader(self.weights, name)

    def plain(self, name: str) -> Tensor:
        """Delegates to the wrapped weights."""
        return self.weights.plain(name)

    def digest(self) -> str:
        """Delegates to the wrapped weights."""
        return self.weights.digest()


def flipped(weights: Weights) -> Flipped:
    """The weights with one bit of the last matrix flipped."""
    return Flipped(weights, [name for name in weights.shapes if name.endswith(".codes")][-1])
