"""The JSON schemas of the files that users write, made from the records that read them."""

from typing import Any

from fabric.bridge import BridgeSpec
from fabric.chip import ChipSpec
from fabric.gpu import GpuSpec
from fabric.node import NodeSpec
from fabric.topology import RackSpec
from lpu.inputs.files import ModelFile
from lpu.inputs.geometry import ELSEWHERE, OPTIONAL
from models.config import TransformerConfig

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema(kind: str) -> dict[str, Any]:
    """The schema of a YAML or JSON file that describes a model, rack, chip, gpu, bridge or node."""
    made = {"model": _model, "rack": _rack, "chip": _chip}
    whole = (
        made[kind]()
        if kind in made
        else _record({"gpu": GpuSpec, "bridge": BridgeSpec, "node": NodeSpec}[kind])
    )
    return {"$schema": DRAFT, "title": f"lpu {kind} file", **whole}


def _record(record: type, drop: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """The schema of a record: no other keys, without those of `drop`, and `optional` ones not required."""
    from pydantic import TypeAdapter  # a tenth of a second

    found = TypeAdapter(record).json_schema()
    found.pop("title", None)
    found["properties"] = {key: value for key, value in found["properties"].items() if key not in drop}
    found["required"] = [key for key in found.get("required", ()) if key not in (*drop, *optional)]
    found["additionalProperties"] = False
    return found


def _model() -> dict[str, Any]:
    from models.families.registry import FAMILIES  # brings JAX

    named = _record(ModelFile, drop=("config",))
    named["properties"]["context"] = {"anyOf": [{"type": "integer"}, named["properties"]["context"]]}
    besides = {key: value for key, value in named["properties"].items() if key != "model"}
    shared, every = named.pop("$defs", {}), [named]
    for record in dict.fromkeys([TransformerConfig, *(family.config for family in FAMILIES.values())]):
        own = _record(record, drop=ELSEWHERE, optional=OPTIONAL)
        own["properties"] |= besides
        shared |= own.pop("$defs", {})
        every.append(own)
    return {"anyOf": every, "$defs": shared}


def _rack() -> dict[str, Any]:
    found = _record(RackSpec)
    chip = _chip()
    found["$defs"] = {**found.get("$defs", {}), **chip.pop("$defs", {})}
    found["properties"]["chip"] = {"anyOf": [{"type": "string"}, chip]}
    return found


def _chip() -> dict[str, Any]:
    """A chip inside a rack file: every number, or changes to the chip `base` of the catalog."""
    whole = _record(ChipSpec)
    base = {"type": "string", "description": "a chip of the catalog; the other keys are changes to it"}
    changed = {**whole, "properties": whole["properties"] | {"base": base}, "required": ["base"]}
    shared = whole.pop("$defs", {})
    changed.pop("$defs", None)
    return {"anyOf": [changed, whole], "$defs": shared}
