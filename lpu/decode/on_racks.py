"""Both sides of speculative decode on racks: the drafter's program proposes, the verifier's judges.

The verifier's prefill program takes k + 1 rows of one sequence at a time. Rows that a round has no token for
are taken with token 0 behind the others: their keys and values lie after the end and are overwritten.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int

from compiler.program.manifest import Manifest
from compiler.program.program import Program
from compiler.program.prompt import prompt_cycles
from lpu.compiled import Compiled
from lpu.decode.decoders import Tensors
from lpu.decode.drafted import Drafted, RoundCycles
from lpu.decode.generate import BatchIds, BatchResult, check_room
from lpu.decode.rewind import States, rewinding, states_of, with_sequence, with_states
from lpu.decode.speculate import Drafter
from lpu.decode.speculate import speculate as in_rounds
from lpu.folder import Progress, quiet
from lpu.inputs.document import FileError
from lpu.inputs.model import OpenModel
from lpu.inputs.prompts import Prompt, prompt_ids
from lpu.run.kv import KV
from lpu.run.machine import Machine, prepare
from lpu.run.step_inputs import bucket_of


class _Round(NamedTuple):
    """What a sequence took in its last round: from which position, which tokens, its states before them."""

    begin: int
    tokens: np.ndarray
    states: States


@dataclass(slots=True)
class RackVerifier:
    """The verifier of `speculate` as a program of chunks. buckets: of the chunks since the last `taken`.

    single: the decode program on the same memory image. Where layers keep states, it takes the tokens again
    that a round has accepted, from a copy of before the round; alone: cycles of such steps since the last
    `taken_alone`, each of which takes `step_cycles` by bucket.
    """

    machine: Machine
    manifest: Manifest
    single: Machine
    step_cycles: dict[int, int]
    batch: int = field(init=False)
    vocab: int = field(init=False)
    context: int = field(init=False)
    buckets: list[int] = field(default_factory=list[int])
    alone: int = 0
    _state: KV = field(init=False)
    _rounds: dict[int, _Round] = field(default_factory=dict[int, _Round])

    def __post_init__(self) -> None:
        self.batch, self.vocab = self.machine.cached, self.manifest.vocab
        self.context = self.manifest.longest - self.size + 1
        self._state = self.machine.start()

    @property
    def size(self) -> int:
        """Rows of a chunk."""
        return self.manifest.chunk

    def prefill(
        self, sequence: int, tokens: Sequence[int], start: int
    ) -> tuple[Float32[np.ndarray, "tokens vocab"], Int[np.ndarray, " tokens"]]:
        """Take tokens of one sequence from a position on, chunk by chunk."""
        out: list[np.ndarray] = []
        chosen: list[np.ndarray] = []
        for first in range(0, len(tokens), self.size):
            part = np.array(tokens[first : first + self.size], np.int32)
            if self.machine.stores.states and len(part) < self.size:
                logits, likely = self._one_by_one(part, start + first, sequence)
            else:
                logits, likely = self._take(part, start + first, sequence)
            out.append(logits[: len(part)])
            chosen.append(likely[: len(part)])
        return np.concatenate(out), np.concatenate(chosen)

    def rows(
        self, tokens: Int[np.ndarray, "batch rows"], positions: Int[np.ndarray, "batch rows"]
    ) -> tuple[Float32[np.ndarray, "batch rows vocab"], Int[np.ndarray, "batch rows"]]:
        """Take rows of every sequence, one after another; a repeated row gives that of its position."""
        out: list[np.ndarray] = []
        chosen: list[np.ndarray] = []
        for sequence, (ids, at) in enumerate(zip(tokens, positions, strict=True)):
            first = np.flatnonzero(np.diff(at, prepend=-1) > 0)
            new, begin = np.asarray(ids[first], np.int32), int(at[0])
            if self.machine.stores.states:
                self._settle(sequence, begin)
                self._rounds[sequence] = _Round(begin, new, states_of(self._state, sequence))
            logits, likely = self._take(new, begin, sequence)
            out.append(logits[at - at[0]])
            chosen.append(likely[at - at[0]])
        return np.stack(out), np.stack(chosen)

    def taken(self) -> tuple[int, ...]:
        """The buckets of the chunks since the last time that this was asked."""
        found, self.buckets = tuple(self.buckets), []
        return found

    def taken_alone(self) -> int:
        """Cycles of single steps since the last time that this was asked."""
        found, self.alone = self.alone, 0
        return found

    def _settle(self, sequence: int, begin: int) -> None:
        """The states as they are before position `begin`, which the round before says is the next."""
        before = self._rounds.get(sequence)
        if before is None or (len(before.tokens), begin) == (self.size, before.begin + self.size):
            return  # all of it was taken and stays
        self._state = with_states(self._state, sequence, before.states)
        self._one_by_one(before.tokens[: begin - before.begin], before.begin, sequence)

    def _one_by_one(self, tokens: np.ndarray, start: int, sequence: int) -> tuple[np.ndarray, np.ndarray]:
        """Take tokens of one sequence by the decode program; what the other sequences keep stays as it is."""
        out: list[np.ndarray] = []
        chosen: list[int] = []
        for position, token in enumerate(tokens.tolist(), start):
            ids, at = np.zeros(self.batch, np.int32), np.zeros(self.batch, np.int32)
            ids[sequence], at[sequence] = token, position
            kept = jax.tree.map(jnp.copy, self._state)
            logits, likely, after = self.single.step(self._state, ids, at)
            self._state = with_sequence(kept, after, sequence)
            self.alone += self.step_cycles[self.single.bucket(at)]
            out.append(np.asarray(logits)[sequence])
            chosen.append(int(np.asarray(likely)[sequence]))
        return np.array(out), np.array(chosen)

    def _take(self, tokens: np.ndarray, start: int, sequence: int) -> tuple[np.ndarray, np.ndarray]:
        ids = np.zeros(self.size, np.int32)
        ids[: len(tokens)] = tokens
        at = np.arange(start, start + self.size, dtype=np.int32)
        logits, likely, self._state = self.machine.step(self._state, ids, at, sequence)
        self.buckets.append(bucket_of(self.manifest.contexts, at))
        return np.asarray(logits), np.asarray(likely)


def speculate_on_racks(
    verifier: tuple[OpenModel, Program, Program],
    drafter: tuple[OpenModel, Program],
    prompts: Sequence[Sequence[int]],
    tokens: int,
    *,
    progress: Progress = quiet,
) -> Drafted:
    """`tokens` new tokens of each prompt: those of the verifier's greedy decode, bit for bit.

    verifier: model, its decode program and the prefill program of k + 1 rows that shares its memory image.
    Raises FileError if the two do not go together or the prompts do not fit, MachineError or LinkError.
    """
    model, decode, long = verifier
    one = prepare(decode, Tensors(model))
    big = RackVerifier(prepare(long, Tensors(model), share=one), long.manifest, one, decode.manifest.cycles)
    small, program = drafter
    for name, manifest, room in (
        (model.name, long.manifest, big.context),
        (small.name, program.manifest, program.manifest.longest),
    ):
        _fits(name, manifest, prompts, tokens, room)
    steps: list[int] = []
    machine = prepare(program, Tensors(small))
    inner = rewinding(machine, big.size + 1)

    def draft(ids: BatchIds, at: BatchIds) -> BatchResult:
        steps.append(program.manifest.cycles[bucket_of(program.manifest.contexts, at)])
        return inner(ids, at)

    sides = Drafter(
        decode=draft, batch=program.manifest.rows, vocab=small.vocab, context=program.manifest.longest
    )
    watched = _Watched(big, steps)
    found = in_rounds(sides, watched, prompts, tokens, big.size - 1, progress=progress)
    count = found.prompt_steps
    return Drafted(
        program=decode,
        verifier=long,
        drafter=program,
        speculation=found,
        rounds=watched.rounds(count),
        draft_prompt_cycles=sum(steps[:count]),
        verify_prompt_cycles=prompt_cycles(long.manifest, watched.prompt) + watched.prompt_alone,
    )


class _Watched:
    """A verifier whose rounds are counted: its chunks, and the steps that the drafter took before them."""

    def __init__(self, verifier: RackVerifier, steps: list[int]) -> None:
        self.verifier, self.steps = verifier, steps
        self.batch, self.vocab, self.context = verifier.batch, verifier.vocab, verifier.context
        self.prompt: tuple[int, ...] = ()
        self.prompt_alone = 0
        self._rounds: list[tuple[int, int]] = []  # steps of the drafter so far, cycles of the verifier

    def prefill(
        self, sequence: int, tokens: Sequence[int], start: int
    ) -> tuple[Float32[np.ndarray, "tokens vocab"], Int[np.ndarray, " tokens"]]:
        """As the verifier."""
        found = self.verifier.prefill(sequence, tokens, start)
        self.prompt += self.verifier.taken()
        self.prompt_alone += self.verifier.taken_alone()
        return found

    def rows(
        self, tokens: Int[np.ndarray, "batch rows"], positions: Int[np.ndarray, "batch rows"]
    ) -> tuple[Float32[np.ndarray, "batch rows vocab"], Int[np.ndarray, "batch rows"]]:
        """As the verifier."""
        found = self.verifier.rows(tokens, positions)
        cycles = prompt_cycles(self.verifier.manifest, self.verifier.taken())
        cycles += self.verifier.taken_alone()
        self._rounds.append((len(self.steps), cycles))
        return found

    def rounds(self, first: int) -> tuple[RoundCycles, ...]:
        """What each round took; first: steps of the drafter before them."""
        out: list[RoundCycles] = []
        for end, cycles in self._rounds:
            out.append(RoundCycles(drafting=sum(self.steps[first:end]), verifying=cycles))
            first = end
        return tuple(out)


def _fits(name: str, manifest: Manifest, prompts: Sequence[Sequence[int]], tokens: int, room: int) -> None:
    """Raise FileError unless the prompts fit a side; the verifier needs a chunk behind the last token."""
    check_room(prompts, tokens, manifest.sequences, manifest.longest)
    needed = max(map(len, prompts)) + tokens - 1
    if needed > room:
        spare = manifest.longest - room
        raise FileError(
            f"draft: {name} judges {spare} drafts behind the last of {needed} positions, its context is "
            f"{manifest.longest}. Give fewer tokens or drafts, or compile with --context {needed + spare}."
        )


def speculate(
    verifier: Compiled,
    drafter: Compiled,
    prompts: Sequence[Prompt],
    *,
    tokens: int = 16,
    ignore_eos: bool = False,
    progress: Progress = quiet,
) -> Drafted:
    """Decode greedily in fewer steps: `drafter` proposes, `verifier` (compiled with `prefill=k + 1`) judges.

    The tokens and logits are those of `run` with the verifier alone, bit for bit, whatever the drafts are.
    Raises FileError, LinkError, MachineError.
    """
    if verifier.prefill is None:
        raise FileError("draft: the verifier has no prefill program. Compile it with --prefill, drafts + 1.")
    for side in (verifier, drafter):
        side.model.need_weights("run")
    ids = prompt_ids(prompts, verifier.model, verifier.program.manifest.vocab)
    big = verifier.model, verifier.program, verifier.prefill
    done = speculate_on_racks(big, (drafter.model, drafter.program), ids, tokens, progress=progress)
    return done if ignore_eos else replace(done, ends=verifier.model.ends())
