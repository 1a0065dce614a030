"""The real math of a divided request, held against the model itself on one device."""

from lpu.decode.conversation import Conversation, Users, default_users, reference
from lpu.folder import Progress, quiet
from lpu.gpu.request import Request
from lpu.inputs.model import OpenModel


def users_of(request: Request, model: OpenModel) -> Users:
    """Arbitrary but fixed tokens of the lengths of a request."""
    later = request.brings(1) if request.turns > 1 else 0
    return default_users(request.turns, request.batch, model.vocab, request.prompt_tokens, later)


def verdict(found: Conversation, model: OpenModel, request: Request, progress: Progress = quiet) -> str:
    """`equal`, or where the bits first differ from those of the model itself."""
    wanted = reference(model, users_of(request, model), request.new_tokens, progress)
    return found.differs(wanted) or "equal"
