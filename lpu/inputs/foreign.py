"""What a file or folder is that is no model of ours: a name for it, and what to give instead."""

import json
from collections.abc import Callable
from pathlib import Path

from models.sources.safetensor_files import is_pointer

_CACHE = ("blobs", "refs", "snapshots")  # of a repository in the hub's cache
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")
_FORMATS = (
    (
        (".gguf", ".ggml"),
        "a GGUF file, which is not read",
        "Give the folder of safetensors that it was made of.",
    ),
    (
        (".onnx",),
        "an ONNX graph, which is not read",
        "Give the Hugging Face folder that it was exported from.",
    ),
    (
        (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"),
        "a PyTorch pickle, which is never loaded",
        "Save the model as safetensors and give its folder.",
    ),
    (
        (".h5", ".keras", ".msgpack", ".tflite", ".mlmodel"),
        "a model in a format that is not read",
        "Save it as safetensors and give its folder.",
    ),
    ((".safetensors",), "a file of weights", "Give the folder that holds it and the config.json."),
)


def foreign(path: Path) -> str:
    """One line: what this is, and the remedy; empty for what is not known here."""
    try:
        if path.is_file():
            return _file(path)
        return next((f"{path}: {found}" for look in _FOLDERS if (found := look(path))), "")
    except OSError:
        return ""


def _file(path: Path) -> str:
    if is_pointer(path):
        return f"{path}: is a Git LFS pointer, not the file. Run `git lfs pull` there."
    with path.open("rb") as stream:
        if stream.read(4) == b"GGUF":
            what, remedy = _FORMATS[0][1:]
            return f"{path}: is {what}. {remedy}"
    return next(
        (f"{path}: is {what}. {remedy}" for ends, what, remedy in _FORMATS if path.suffix in ends), ""
    )


def _pointer(path: Path) -> str:
    names = [one.name for one in sorted(path.glob("*.json")) if is_pointer(one)]
    what = "is a Git LFS pointer, not the file. Run `git lfs pull` there."
    return f"its {names[0]} {what}" if names else ""


def _cached(path: Path) -> str:
    """A repository of the hub's cache, a folder in one, or the cache."""
    if path.resolve().name in _CACHE and _is_cached(path.resolve().parent):
        path = path.resolve().parent
    if _is_cached(path):
        return f"is a folder of the hub's cache. {_snapshot(path)}"
    inside = sorted(one for one in path.glob("models--*") if one.is_dir())
    return f"is the hub's cache, {len(inside)} models. {_snapshot(inside[0])}" if inside else ""


def _is_cached(path: Path) -> bool:
    return (path / "snapshots").is_dir() or all((path / name).is_dir() for name in _CACHE[:2])


def _snapshot(path: Path) -> str:
    """The sentence that names the snapshot to give: that of refs/main, else the first."""
    main, held = path / "refs" / "main", path / "snapshots"
    found = sorted(one for one in held.glob("*") if one.is_dir())
    if main.is_file():
        wanted = main.read_text(encoding="utf-8", errors="replace").strip()
        found.sort(key=lambda one: one.name != wanted)
    return f"Give its snapshot: {found[0]}" if found else "It holds no snapshot: download the model again."


def _adapter(path: Path) -> str:
    file = path / "adapter_config.json"
    if not file.is_file():
        return ""
    try:
        base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError, RecursionError):
        base = None
    of = f" of {str(base)[:60]}" if base else ""
    return f"is an adapter (LoRA){of}, not a model. Merge it into its base, save that and give it."


def _pipeline(path: Path) -> str:
    held = (path / "model_index.json").is_file()
    return "is a diffusers pipeline, no language model. Give the folder of a decoder." if held else ""


def _weights(path: Path) -> str:
    if (path / "weights.json").is_file() and (path / "tensors").is_dir():
        return f"is converted weights. Give a model, and --weights orbax:{path}."
    for ends, what, remedy in _FORMATS:
        names = sorted(one.name for one in path.iterdir() if one.suffix in ends)
        if names and ends == (".safetensors",):
            return f"holds {names[0]} and no config.json. Fetch the config.json that belongs to it."
        if names:
            return f"holds {names[0]}, {what}, and no config.json. {remedy}"
    return ""


def _tokenizer(path: Path) -> str:
    names = [name for name in _TOKENIZER if (path / name).is_file()]
    what = "no config.json, no weights. Fetch the model's files."
    return f"holds a tokenizer only ({names[0]}): {what}" if names else ""


def _empty(path: Path) -> str:
    return "" if any(path.iterdir()) else "is an empty folder. Give that of a model or of a program."


_FOLDERS: tuple[Callable[[Path], str], ...] = (
    _pointer,
    _cached,
    _adapter,
    _pipeline,
    _weights,
    _tokenizer,
    _empty,
)
"""What a folder without config.json (or with a pointer in its place) may be: the first that it is."""
