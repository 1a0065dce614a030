"""Mode draft as real math: only token ids cross, so the bits are those of the big model alone."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from compiler.program.program import Program
from lpu.afd.beside import Joined, TakenStep
from lpu.afd.conversations.rewound import verifier_of
from lpu.decode.conversation import Conversation, Spoken, Users, prompts_of
from lpu.decode.decoders import Tensors
from lpu.decode.rewind import rewinding
from lpu.decode.speculate import Drafter, Held, speculate
from lpu.folder import Progress, quiet
from lpu.inputs.model import OpenModel
from lpu.run.machine import prepare


class DraftedSteps:
    """Rounds of a batch of sequences that begin and end at any time; the tokens are the big model's."""

    def __init__(self, model: OpenModel, drafter: OpenModel, program: Program, drafts: int) -> None:
        self._gpu, self.batch = verifier_of(model), model.step.batch
        self._draft = rewinding(prepare(program, Tensors(drafter)), drafts + 2)
        self._drafts = drafts
        self._last = np.zeros((2, self.batch), np.int32)  # what each row took last, and where

    def join(self, row: int, prompt: Sequence[int], scored: bool) -> Joined:
        """The prompt on the GPUs, and token by token in the drafter; the other rows repeat their last."""
        for place, token in enumerate(prompt):
            self._last[:, row] = token, place
            self._draft(*self._last.copy())
        return Joined(len(prompt), self._gpu.prefill(row, prompt, 0)[0])

    def known(self, prompt: Sequence[int]) -> int:
        """None: prefixes are not kept."""
        return 0

    def close(self) -> None:
        """Nothing is held."""

    def step(
        self, tokens: Int32[np.ndarray, " batch"], at: Int32[np.ndarray, " batch"], more: Sequence[int]
    ) -> TakenStep:
        """A round: drafts of each row as far as they may become tokens, then all of them verified."""
        self._last[:] = tokens, at
        useful = np.minimum(np.array(more, np.int32), self._drafts)
        line = np.tile(tokens[:, None], self._drafts + 1)
        for place in range(self._drafts + 1):
            _, chosen = self._draft(line[:, place], at + np.minimum(place, useful))
            line[:, place + 1 :] = np.where(place < useful, chosen, line[:, place])[:, None]
        where = at[:, None] + np.minimum(np.arange(self._drafts + 1), useful[:, None])
        logits, likely = self._gpu.rows(line, where.astype(np.int32))
        drafts = (line[row, 1 : 1 + count] for row, count in enumerate(useful.tolist()))
        return TakenStep(logits, likely, tuple(tuple(one.tolist()) for one in drafts))


def converse(
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
    gpu = verifier_of(model)
    decode = rewinding(prepare(program, Tensors(drafter)), drafts + 2)
    small = Drafter(
        decode=decode, batch=drafter.step.batch, vocab=drafter.vocab, context=drafter.step.context
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
