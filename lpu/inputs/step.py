"""The step of a model: of a known family, or of a user's module, whose errors name the user's line."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from compiler.errors import CompileError, OptionError
from lpu.inputs.document import FileError
from lpu.inputs.files import ModelFile
from models.config import TransformerConfig
from models.kv import KVFormat
from models.step import Factory, Step, build_step, family_step


def known_step(config: TransformerConfig, file: ModelFile, chunk: int = 1, batch: int | None = None) -> Step:
    """The step of a model of a known family; a chunk is of one sequence unless `batch` is given.

    Raises OptionError if the context is longer than the model's.
    """
    if file.context[-1] > config.longest:
        seen = f" (its attention sees {config.window} tokens)" if config.longest < config.max_context else ""
        raise OptionError(
            "context",
            config.name,
            f"context {file.context[-1]} is above the model's longest, {config.longest}{seen}",
            f"Give --context {config.longest} or less.",
        )
    try:
        batch = batch or (file.batch if chunk == 1 else 1)
        return family_step(config, batch=batch, context=file.context[-1], kv=file.kv, chunk=chunk)
    except ValueError as error:
        raise CompileError("model", config.name, str(error)) from None


def own_step(
    factory: Callable[..., Any], file: ModelFile, name: str, chunk: int = 1, batch: int | None = None
) -> Step:
    """The step of a user's module, traced once by shapes, so that errors name the user's line."""
    made: Factory = factory
    kv: KVFormat = file.kv
    batch = batch or (file.batch if chunk == 1 else 1)
    try:
        step = build_step(made, batch=batch, context=file.context[-1], kv=kv, chunk=chunk)
        out = jax.eval_shape(step.fn, *step.inputs())
        logits, token, cache = out
    except Exception as error:
        reason = f"raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise CompileError(
            "model", name, f"{reason} {_user_line(error)}".rstrip(), "See the module; --debug shows all."
        ) from error
    wanted = ((step.rows,), np.dtype(np.int32), jax.tree.structure(step.cache))
    if (token.shape, token.dtype, jax.tree.structure(cache)) != wanted or len(logits.shape) != 2:
        raise CompileError(
            "model",
            name,
            f"returns logits {logits.shape}, token {token.shape} {token.dtype}",
            f"Return (logits [{step.rows}, vocab], token int32 [{step.rows}], the cache as it came).",
        )
    return step


def import_factory(name: str) -> Callable[..., Any]:
    """The callable of `package.module:factory`, looked for in the current folder too."""
    module, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise FileError(
            f"model: {name}: {error}. Start lpu where {module.split('.')[0]} can be imported."
        ) from error
    except AttributeError as error:
        raise FileError(f"model: {name}: {error}") from error
    except Exception as error:
        raise FileError(
            f"model: {name}: importing it raised {type(error).__name__}: {error} {_user_line(error)}".rstrip()
        ) from error
    if not callable(found):
        raise FileError(f"model: {name}: is {type(found).__name__}, not a callable that makes a module")
    return found


def _user_line(error: BaseException) -> str:
    """`(file:line)` of the last frame outside installed packages and this project."""
    home = str(Path(__file__).resolve().parents[2])
    place, frame = "", error.__traceback__
    while frame is not None:
        path = frame.tb_frame.f_code.co_filename
        inside = any(path.startswith(f"{home}/{name}/") for name in ("lpu", "models", "compiler", "fabric"))
        if not inside and "site-packages" not in path and not path.startswith("<"):
            place = f"({path}:{frame.tb_lineno})"
        frame = frame.tb_next
    return place
