"""Mode afd as real math: activations cross as the messages and answers of hops, byte by byte."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int32

from compiler.program.program import Program
from lpu.afd.beside import Joined, TakenStep
from lpu.afd.gpu_pieces import GpuPieces
from lpu.afd.gpu_side import GpuSide, TakenTokens
from lpu.decode.conversation import Conversation, Spoken, Users, prompts_of
from lpu.decode.decoders import Tensors
from lpu.folder import Progress, quiet
from lpu.inputs.model import OpenModel, of_micro_batch
from lpu.run.hop import HopMachine, message_of, prepare_hops


class _MicroBatch:
    """The GPU's share of some sequences: their KV, and the pieces of a step around the hops."""

    def __init__(self, gpu: GpuSide, pieces: GpuPieces, hops: HopMachine) -> None:
        self.gpu, self.pieces, self.hops = gpu, pieces, hops
        self.crossed = {"down": 0, "up": 0}

    def hop(self, number: int, value: Array) -> Array:
        """What comes back of a hop: the message and the answer as bytes of their wires."""
        answer = self.hops.step(number, value)
        self.crossed["down"] += message_of(self.hops.hops[number], value).nbytes
        self.crossed["up"] += answer.nbytes
        return jnp.asarray(answer)

    def decode(self, tokens: np.ndarray, at: np.ndarray) -> TakenTokens:
        """A step of these sequences with its FFNs elsewhere."""
        return self.gpu.divided(self.pieces, tokens, at, self.hop)


def _parts(model: OpenModel, hops: Program, batch: int) -> list[_MicroBatch]:
    """The micro-batches of a batch; model: of one of them."""
    machine = prepare_hops(hops, Tensors(model))
    pieces = GpuPieces(model.step, [list(hop.nodes) for hop in hops.manifest.hops])
    gpu = GpuSide(model)
    return [_MicroBatch(gpu.beside(), pieces, machine) for _ in range(batch // hops.manifest.rows)]


class DividedSteps:
    """Steps of a batch of sequences that begin and end at any time: GPUs prefill, then FFNs are hops."""

    def __init__(self, model: OpenModel, hops: Program, batch: int) -> None:
        self.batch, self._rows = batch, hops.manifest.rows
        self._parts = _parts(of_micro_batch(model, self._rows), hops, batch)

    def join(self, row: int, prompt: Sequence[int], scored: bool) -> Joined:
        """The prompt on a GPU."""
        part = self._parts[row // self._rows]
        return Joined(len(prompt), part.gpu.prefill(row % self._rows, prompt).logits)

    def known(self, prompt: Sequence[int]) -> int:
        """None: prefixes are not kept."""
        return 0

    def close(self) -> None:
        """Nothing is held."""

    def step(
        self, tokens: Int32[np.ndarray, " batch"], at: Int32[np.ndarray, " batch"], more: Sequence[int]
    ) -> TakenStep:
        """One token of every row, micro-batch by micro-batch."""
        del more  # a step gives one token
        each = range(0, self.batch, self._rows)
        some = [slice(first, first + self._rows) for first in each]
        found = [part.decode(tokens[own], at[own]) for part, own in zip(self._parts, some, strict=True)]
        logits, chosen = (np.concatenate(column) for column in zip(*found, strict=True))
        return TakenStep(logits[:, None], chosen[:, None])


def converse(
    model: OpenModel,
    hops: Program,
    users: Users,
    tokens: int,
    *,
    progress: Progress = quiet,
) -> Conversation:
    """Attention and KV on GPUs, FFN hops on the machine, micro-batches of as many rows as the program has.

    model: of one micro-batch. GPUs prefill; the first token of a turn is theirs.
    Raises MachineError and LinkError.
    """
    rows, batch = hops.manifest.rows, len(users[0])
    parts = _parts(model, hops, batch)
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
        spoken.append(Spoken.of(prompts, chosen, logits))
    counts["hops"] = held * len(hops.manifest.hops)
    counts |= {f"{way}_bytes": sum(part.crossed[way] for part in parts) for way in ("down", "up")}
    return Conversation(turns=tuple(spoken), counts=counts)
