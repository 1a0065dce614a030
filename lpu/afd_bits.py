"""The real math of a divided request, held against the model itself on one device."""

from compiler.ingest import compile_egress, compile_ingest
from compiler.program import Program
from fabric.bridge import BridgeSpec
from lpu.check import require
from lpu.check_handover import check_handover
from lpu.conversation import Conversation, Users, default_users, reference
from lpu.converse import PdPrograms, converse_afd, converse_draft, converse_pd
from lpu.folder import Progress, quiet
from lpu.load import OpenModel, of_micro_batch
from lpu.prefix_cache import PrefixCache
from lpu.request import Request

HANDOVER_TOKENS = 128


def users_of(request: Request, model: OpenModel) -> Users:
    """Arbitrary but fixed tokens of the lengths of a request."""
    later = request.brings(1) if request.turns > 1 else 0
    return default_users(request.turns, request.batch, model.vocab, request.prompt_tokens, later)


def spoken(
    mode: str,
    model: OpenModel,
    program: Program,
    request: Request,
    bridge: BridgeSpec,
    *,
    copy_back: bool = False,
    drafter: OpenModel | None = None,
    drafts: int = 4,
    cache: PrefixCache | None = None,
    progress: Progress = quiet,
) -> Conversation:
    """What a mode's programs and GPUs say. Raises LinkError, MachineError, HazardError."""
    users = users_of(request, model)
    if mode == "afd":
        part = of_micro_batch(model, int(program.manifest["rows"]))
        return converse_afd(part, program, users, request.new_tokens, progress=progress)
    if mode == "draft":
        assert drafter is not None
        return converse_draft(model, drafter, program, users, request.new_tokens, drafts, progress=progress)
    tokens = min(HANDOVER_TOKENS, max(program.manifest["contexts"]))
    ingest = compile_ingest(program, tokens, bridge)
    egress = compile_egress(program, tokens, bridge) if copy_back else None
    require(check_handover(program, ingest, egress))
    programs = PdPrograms(decode=program, ingest=ingest, egress=egress)
    return converse_pd(model, programs, users, request.new_tokens, cache=cache, progress=progress)


def verdict(found: Conversation, model: OpenModel, request: Request, progress: Progress = quiet) -> str:
    """`equal`, or where the bits first differ from those of the model itself."""
    wanted = reference(model, users_of(request, model), request.new_tokens, progress)
    return found.differs(wanted) or "equal"
