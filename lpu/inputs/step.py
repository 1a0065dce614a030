"""The step of a model: of a known family, or of a user's module, whose errors name the user's line."""

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from compiler.errors import CompileError, OptionError
from compiler.graph.capture import capture
from compiler.graph.graph import Graph
from lpu.inputs.document import FileError
from lpu.inputs.files import ModelFile
from models.config import TransformerConfig
from models.kv import KVFormat
from models.own.adopt import adopt
from models.own.user_code import users
from models.step import CONTRACT, Factory, ModuleError, Step, build_step, family_step, reading


def known_step(config: TransformerConfig, file: ModelFile, chunk: int = 1, batch: int | None = None) -> Step:
    """The step of a model of a known family; a chunk is of one sequence unless `batch` is given.

    An encoder's step takes all tokens of its context. Raises OptionError if the context is longer than the
    model's, and for what an encoder has not.
    """
    if file.context[-1] > config.longest:
        seen = f" ({config.shortened_by})" if config.shortened_by else ""
        raise OptionError(
            "context",
            config.name,
            f"context {file.context[-1]} is above the model's longest, {config.longest}{seen}",
            f"Give --context {config.longest} or less.",
        )
    if config.encodes:
        chunk, batch = whole_sequence(config, file, chunk), file.batch
    try:
        batch = batch or (file.batch if chunk == 1 else 1)
        return family_step(config, batch=batch, context=file.context[-1], kv=file.kv, chunk=chunk)
    except ValueError as error:
        raise CompileError("model", config.name, str(error)) from None


def whole_sequence(config: TransformerConfig, file: ModelFile, chunk: int) -> int:
    """Tokens of an encoder's step: its context. Raises OptionError for chunks, buckets and fp8 KV."""
    given = (
        ("--prefill", chunk, 1, f"a step takes all {file.context[-1]} tokens anyway", "Leave it out"),
        ("--context", len(file.context), 1, "a program takes sequences of one length", "Give one"),
        ("--kv", file.kv, "fp16", "no keys or values outlive a step", "Leave it out"),
    )
    for option, value, only, why, remedy in given:
        if value != only:
            raise OptionError("options", f"{config.name}: {option}", f"{value}: {why}", f"{remedy}.")
    return file.context[-1]


def own_step(
    factory: Callable[..., Any], file: ModelFile, name: str, chunk: int = 1, batch: int | None = None
) -> Step:
    """The step of a user's module, traced once by shapes, so that errors name the user's line."""
    made: Factory = factory
    kv: KVFormat = file.kv
    batch = batch or (file.batch if chunk == 1 else 1)
    try:
        with jax.enable_x64(False):  # as the user knows JAX: `jnp.zeros(3)` is f32
            step = build_step(made, batch=batch, context=file.context[-1], kv=kv, chunk=chunk)
            logits, token, cache = jax.eval_shape(step.fn, *step.inputs())
    except ModuleError as error:
        raise CompileError("model", name, str(error), CONTRACT) from error
    except Exception as error:
        reason = f"raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise CompileError(
            "model", name, f"{reason} {_user_line(error)}".rstrip(), "See the module; --debug shows all."
        ) from error
    wanted = ((step.rows,), np.dtype(np.int32), jax.tree.structure(step.cache))
    found = [getattr(one, "shape", None) for one in (logits, token)]
    if (found[1], getattr(token, "dtype", None), jax.tree.structure(cache)) != wanted or len(
        found[0] or ()
    ) != 2:
        raise CompileError(
            "model",
            name,
            f"returns logits {found[0]}, token {found[1]} {getattr(token, 'dtype', type(token).__name__)}",
            f"Return (logits [{step.rows}, vocab], token int32 [{step.rows}], the cache as it came).",
        )
    adopted = adopt(step)
    return reading(adopted, _read(capture(adopted.fn, *adopted.inputs())))


def _read(graph: Graph) -> set[str]:
    """The parameters that a node reads, by path."""
    values = [graph.values[view.value] for node in graph.nodes for view in node.inputs]
    return {value.name for value in values if value.kind == "param"}


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
    """`(file:line)` of the last frame that the user wrote."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = list(users((frame.filename, frame.lineno or 0) for frame in frames))
    return f"({lines[-1]})" if lines else ""
