"""A model file becomes what the compiler and the machine take: a step, weights by path, and who they are."""

import hashlib
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from compiler.errors import CompileError, OptionError
from compiler.pipeline import Source
from compiler.program.manifest import Manifest, ModelIdentity
from lpu.inputs.document import FileError
from lpu.inputs.files import FACTORY, ModelFile
from lpu.inputs.text import Tokenizer, tokenizer_for
from models.catalog import catalog
from models.config import TransformerConfig
from models.extensions import load_extensions
from models.families.registry import config_of
from models.kv import KVFormat
from models.sources.error import WeightError
from models.sources.seeded import seeded
from models.sources.weights import Weights, check_shapes, weight_shapes
from models.step import Factory, Step, build_step, family_step


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel:
    """A model ready to compile and to run. about: its entry in the program's manifest.

    config: None for a user's module. folder: that of a Hugging Face model. file: how another process opens
    the same model; None for a Python callable, which has no name. chunks: `chunks(chunk, batch=)` gives the
    step that takes `chunk` tokens of one sequence, or of each of `batch` sequences.
    """

    step: Step
    chunks: Callable[..., Step]
    weights: Weights
    contexts: tuple[int, ...]
    about: ModelIdentity
    config: TransformerConfig | None = None
    folder: Path | None = None
    file: ModelFile | None = None

    @property
    def name(self) -> str:
        """What reports call it."""
        return str(self.about.name)

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        if self.config is not None:
            return self.config.vocab
        return int(jax.eval_shape(self.step.fn, *self.step.inputs())[0].shape[-1])

    def source(self, chunk: int = 1) -> Source:
        """What the compiler takes: the decode step, or the step of a chunk of one sequence."""
        step = self.chunks(chunk) if chunk > 1 else self.step
        params, tokens, position, cache = step.inputs()
        return Source(
            step=step.fn,
            params=params,
            tokens=tokens,
            position=position,
            cache=cache,
            contexts=self.contexts,
            model=self.about,
            chunk=chunk,
        )

    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer; None if it has none."""
        return tokenizer_for(self.vocab, self.folder)


def open_model(file: ModelFile) -> OpenModel:
    """The model that a file describes; weights are not read yet, except for their digest.

    Raises FileError (weights), CompileError (a module that cannot be built or traced, a context too long).
    """
    folder = Path(file.model) if Path(file.model).is_dir() else None
    if folder is None and FACTORY.fullmatch(file.model):
        return _finish(file, partial(own_step, import_factory(file.model), file, file.model), None, None)
    config = _folder_config(folder) if folder else catalog(file.model)
    config = replace(config, ffn_down=file.ffn_down, ffn_up=file.ffn_up)
    return _finish(file, partial(known_step, config, file), config, folder)


def of_micro_batch(model: OpenModel, rows: int) -> OpenModel:
    """The same model for `rows` sequences."""
    return replace(model, step=model.chunks(1, batch=rows))


def longest_context(file: ModelFile) -> int | None:
    """The longest context that the model can take; None for a user's module."""
    if Path(file.model).is_dir():
        return _folder_config(Path(file.model)).max_context
    return None if FACTORY.fullmatch(file.model) else catalog(file.model).max_context


def open_callable(factory: Callable[..., Any], file: ModelFile) -> OpenModel:
    """The model of a callable `factory(batch=, context=, kv=)`; `file.model` is its name in reports."""
    return replace(_finish(file, partial(own_step, factory, file, file.model), None, None), file=None)


def reopen(manifest: Manifest, weights: str | None = None) -> OpenModel:
    """The model that a program was compiled from, by its manifest.

    weights: path of a checkpoint; the manifest has the digest of the weights, not their path.
    Raises FileError if the program was compiled with other weights.
    """
    load_extensions()
    if manifest.chunk > 1:
        raise FileError(
            f"run: this program takes {manifest.chunk} tokens of a prompt at a time and cannot decode. "
            "Give the program folder that it lies in."
        )
    if manifest.kind == "hops":
        raise FileError(
            f"run: this folder holds {len(manifest.hops)} hops of {manifest.rows} rows, no step that "
            "decodes. Run them between GPUs: lpu afd MODEL --mode afd --run."
        )
    about = manifest.model
    known = str(about.weights)
    if weights == "safetensors" or (weights is None and not known.startswith("seed:")):
        raise FileError(
            f"weights: this program was compiled with {known}. Give --weights safetensors:PATH or orbax:PATH."
        )
    try:
        file = ModelFile(
            model=str(about.name),
            weights=weights or known,
            batch=manifest.rows,
            context=tuple(manifest.contexts),
            kv=about.kv,
        )
    except ValueError as error:
        raise FileError(str(error)) from None
    if about.config is None:
        opened = _finish(file, partial(own_step, import_factory(file.model), file, file.model), None, None)
    else:
        config = config_of(about.config)
        opened = _finish(file, partial(known_step, config, file), config, _weights_folder(file.weights))
    for key in ("parameters", "weights_digest"):
        found, wanted = getattr(opened.about, key), getattr(about, key)
        if found != wanted:
            raise FileError(
                f"weights: {file.weights}: {key} is {found[:16]}, the program was compiled for "
                f"{wanted[:16]}. Give the weights that it was compiled with, or compile again."
            )
    return opened


def known_step(config: TransformerConfig, file: ModelFile, chunk: int = 1, batch: int | None = None) -> Step:
    """The step of a model of a known family; a chunk is of one sequence unless `batch` is given.

    Raises OptionError if the context is longer than the model's.
    """
    if file.context[-1] > config.max_context:
        raise OptionError(
            "context",
            config.name,
            f"context {file.context[-1]} is above the model's longest, {config.max_context}",
            f"Give --context {config.max_context} or less.",
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


def _finish(
    file: ModelFile, steps: Callable[..., Step], config: TransformerConfig | None, folder: Path | None
) -> OpenModel:
    step = steps(1)
    shapes = weight_shapes(step)
    try:
        weights = _weights(file, shapes, config)
        check_shapes(weights, shapes)
        digest = weights.digest()
    except (WeightError, OSError) as error:
        raise FileError(f"weights: {error}") from error
    about = ModelIdentity(
        name=config.name if config else file.model,
        config=config.to_fields() if config else None,
        kv=file.kv,
        parameters=_shapes_digest(step),
        weights=file.weights if file.weights.startswith("seed:") else weights.identity,
        weights_digest=digest,
    )
    return OpenModel(
        step=step,
        chunks=steps,
        weights=weights,
        contexts=file.context,
        about=about,
        config=config,
        folder=folder,
        file=file,
    )


def _weights(file: ModelFile, shapes: dict[str, Any], config: TransformerConfig | None) -> Weights:
    kind, _, rest = file.weights.partition(":")
    if kind == "seed":
        return seeded(shapes, int(rest), tied=bool(config and config.tied))
    if kind == "orbax":
        from models.sources.checkpoint import open_orbax

        return open_orbax(Path(rest))
    from models.sources.huggingface import open_folder

    return open_folder(Path(rest) if rest else Path(file.model), config)


def _folder_config(folder: Path) -> TransformerConfig:
    from models.sources.huggingface_config import read_config

    try:
        return read_config(folder)
    except (WeightError, OSError) as error:
        raise FileError(f"model: {error}") from error


def _weights_folder(weights: str) -> Path | None:
    kind, _, rest = weights.partition(":")
    path = Path(rest)
    return path if kind == "safetensors" and path.is_dir() else None


def _shapes_digest(step: Step) -> str:
    held = [[name, list(leaf.shape), str(leaf.dtype)] for name, leaf in sorted(step.params.items())]
    constants = {
        name: hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        for name, value in sorted(step.constants.items())
    }
    return hashlib.sha256(json.dumps([held, constants]).encode()).hexdigest()


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
