"""Every number of a chip, rack, GPU, bridge or model, with its kind and its source."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any, NamedTuple

from fabric.bridge import BridgeSpec, PodSpec
from fabric.chip import ChipSpec, Sourced
from fabric.gpu import GpuSpec
from fabric.node import NodeSpec
from fabric.topology import RackSpec
from lpu.report.words import kind_of
from models.config import TransformerConfig

WORDS = ("name", "source", "family")  # of a model: no numbers


class Number(NamedTuple):
    """A number as it is stated. kind: published, derived or assumed. confidence: its letter, or nothing."""

    name: str
    value: Any
    kind: str
    confidence: str
    source: str


def of_spec(spec: ChipSpec | GpuSpec | BridgeSpec | NodeSpec | PodSpec) -> list[Number]:
    """The numbers of a datasheet; of a GPU also its two tables of all-reduces."""
    values: dict[str, Any] = dict(spec.numbers())
    if isinstance(spec, GpuSpec):
        values |= {f"all_reduce.{name}": getattr(spec.all_reduce, name) for name in ("points", "floors")}
    return list(_sourced(values, spec.sources))


def of_rack(spec: RackSpec) -> list[Number]:
    """The numbers of a rack, those of its chip left out."""
    values: dict[str, Any] = {"forward_ns": spec.forward_ns}
    for level in spec.levels:
        values |= {name: getattr(level, name.rpartition(".")[2]) for name in level.numbers()}
    if spec.links:
        values["links"] = f"{len(spec.links)} links"
    return list(_sourced(values, spec.sources))


def of_model(config: TransformerConfig) -> list[Number]:
    """The numbers of a model; all of them have one source."""
    kind = "published" if config.source.startswith("published") else "assumed"
    return [
        Number(field.name, _plain(getattr(config, field.name)), kind, "", config.source)
        for field in fields(config)
        if field.name not in WORDS and getattr(config, field.name) is not None
    ]


def _sourced(values: Mapping[str, Any], sources: tuple[Sourced, ...]) -> Iterator[Number]:
    held = {source.field: source for source in sources}
    for name, value in values.items():
        source = held[name]
        yield Number(name, value, kind_of(source), source.confidence, source.source)


def _plain(value: Any) -> Any:
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
