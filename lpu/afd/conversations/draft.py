"""Mode draft as real math: only token ids cross, so the bits are those of the big model alone."""

from compiler.program.program import Program
from lpu.afd.gpu_side import GpuSide
from lpu.decode.conversation import Conversation, Spoken, Users, prompts_of
from lpu.decode.decoders import Tensors, restart
from lpu.decode.speculate import Drafter, Held, speculate
from lpu.folder import Progress, quiet
from lpu.inputs.model import OpenModel
from lpu.run.machine import prepare


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
