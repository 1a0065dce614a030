"""Mode afd as real math: activations cross as the messages and answers of hops, byte by byte."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from compiler.program.program import Program
from lpu.afd.gpu_pieces import GpuPieces
from lpu.afd.gpu_side import GpuSide, TakenTokens
from lpu.decode.conversation import Conversation, Spoken, Users, prompts_of
from lpu.decode.decoders import Tensors
from lpu.folder import Progress, quiet
from lpu.inputs.model import OpenModel
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
    rows = hops.manifest.rows
    machine = prepare_hops(hops, Tensors(model))
    pieces = GpuPieces(model.step, [list(hop.nodes) for hop in hops.manifest.hops])
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
        spoken.append(Spoken.of(prompts, chosen, logits))
    counts["hops"] = held * len(machine.hops)
    counts |= {f"{way}_bytes": sum(part.crossed[way] for part in parts) for way in ("down", "up")}
    return Conversation(turns=tuple(spoken), counts=counts)
