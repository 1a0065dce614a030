"""What the verb `sweep` asks for: what speculative machines change for a model."""

from collections.abc import Sequence
from typing import Unpack

from compiler.errors import OptionError
from compiler.options import CompileOptions
from lpu.folder import Progress, quiet
from lpu.future.machines import machine
from lpu.future.machines import machines as every_machine
from lpu.future.study import FutureStudy, study
from lpu.inputs.model import OpenModel
from lpu.inputs.open import Model, open_model
from lpu.keywords import Keywords, chosen


def machines(
    model: Model | OpenModel,
    names: Sequence[str] | None = None,
    *,
    options: CompileOptions | None = None,
    progress: Progress = quiet,
    **keywords: Unpack[Keywords],
) -> FutureStudy:
    """What speculative machines (all, or by name) change for a model, each against lpx.

    Raises FileError or OptionError; CompileError where lpx itself has no program for the model.
    """
    wanted = [machine(name.strip()) for name in (every_machine() if names is None else names)]
    settled, about = chosen("machines", options, keywords)
    if isinstance(model, OpenModel) and about:
        subject, why = "api.machines", "the model is open already"
        raise OptionError(subject, next(iter(about)), why, "Give it to open_model.")
    opened = model if isinstance(model, OpenModel) else open_model(model, **about)
    return study(opened, wanted, settled, progress)
