"""Opens a model by any name: catalog, file, folder, `package.module:factory`, callable or manifest."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from compiler.program.manifest import Manifest, ModelIdentity
from lpu.inputs.document import FileError, read_document
from lpu.inputs.files import FACTORY, FILES, ModelFile, read_model
from lpu.inputs.model import OpenModel, numbers_of
from lpu.inputs.step import import_factory, known_step, own_step
from models.catalog import catalog, is_named
from models.config import TransformerConfig
from models.extensions import load_extensions
from models.rope_scaling import LongRopeScaling
from models.sources.absent import IDENTITY, NoWeights
from models.sources.derived import derived, drawn
from models.sources.error import WeightError
from models.sources.safetensor_files import INDEX, SINGLE, unread
from models.sources.seeded import seeded
from models.sources.weights import Weights, check_shapes, weight_shapes
from models.step import Step

DEFAULT_CONTEXT = 1024
DRAWN = "seed:0"
Model = str | Path | ModelFile | Callable[..., Any]


def open_model(
    model: Model,
    *,
    batch: int | None = None,
    context: int | Sequence[int] | None = None,
    kv: str | None = None,
    weights: str | None = None,
    ffn_down: str | None = None,
    ffn_up: str | None = None,
    trust: bool = False,
    divided: bool = False,
) -> OpenModel:
    """A model by name, file, folder, `package.module:factory` or callable; what is given overrides its file.

    divided: its FFNs run on other machines than its attention; their inputs cross, in fp16 by default.

    context: a bucket, or several, ascending; by default 1024 or the model's longest, whichever is shorter.
    trust: a model file may name a factory, whose code is imported; otherwise only the caller may.
    Raises FileError or CompileError.
    """
    load_extensions()
    if kv not in (None, "fp16", "fp8"):
        raise FileError(f"options: kv: is {kv!r}, must be fp16 or fp8")
    if ffn_down not in (None, "fp16", "fp8"):
        raise FileError(f"options: --ffn-down is {ffn_down!r}, must be fp16 or fp8")
    if ffn_up not in (None, "f32", "fp16"):
        raise FileError(f"options: --ffn-up is {ffn_up!r}, must be f32 or fp16")
    buckets = (context,) if isinstance(context, int) else context and tuple(context)
    chosen: dict[str, Any] = {"batch": batch, "context": buckets, "kv": kv}
    chosen |= {"ffn_down": ffn_down, "ffn_up": ffn_up}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    own = None if isinstance(model, (str, Path, ModelFile)) else model
    file = _file_of(model, trust)
    try:
        file = replace(file, **chosen)
        if divided and file.ffn_down is None:
            file = replace(file, ffn_down="fp16")
        if weights is not None:
            file = _with_weights(file, weights)
    except ValueError as error:
        raise FileError(f"options: {error}") from None
    if own is not None:
        return open_callable(own, file)
    if context is None and not _states_context(model):
        config = config_in(file)
        longest = DEFAULT_CONTEXT if config is None else config.longest
        file = replace(file, context=(min(DEFAULT_CONTEXT, longest),))
    return open_file(file)


def open_file(file: ModelFile) -> OpenModel:
    """The model that a file describes; weights are not read yet, except for their digest.

    Raises FileError (weights), CompileError (a module that cannot be built or traced, a context too long).
    """
    folder = Path(file.model) if is_folder(file.model) else None
    file = replace(file, weights=file.weights or default_weights(file.model))
    config = config_in(file)
    if config is None:
        return _finish(file, partial(own_step, import_factory(file.model), file, file.model), None, None)
    try:
        config = replace(config, ffn_down=file.ffn_down, ffn_up=file.ffn_up)
    except ValueError as error:
        raise FileError(f"options: {error}") from None
    return _finish(file, partial(known_step, config, file), config, folder)


def config_in(file: ModelFile) -> TransformerConfig | None:
    """The numbers of a file's model; None for a user's module."""
    if file.config is not None:
        return file.config
    if is_folder(file.model):
        return _folder_config(Path(file.model))
    return None if FACTORY.fullmatch(file.model) else catalog(file.model)


def open_callable(factory: Callable[..., Any], file: ModelFile) -> OpenModel:
    """The model of a callable `factory(batch=, context=, kv=)`; `file.model` is its name in reports."""
    file = replace(file, weights=file.weights or DRAWN)
    return replace(_finish(file, partial(own_step, factory, file, file.model), None, None), file=None)


def is_folder(model: str) -> bool:
    """Whether a model's name means a folder: never one of the catalog, whatever lies beside."""
    return not is_named(model) and Path(model).is_dir()


def default_weights(model: str) -> str:
    """Of a folder its own, or `none` if it holds none that we read; drawn ones of everything else."""
    if not is_folder(model):
        return DRAWN
    return "safetensors" if any((Path(model) / name).is_file() for name in (SINGLE, INDEX)) else "none"


def reopen(
    manifest: Manifest, weights: str | None = None, factory: str | None = None, trust: bool = False
) -> OpenModel:
    """The model that a program was compiled from, by its manifest.

    weights: path of a checkpoint; the manifest has the digest of the weights, not their path. factory: the
    `package.module:factory` that the caller names; one that only the manifest names is not imported without
    `trust`. Raises FileError if the program was compiled from another or with other weights.
    """
    load_extensions()
    config = numbers_of(manifest)
    if manifest.chunk > 1 and (config is None or not config.encodes):
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
    _check_factory(about, factory, trust)
    known = str(about.weights)
    if weights == "safetensors" or (weights is None and not known.startswith("seed:")):
        drawn = ", or seed:0 for drawn ones" if known == IDENTITY else ""
        raise FileError(
            f"weights: this program was compiled with weights {known}. "
            f"Give --weights safetensors:PATH or orbax:PATH{drawn}."
        )
    try:
        file = ModelFile(
            model=str(about.name),
            weights=weights or known,
            batch=manifest.rows // manifest.chunk,
            context=tuple(manifest.contexts),
            kv=about.kv,
        )
    except ValueError as error:
        raise FileError(str(error)) from None
    if config is None:
        opened = _finish(file, partial(own_step, import_factory(file.model), file, file.model), None, None)
    else:
        opened = _finish(file, partial(known_step, config, file), config, _weights_folder(file.weights))
    if manifest.vocab != opened.outputs:
        raise FileError(
            f"model: this program leaves {manifest.vocab} logits, {opened.name} has {opened.outputs}. "
            "Compile again."
        )
    keys = ("parameters",) if known == IDENTITY else ("parameters", "weights_digest")
    for key in keys:
        found, wanted = getattr(opened.about, key), getattr(about, key)
        if found != wanted:
            raise FileError(
                f"weights: {file.weights}: {key} is {found[:16]}, the program was compiled for "
                f"{wanted[:16]}. Give the weights that it was compiled with, or compile again."
            )
    return opened


def reopen_module(manifest: Manifest, factory: str | None, trust: bool = False) -> OpenModel:
    """The module of the user's own that a program was compiled from, without weights, to read what it does.

    Raises FileError as `reopen`, and for a program of a known family, whose model needs no code.
    """
    if manifest.model.config is not None:
        raise FileError("prove: the model of this program is read from its numbers. Leave out --model.")
    about = replace(manifest.model, weights=IDENTITY)
    return reopen(replace(manifest, model=about), "none", factory, trust)


def _check_factory(about: ModelIdentity, factory: str | None, trust: bool) -> None:
    """Raise FileError unless the code that a program names, if any, was named by the caller too."""
    if factory is not None and factory != about.name:
        raise FileError(f"model: this program was compiled from {about.name}, --model says {factory}.")
    if about.config is None and factory is None and not trust:
        raise FileError(
            f"model: this program names {about.name}, code that would be imported and run. If you know it, "
            f"type its name: --model {about.name}, or add --trust."
        )


def _states_context(model: Model) -> bool:
    """Whether a model says which contexts it is for: a ModelFile does, a file if it has the key."""
    if not isinstance(model, (str, Path)):
        return True
    return Path(model).suffix in FILES and "context" in read_document(Path(model)).data


def _file_of(model: Model, trust: bool) -> ModelFile:
    if isinstance(model, ModelFile):
        return model
    if isinstance(model, (str, Path)):
        return read_model(model, trust)
    return ModelFile(model=f"{model.__module__}:{getattr(model, '__qualname__', type(model).__name__)}")


def _with_weights(file: ModelFile, weights: str) -> ModelFile:
    """The file with other weights, their path made absolute."""
    kind, _, rest = weights.partition(":")
    if kind in ("safetensors", "orbax") and rest:
        if not Path(rest).exists():
            raise FileError(f"weights: {rest}: is not there")
        weights = f"{kind}:{Path(rest).resolve()}"
    return replace(file, weights=weights)


def _finish(
    file: ModelFile, steps: Callable[..., Step], config: TransformerConfig | None, folder: Path | None
) -> OpenModel:
    try:
        held = _stored_weights(file, config)
        settled = config and _as_stored(held, config)
        if settled is not None and settled != config:
            config, steps = settled, partial(known_step, settled, file)
        step = steps(1)
        shapes = weight_shapes(step)
        weights = derived(held or _weights(file, step, config), shapes, step.made)
        check_shapes(weights, shapes)
        digest = weights.digest()
    except (WeightError, OSError) as error:
        raise FileError(f"weights: {error}") from error
    about = ModelIdentity(
        name=config.name if config else file.model,
        config=config.to_fields() if config else None,
        kv=file.kv,
        parameters=_shapes_digest(step),
        weights=weights.identity if kind_of(file) != "seed" else str(file.weights),
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
        notes=(*_beside(file.model), *_long_factors(config, file.context), *step.notes, *weights.notes),
    )


def _weights(file: ModelFile, step: Step, config: TransformerConfig | None) -> Weights:
    kind, _, rest = str(file.weights).partition(":")
    shapes = weight_shapes(step)
    if kind == "none":
        return NoWeights(shapes, unread(Path(file.model)) if is_folder(file.model) else "")
    return seeded(drawn(shapes, step.made), int(rest), tied=bool(config and config.tied))


def _stored_weights(file: ModelFile, config: TransformerConfig | None) -> Weights | None:
    """The weights of a checkpoint; None if the file names none."""
    kind, _, rest = str(file.weights).partition(":")
    if kind == "orbax":
        from models.sources.checkpoint import open_orbax

        return open_orbax(Path(rest))
    if kind != "safetensors":
        return None
    from models.sources.huggingface.folder import open_folder

    return open_folder(Path(rest) if rest else Path(file.model), config)


def _as_stored(weights: Weights | None, config: TransformerConfig) -> TransformerConfig:
    """The numbers with what only the files say: another head than the table, the scales of columns."""
    if weights is None:
        return config
    scaled = any(name.endswith(".scale") for name in weights.shapes)
    settled = getattr(weights, "config", config)
    return replace(settled, column_scales="f32" if scaled else "pow2")


def _folder_config(folder: Path) -> TransformerConfig:
    from models.sources.huggingface.config import read_config

    try:
        return read_config(folder)
    except (WeightError, OSError) as error:
        raise FileError(f"model: {error}") from error


def kind_of(file: ModelFile) -> str:
    """Which kind of weights a file names: seed, safetensors, orbax or none."""
    return str(file.weights).partition(":")[0]


def _beside(model: str) -> tuple[str, ...]:
    """A note if something of the catalog's name lies in the current folder."""
    if not is_named(model) or not Path(model).exists():
        return ()
    what = "folder" if Path(model).is_dir() else "file"
    return (f"model: {model} is the catalog's, not the {what} of that name here. Write ./{model} for that.",)


def _long_factors(config: TransformerConfig | None, contexts: Sequence[int]) -> tuple[str, ...]:
    """A note if a program takes LongRoPE's long factors: which then hold for all positions."""
    scaling = config and config.rope_scaling
    if not isinstance(scaling, LongRopeScaling) or contexts[-1] <= scaling.original_max_position:
        return ()
    return (
        f"rope: context {contexts[-1]} is above the original {scaling.original_max_position}: longrope's "
        "long factors are taken at every position, also of short prompts. "
        f"Give --context {scaling.original_max_position} or less for the short ones.",
    )


def _weights_folder(weights: str | None) -> Path | None:
    kind, _, rest = str(weights).partition(":")
    path = Path(rest)
    return path if kind == "safetensors" and path.is_dir() else None


def _shapes_digest(step: Step) -> str:
    held = [[name, list(leaf.shape), str(leaf.dtype)] for name, leaf in sorted(step.params.items())]
    constants = {
        name: hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        for name, value in sorted(step.constants.items())
    }
    return hashlib.sha256(json.dumps([held, constants]).encode()).hexdigest()
