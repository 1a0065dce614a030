"""Mode pd as real math: GPUs prefill, KV and states cross as bytes that programs move, LPUs decode."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from compiler.program.program import Program
from lpu.afd.beside import Joined, TakenStep
from lpu.afd.gpu_side import GpuSide
from lpu.decode.conversation import Conversation, Spoken, Users, prompts_of
from lpu.decode.decoders import Tensors
from lpu.decode.prefixes.cache import Hit, PrefixCache, StateBytes
from lpu.decode.prefixes.states import leaves_of
from lpu.folder import Progress, quiet
from lpu.inputs.model import OpenModel
from lpu.run.handed.handover import Handover
from lpu.run.kv import KV
from lpu.run.machine import Machine, prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class PdPrograms:
    """The decode program, and those that write and read its KV."""

    decode: Program
    ingest: Program
    egress: Program | None = None


class HandedSteps:
    """Steps of a decode program whose prompts GPUs take; what the cache has is handed over at once."""

    def __init__(self, model: OpenModel, programs: PdPrograms, cache: PrefixCache) -> None:
        self.batch, self._cache, self._gpu = model.step.batch, cache, GpuSide(model)
        self._machine = prepare(programs.decode, Tensors(model))
        self._handover = Handover(self._machine, programs.ingest)
        self._state = self._machine.start()

    def join(self, row: int, prompt: Sequence[int], scored: bool) -> Joined:
        """All but the last token, which the program takes."""
        last = len(prompt) - 1
        hit = self._cache.match(() if scored else prompt)
        _found(self._gpu, row, hit)
        edges = self._cache.edges(prompt[:last])
        logits, states = _prefilled(self._gpu, row, prompt[:last], hit.tokens, edges)
        self._cache.store(prompt[:last], *self._gpu.kv(row, 0, last), states)
        self._state = _handed(self._gpu, self._handover, self._state, row, 0, last)
        return Joined(last, logits, hit.tokens)

    def known(self, prompt: Sequence[int]) -> int:
        """Tokens whose KV the cache has."""
        return self._cache.known(prompt)

    def close(self) -> None:
        """Let another process have the cache."""
        self._cache.close()

    def step(
        self, tokens: Int32[np.ndarray, " batch"], at: Int32[np.ndarray, " batch"], more: Sequence[int]
    ) -> TakenStep:
        """A step of the program."""
        del more  # a step gives one token
        logits, likely, self._state = self._machine.step(self._state, tokens, at)
        return TakenStep(np.asarray(logits)[:, None], np.asarray(likely)[:, None])


def converse(
    model: OpenModel,
    programs: PdPrograms,
    users: Users,
    tokens: int,
    *,
    cache: PrefixCache | None = None,
    progress: Progress = quiet,
) -> Conversation:
    """GPUs prefill all but the last token of a prompt, KV crosses, the machine decodes.

    With an egress program decoded KV goes back to the GPUs before the next turn, else they compute it again.
    cache: prefixes whose KV the GPUs need not compute. Raises MachineError and LinkError.
    """
    gpu = GpuSide(model)
    machine = prepare(programs.decode, Tensors(model))
    handover = Handover(machine, programs.ingest, programs.egress)
    state = machine.start()
    batch = len(users[0])
    on_gpu, on_lpu = [0] * batch, [0] * batch
    counts = {"prefilled_tokens": 0, "handed_tokens": 0, "returned_tokens": 0, "cached_tokens": 0, "steps": 0}
    spoken: list[Spoken] = []
    for number in range(len(users)):
        prompts = prompts_of(spoken, users)
        for i, prompt in enumerate(prompts):
            progress(f"pd: turn {number + 1}, prefill", i, batch)
            last = len(prompt) - 1
            if cache is not None and not on_gpu[i]:
                hit = cache.match(prompt)
                _found(gpu, i, hit)
                on_gpu[i] = hit.tokens
                counts["cached_tokens"] += hit.tokens
            if programs.egress is not None:
                counts["returned_tokens"] += _returned(gpu, handover, state, i, on_gpu[i], on_lpu[i])
                on_gpu[i] = max(on_gpu[i], on_lpu[i])
            edges = () if cache is None else cache.edges(prompt[:last])
            _, states = _prefilled(gpu, i, prompt[:last], on_gpu[i], edges)
            counts["prefilled_tokens"] += last - on_gpu[i]
            if cache is not None:
                cache.store(prompt[:last], *gpu.kv(i, 0, last), states)
            state = _handed(gpu, handover, state, i, on_lpu[i], last)
            counts["handed_tokens"] += last - on_lpu[i]
            on_gpu[i], on_lpu[i] = last, last + tokens
        done, state = _decoded(machine, state, prompts, tokens, progress)
        counts["steps"] += tokens
        spoken.append(done)
    return Conversation(turns=tuple(spoken), counts=counts)


def _found(gpu: GpuSide, sequence: int, hit: Hit) -> None:
    """What a cache has of a prompt, put on the GPU."""
    gpu.put_kv(sequence, 0, hit.k, hit.v)
    if hit.state is not None:
        gpu.put_state(sequence, hit.state)


def _prefilled(
    gpu: GpuSide, sequence: int, prompt: Sequence[int], begin: int, edges: Sequence[int]
) -> tuple[np.ndarray, dict[int, StateBytes]]:
    """The logits of tokens from `begin` on, and the states behind as many tokens as `edges` says."""
    logits, states = [np.zeros((0, gpu.vocab), np.float32)], dict[int, StateBytes]()
    for end in (*edges, len(prompt)):
        if end > begin:
            logits.append(gpu.prefill(sequence, prompt[begin:end], begin).logits)
            begin = end
            if end in edges:
                states[end] = gpu.state(sequence)
    return np.concatenate(logits), states


def _returned(gpu: GpuSide, handover: Handover, state: KV, sequence: int, begin: int, end: int) -> int:
    """Copy the KV of tokens begin .. end-1 from the machine to the GPU; how many."""
    for first in range(begin, end, handover.tokens):
        count = min(handover.tokens, end - first)
        if handover.moves_kv:
            gpu.put_kv(sequence, first, *handover.give(state, sequence, first, count))
    if end > begin and gpu.state_shapes:
        leaves = handover.give_states(state, sequence, gpu.state_shapes)
        gpu.put_state(sequence, np.concatenate([leaf.ravel() for leaf in leaves]))
    return max(0, end - begin)


def _handed(gpu: GpuSide, handover: Handover, state: KV, sequence: int, begin: int, end: int) -> KV:
    """In messages of as many tokens as the program moves, each with the states behind the last of them."""
    leaves = leaves_of(gpu.state(sequence), gpu.state_shapes)
    for first in range(begin, end, handover.tokens):
        last = min(first + handover.tokens, end)
        state = handover.take(state, sequence, first, *gpu.kv(sequence, first, last), leaves)
    return state


def _decoded(
    machine: Machine, state: KV, prompts: Sequence[tuple[int, ...]], tokens: int, progress: Progress
) -> tuple[Spoken, KV]:
    """`tokens` steps of the machine from the last token of each prompt on."""
    now = np.array([prompt[-1] for prompt in prompts], np.int32)
    at = np.array([len(prompt) - 1 for prompt in prompts], np.int32)
    chosen: list[np.ndarray] = []
    logits: list[np.ndarray] = []
    for step in range(tokens):
        progress("pd: decode", step, tokens)
        found, token, state = machine.step(state, now, at)
        now, at = np.asarray(token), at + 1
        chosen.append(now)
        logits.append(np.asarray(found))
    return Spoken.of(prompts, np.stack(chosen), np.stack(logits)), state
