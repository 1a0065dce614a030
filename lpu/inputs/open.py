"""A model by any name: catalog, file, Hugging Face folder, `package.module:factory`, or a callable."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lpu.inputs.document import FileError, read_document
from lpu.inputs.files import FILES, ModelFile, read_model
from lpu.inputs.model import OpenModel, longest_context, open_callable
from lpu.inputs.model import open_model as open_file
from models.extensions import load_extensions

DEFAULT_CONTEXT = 1024
Model = str | Path | ModelFile | Callable[..., Any]


def open_model(
    model: Model,
    *,
    batch: int | None = None,
    context: Sequence[int] | None = None,
    kv: str | None = None,
    weights: str | None = None,
    ffn_down: str | None = None,
    ffn_up: str | None = None,
) -> OpenModel:
    """A model by name, file, folder, `package.module:factory` or callable; what is given overrides its file.

    context: buckets, ascending; by default 1024 or the model's longest, whichever is shorter.
    Raises FileError or CompileError.
    """
    load_extensions()
    if kv not in (None, "fp16", "fp8"):
        raise FileError(f"options: kv: is {kv!r}, must be fp16 or fp8")
    if ffn_down not in (None, "fp16", "fp8"):
        raise FileError(f"options: --ffn-down is {ffn_down!r}, must be fp16 or fp8")
    if ffn_up not in (None, "f32", "fp16"):
        raise FileError(f"options: --ffn-up is {ffn_up!r}, must be f32 or fp16")
    chosen: dict[str, Any] = {"batch": batch, "context": context and tuple(context), "kv": kv}
    chosen |= {"ffn_down": ffn_down, "ffn_up": ffn_up}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    own = None if isinstance(model, (str, Path, ModelFile)) else model
    file = _file_of(model)
    try:
        file = replace(file, **chosen)
        if weights is not None:
            file = _with_weights(file, weights)
    except ValueError as error:
        raise FileError(f"options: {error}") from None
    if own is not None:
        return open_callable(own, file)
    if context is None and not _states_context(model):
        file = replace(file, context=(min(DEFAULT_CONTEXT, longest_context(file) or DEFAULT_CONTEXT),))
    return open_file(file)


def _states_context(model: Model) -> bool:
    """Whether a model says which contexts it is for: a ModelFile does, a file if it has the key."""
    if not isinstance(model, (str, Path)):
        return True
    return Path(model).suffix in FILES and "context" in read_document(Path(model)).data


def _file_of(model: Model) -> ModelFile:
    if isinstance(model, ModelFile):
        return model
    if isinstance(model, (str, Path)):
        return read_model(model)
    return ModelFile(model=f"{model.__module__}:{getattr(model, '__qualname__', type(model).__name__)}")


def _with_weights(file: ModelFile, weights: str) -> ModelFile:
    """The file with other weights, their path made absolute."""
    kind, _, rest = weights.partition(":")
    if kind in ("safetensors", "orbax") and rest:
        if not Path(rest).exists():
            raise FileError(f"weights: {rest}: is not there")
        weights = f"{kind}:{Path(rest).resolve()}"
    return replace(file, weights=weights)
