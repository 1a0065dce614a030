"""The only reader of user files: YAML and JSON in, frozen records out.

Every complaint about a file is a `FileError` of one line per problem: `file:line:col: key: message`.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from fabric.bridge import BridgeSpec
from fabric.catalog import (
    UnknownBridgeError,
    UnknownChipError,
    UnknownGpuError,
    UnknownNodeError,
    UnknownRackError,
    bridge_names,
    bridge_spec,
    chip_names,
    chip_spec,
    gpu_names,
    gpu_spec,
    node_names,
    node_spec,
    rack_names,
)
from fabric.chip import ChipSpec, check_sources, stated
from fabric.gpu import GpuSpec, spread
from fabric.node import NodeSpec
from fabric.rack import Rack, build_rack, load_rack
from fabric.topology import RackSpec
from lpu.inputs.document import MOST_BYTES, Document, FileError, Key, parse, read_document, read_text
from lpu.inputs.faults import APART, with_faults
from lpu.inputs.foreign import foreign
from lpu.inputs.geometry import geometry, is_geometry
from lpu.screen import inert, plain
from models.catalog import UnknownModelError, catalog, is_named
from models.config import TransformerConfig
from models.sources.safetensor_files import is_pointer

Entry = TypeVar("Entry")
Sheet = TypeVar("Sheet", ChipSpec, BridgeSpec, GpuSpec, NodeSpec)
FILES = (".yaml", ".yml", ".json")
FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
MOST_BATCH, MOST_CONTEXT = 1 << 16, 1 << 30
WEIGHTS = re.compile(r"none|seed:\d{1,18}|safetensors|(safetensors|orbax):.+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """What to run: a model, its weights, and the shapes that the program is compiled for.

    model: a name of the catalog, a Hugging Face folder, or `package.module:factory`; of a file that states a
    geometry its own path. config: that geometry.
    weights: `seed:N`, `safetensors` (of the model's folder), `safetensors:PATH`, `orbax:PATH`, or `none` to
    compile only. None: `seed:0`; of a folder its own, or `none` where it holds none that we read.
    batch: sequences at once. context: one bucket of tokens or several, ascending. kv: format of the KV cache.
    ffn_down, ffn_up: how the FFNs' inputs and results are rounded, see TransformerConfig.
    """

    model: str
    weights: str | None = None
    batch: int = 1
    context: tuple[int, ...] = (1024,)
    kv: Literal["fp16", "fp8"] = "fp16"
    ffn_down: Literal["fp16", "fp8"] | None = None
    ffn_up: Literal["f32", "fp16"] = "f32"
    config: TransformerConfig | None = None

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model: is empty")
        if self.weights is not None and not WEIGHTS.fullmatch(self.weights):
            choices = "seed:N, safetensors, safetensors:PATH, orbax:PATH or none"
            raise ValueError(f"weights: {self.weights!r} is none of {choices}")
        if not 1 <= self.batch <= MOST_BATCH:
            raise ValueError(f"batch: is {self.batch}, needs 1 to {MOST_BATCH}")
        if not self.context or min(self.context) < 1 or list(self.context) != sorted(set(self.context)):
            raise ValueError(f"context: is {list(self.context)}, needs ascending numbers of at least 1")
        if self.context[-1] > MOST_CONTEXT:
            raise ValueError(f"context: is {self.context[-1]}, needs at most {MOST_CONTEXT}")


KEYS = tuple(field.name for field in fields(ModelFile) if field.name != "config")
"""The keys of a model file, besides those of a geometry."""


def read_model(source: str | Path, trust: bool = False) -> ModelFile:
    """A model by catalog name, file, `package.module:factory` or Hugging Face folder, in this order.

    trust: a file may name a factory; otherwise only the caller may. Raises FileError.
    """
    text, path = str(source), Path(source)
    if not text:
        raise FileError("model: needs a catalog name, a file, a folder or a package.module:factory")
    if not text.isprintable():
        raise FileError(f"model: {plain(text)}: holds control characters, which no program may. Rename it.")
    other = not is_named(text) and path.is_file() and path.suffix not in FILES
    if other and (what := foreign(path)):
        raise FileError(f"model: {what}")
    if not is_named(text) and (path.suffix in FILES or path.is_file()):
        return _read_model_file(path, trust)
    return _resolved(ModelFile(model=text), Path())


def read_rack(source: str | Path) -> Rack:
    """A rack by catalog name or by file, faults behind it: lpx;chip:17. Raises FileError.

    In a file, `chip` is a name, a file or a mapping.
    """
    name, *broken = str(source).split(APART)
    if broken:
        return with_faults(read_rack(name), broken)
    known = _in_catalog("rack", source, rack_names(), load_rack)
    if known is not None:
        return known
    document = read_document(Path(source))
    chip = _chip(document)
    spec = parse(RackSpec, document._replace(data=document.data | {"chip": chip.name}))
    spec = replace(spec, sources=stated(spec.numbers(), spec.sources, inert(str(source))))
    try:
        return build_rack(spec, chip)
    except ValueError as error:
        raise FileError(document.complaint(("links",) if spec.links else ("levels",), str(error))) from None


def read_chip(source: str | Path) -> ChipSpec:
    """A chip by catalog name or by file. Raises FileError."""
    return _in_catalog("chip", source, chip_names(), chip_spec) or _datasheet(ChipSpec, "chip", source)


def read_bridge(source: str | Path) -> BridgeSpec:
    """A bridge to GPUs by catalog name or by file. Raises FileError."""
    known = _in_catalog("bridge", source, bridge_names(), bridge_spec)
    return known or _datasheet(BridgeSpec, "bridge", source)


def read_gpu(source: str | Path) -> GpuSpec:
    """A GPU by catalog name or by file. Raises FileError."""
    return _in_catalog("GPU", source, gpu_names(), gpu_spec) or _datasheet(GpuSpec, "gpu", source)


def read_node(source: str | Path) -> NodeSpec:
    """A single node by catalog name or by file. Raises FileError."""
    return _in_catalog("node", source, node_names(), node_spec) or _datasheet(NodeSpec, "node", source)


def _in_catalog(
    kind: str, source: str | Path, names: Sequence[str], entry: Callable[[str], Entry]
) -> Entry | None:
    """The catalog's entry; None if the source is a file instead."""
    path = Path(source)
    if str(source) not in names and (path.suffix in FILES or path.is_file()):
        return None
    try:
        return entry(str(source))
    except (
        UnknownRackError,
        UnknownChipError,
        UnknownBridgeError,
        UnknownGpuError,
        UnknownNodeError,
    ) as error:
        raise FileError(f"{error} A {kind} of your own is a .yaml file.") from None


def _datasheet(record: type[Sheet], kind: str, source: str | Path) -> Sheet:
    """The numbers of a file, those that it states no source of as assumed."""
    document = read_document(Path(source))
    spec = parse(record, document)
    names = spec.sourced_names() if isinstance(spec, GpuSpec) else list(spec.numbers())
    sources = spread(names, spec.sources)
    try:
        every = stated(names, sources, inert(str(document.path)))
        check_sources(f"{kind} {spec.name}", names, every)
    except ValueError as error:
        raise FileError(document.complaint(("sources",), str(error).removeprefix("sources: "))) from None
    return replace(spec, sources=every)


def read_json(path: str | Path, most: int = MOST_BYTES) -> Any:
    """What a JSON file of at most this many bytes holds; a key twice is an error."""
    try:
        return json.loads(read_text(Path(path), most), object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise FileError(f"{path}:{error.lineno}:{error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}:1:1: {error}") from None


def _read_model_file(path: Path, trust: bool) -> ModelFile:
    document = read_document(path)
    config = None
    if is_geometry(document.data):
        config, document = geometry(document, [key for key in KEYS if key != "model"])
        document.data["model"] = str(path.resolve())
    elif "config" in document.data:
        raise FileError(
            document.complaint(("config",), "is no key here. Write its numbers, without a `model`.")
        )
    context = document.data.get("context", [])
    data = document.data | ({} if isinstance(context, list) else {"context": [context]})
    model = replace(parse(ModelFile, document._replace(data=data)), config=config)
    try:
        found = _resolved(model, path.parent)
        if FACTORY.fullmatch(found.model) and not trust:
            raise FileError(
                f"model: {found.model} is code that would be imported and run. Type its name instead of "
                "the file's, or add --trust."
            )
        return found
    except FileError as error:
        key = "weights" if str(error).startswith("weights") else "model"
        raise FileError(document.complaint((key,), str(error).removeprefix(f"{key}: "))) from None


def _resolved(model: ModelFile, folder: Path) -> ModelFile:
    """Paths made absolute against `folder`, and what they name found to be there."""
    name, weights = model.model, model.weights
    home = folder / name
    if model.config is not None or is_named(name):
        pass
    elif home.is_dir() and (home / "config.json").is_file() and not is_pointer(home / "config.json"):
        name = str(home.resolve())
    elif home.is_dir():
        what = foreign(home) or f"{name}: is a folder without config.json, so no Hugging Face model"
        raise FileError(f"model: {what}")
    elif not FACTORY.fullmatch(name):
        try:
            catalog(name)
        except UnknownModelError as error:
            raise FileError(f"{error} Nor is it a file, a folder or a package.module:factory.") from None
    kind, _, rest = (weights or "").partition(":")
    if kind != "seed" and rest:
        if not (folder / rest).exists():
            raise FileError(f"weights: {rest}: is not there")
        weights = f"{kind}:{(folder / rest).resolve()}"
    elif kind == "safetensors" and not Path(name).is_dir():
        raise FileError(f"weights: model {model.model} is not a folder. Write safetensors:PATH.")
    return replace(model, model=name, weights=weights)


def _chip(document: Document) -> ChipSpec:
    """The chip of a rack file: by name, by file, or a mapping of changes to `base` or of every number."""
    chip = document.data.get("chip", "")
    if isinstance(chip, str) and Path(chip).suffix in FILES:
        return read_chip(document.path.parent / chip)
    changes: dict[str, Any] = dict(chip) if isinstance(chip, dict) else {"base": chip}
    base: dict[str, Any] = {}
    if "base" in changes:
        key: Key = ("chip", "base") if isinstance(chip, dict) else ("chip",)
        name = changes.pop("base")
        if not isinstance(name, str) or not name:
            raise FileError(document.complaint(key, "needs a name of the chip catalog"))
        try:
            base = asdict(chip_spec(name))
        except UnknownChipError as error:
            raise FileError(document.complaint(key, str(error).removeprefix("chip: "))) from None
        if not changes:
            return chip_spec(name)
        base["sources"] = [source for source in base["sources"] if source["field"] not in changes]
        added = changes.pop("sources", [])
        if not isinstance(added, list):
            raise FileError(document.complaint(("chip", "sources"), f"needs a list, got {added!r}"))
        base["sources"] += added
    places = {key[1:]: place for key, place in document.places.items() if key[:1] == ("chip",)}
    spec = parse(ChipSpec, Document(document.path, base | changes, places))
    return replace(spec, sources=stated(list(spec.numbers()), spec.sources, inert(str(document.path))))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in pairs:
        if name in out:
            raise ValueError(f"{name}: is there twice")
        out[name] = value
    return out
