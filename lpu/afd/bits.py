"""The real math of a divided request, held against the model itself on one device."""

from compiler.handover import compile_egress, compile_ingest
from compiler.program.program import Program
from fabric.bridge import BridgeSpec
from lpu.afd.converse import PdPrograms, converse_afd, converse_draft, converse_pd
from lpu.check.check import require
from lpu.check.memory_image import check_handover
from lpu.decode.conversation import Conversation, Users, default_users, reference
from lpu.decode.prefix_cache import PrefixCache
from lpu.folder import Progress, check_program, quiet
from lpu.gpu.request import Request
from lpu.inputs.model import OpenModel, of_micro_batch

HANDOVER_TOKENS = 128


def pd_programs(program: Program, bridge: BridgeSpec, copy_back: bool, check: bool = True) -> PdPrograms:
    """A decode program with those that hand its KV over, in messages of 128 tokens (or its context).

    egress: only if decoded KV is copied back. Raises CompileError, HazardError.
    """
    tokens = min(HANDOVER_TOKENS, max(program.manifest.contexts))
    ingest = compile_ingest(program, tokens, bridge)
    egress = compile_egress(program, tokens, bridge) if copy_back else None
    if check:
        for one in (ingest, egress):
            if one is not None:
                for report in check_program(one).values():
                    require(report)
        require(check_handover(program, ingest, egress))
    return PdPrograms(decode=program, ingest=ingest, egress=egress)


def users_of(request: Request, model: OpenModel) -> Users:
    """Arbitrary but fixed tokens of the lengths of a request."""
    later = request.brings(1) if request.turns > 1 else 0
    return default_users(request.turns, request.batch, model.vocab, request.prompt_tokens, later)


def spoken(
    mode: str,
    model: OpenModel,
    program: Program,
    request: Request,
    *,
    handover: PdPrograms | None = None,
    drafter: OpenModel | None = None,
    drafts: int = 4,
    cache: PrefixCache | None = None,
    progress: Progress = quiet,
) -> Conversation:
    """What a mode's programs and GPUs say; handover: of mode pd. Raises LinkError, MachineError."""
    users = users_of(request, model)
    if mode == "afd":
        part = of_micro_batch(model, program.manifest.rows)
        return converse_afd(part, program, users, request.new_tokens, progress=progress)
    if mode == "draft":
        assert drafter is not None
        return converse_draft(model, drafter, program, users, request.new_tokens, drafts, progress=progress)
    assert handover is not None
    return converse_pd(model, handover, users, request.new_tokens, cache=cache, progress=progress)


def verdict(found: Conversation, model: OpenModel, request: Request, progress: Progress = quiet) -> str:
    """`equal`, or where the bits first differ from those of the model itself."""
    wanted = reference(model, users_of(request, model), request.new_tokens, progress)
    return found.differs(wanted) or "equal"
