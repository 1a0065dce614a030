"""GPU and LPU together as real math: three modes, each made of a GPU's steps and of programs that run.

What crosses, crosses as bytes: KV through programs that write and read SRAM, activations as the messages and
answers of hops, token ids. The bits of tokens and logits are those of `lpu.conversation.reference`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from compiler.program.program import Program
from lpu.afd.gpu_pieces import Pieces
from lpu.afd.gpu_side import GpuSide, Taken
from lpu.decode.conversation import Conversation, Spoken, Users, prompts_of
from lpu.decode.decoders import Tensors, restart
from lpu.decode.prefix_cache import PrefixCache
from lpu.decode.speculate import speculate
from lpu.decode.speculation import Drafter, Held
from lpu.folder import Progress, quiet
from lpu.inputs.model import OpenModel
from lpu.run.handover import Handover
from lpu.run.hop import HopMachine, message_of, prepare_hops
from lpu.run.kv import KV
from lpu.run.machine import Machine, prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class PdPrograms:
    """The decode program, and those that write and read its KV."""

    decode: Program
    ingest: Program
    egress: Program | None = None


def converse_pd(
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
                gpu.put_kv(i, 0, hit.k, hit.v)
                on_gpu[i] = hit.tokens
                counts["cached_tokens"] += hit.tokens
            if programs.egress is not None:
                counts["returned_tokens"] += _returned(gpu, handover, state, i, on_gpu[i], on_lpu[i])
                on_gpu[i] = max(on_gpu[i], on_lpu[i])
            if last > on_gpu[i]:
                gpu.prefill(i, prompt[on_gpu[i] : last], on_gpu[i])
            counts["prefilled_tokens"] += last - on_gpu[i]
            if cache is not None:
                cache.store(prompt[:last], *gpu.kv(i, 0, last))
            state = _handed(gpu, handover, state, i, on_lpu[i], last)
            counts["handed_tokens"] += last - on_lpu[i]
            on_gpu[i], on_lpu[i] = last, last + tokens
        done, state = _decoded(machine, state, prompts, tokens, progress)
        counts["steps"] += tokens
        spoken.append(done)
    return Conversation(turns=tuple(spoken), counts=counts)


def _returned(gpu: GpuSide, handover: Handover, state: KV, sequence: int, begin: int, end: int) -> int:
    """Copy the KV of tokens begin .. end-1 from the machine to the GPU; how many."""
    for first in range(begin, end, handover.tokens):
        count = min(handover.tokens, end - first)
        gpu.put_kv(sequence, first, *handover.give(state, sequence, first, count))
    return max(0, end - begin)


def _handed(gpu: GpuSide, handover: Handover, state: KV, sequence: int, begin: int, end: int) -> KV:
    for first in range(begin, end, handover.tokens):
        last = min(first + handover.tokens, end)
        state = handover.take(state, sequence, first, *gpu.kv(sequence, first, last))
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
    return _spoken(prompts, np.stack(chosen), np.stack(logits)), state


def _spoken(prompts: Sequence[tuple[int, ...]], chosen: np.ndarray, logits: np.ndarray) -> Spoken:
    """Of chosen [tokens, batch] and logits [tokens, batch, vocab]."""
    return Spoken(
        prompts=tuple(prompts),
        tokens=tuple(map(tuple, chosen.T.tolist())),
        logits=tuple(np.ascontiguousarray(logits[:, i], np.float32) for i in range(len(prompts))),
    )


class _MicroBatch:
    """The GPU's share of some sequences: their KV, and the pieces of a step around the hops."""

    def __init__(self, gpu: GpuSide, pieces: Pieces, hops: HopMachine) -> None:
        self.gpu, self.pieces, self.hops = gpu, pieces, hops
        self.crossed = {"down": 0, "up": 0}

    def hop(self, number: int, value: Array) -> Array:
        """What comes back of a hop: the message and the answer as bytes of their wires."""
        answer = self.hops.step(number, value)
        self.crossed["down"] += message_of(self.hops.hops[number], value).nbytes
        self.crossed["up"] += answer.nbytes
        return jnp.asarray(answer)

    def decode(self, tokens: np.ndarray, at: np.ndarray) -> Taken:
        """A step of these sequences with its FFNs elsewhere."""
        return self.gpu.divided(self.pieces, tokens, at, self.hop)


def converse_afd(
    model: OpenModel,
    hops: Program,
    users: Users,
    tokens: int,
    *,
    progress: Progress = quiet,
) -> Conversation:
    """Attention and KV on GPUs, FFN hops on the machine, micro-batches of as many rows as the program has.

    model: of one micro-batch. GPUs prefill; the first token of a turn is theirs. Raises as `converse_pd`.
    """
    rows = hops.manifest.rows
    machine = prepare_hops(hops, Tensors(model))
    pieces = Pieces(model.step, [list(hop.nodes) for hop in hops.manifest.hops])
    batch = len(users[0])
    gpu = GpuSide(model)
    parts = [_MicroBatch(gpu.beside(), pieces, machine) for _ in range(batch // rows)]
    spoken: list[Spoken] = []
    held = 0
    counts = {"prefilled_tokens": 0, "hops": 0}
    for number in range(len(users)):
        prompts = prompts_of(spoken, users)
        chosen = np.zeros((tokens, batch), np.int32)
        logits = np.zeros((tokens, batch, model.vocab), np.float32)
        at = np.array([len(prompt) for prompt in prompts], np.int32)
        for i, prompt in enumerate(prompts):
            progress(f"afd: turn {number + 1}, prefill", i, batch)
            known = len(spoken[-1].prompts[i]) + tokens - 1 if spoken else 0
            taken = parts[i // rows].gpu.prefill(i % rows, prompt[known:], known)
            chosen[0, i], logits[0, i] = taken.chosen[-1], taken.logits[-1]
            counts["prefilled_tokens"] += len(prompt) - known
        for step in range(1, tokens):
            progress(f"afd: turn {number + 1}, decode", step, tokens)
            for m, part in enumerate(parts):
                own = slice(m * rows, (m + 1) * rows)
                found = part.decode(chosen[step - 1, own], at[own] + step - 1)
                chosen[step, own], logits[step, own] = found.chosen, found.logits
                held += 1
        spoken.append(_spoken(prompts, chosen, logits))
    counts["hops"] = held * len(machine.hops)
    counts |= {f"{way}_bytes": sum(part.crossed[way] for part in parts) for way in ("down", "up")}
    return Conversation(turns=tuple(spoken), counts=counts)


def converse_draft(
    model: OpenModel,
    drafter: OpenModel,
    program: Program,
    users: Users,
    tokens: int,
    drafts: int,
    *,
    progress: Progress = quiet,
) -> Conversation:
    """The small model's program drafts, the GPUs verify: the tokens and logits of the big model alone."""
    gpu = GpuSide(model)
    machine = prepare(program, Tensors(drafter))
    small = Drafter(
        decode=restart(machine), batch=drafter.step.batch, vocab=drafter.vocab, context=drafter.step.context
    )
    spoken: list[Spoken] = []
    held = Held()
    counts = {"rounds": 0, "accepted": 0, "drafted": 0, "draft_steps": 0}
    for _ in users:
        prompts = prompts_of(spoken, users)
        done = speculate(small, gpu, prompts, tokens, drafts, held=held, progress=progress)
        held = done.held
        counts["rounds"] += done.verify_steps
        counts["accepted"] += done.accepted
        counts["drafted"] += done.drafted
        counts["draft_steps"] += done.draft_steps + done.prompt_steps
        spoken.append(Spoken(prompts=done.prompts, tokens=done.tokens, logits=done.logits))
    return Conversation(turns=tuple(spoken), counts=counts)
