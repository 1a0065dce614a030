"""What a report was asked for, as plain JSON: what differs between two reports, and how to ask again."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any

from compiler.options import CompileOptions
from fabric.rack import Rack
from lpu.afd.machines import Machines
from lpu.afd.mode import Mode
from lpu.afd.options import GpuKind, Gpus
from lpu.gpu.request import Request
from lpu.inputs.model import OpenModel

OF_A_STEP = ("source", "max_context")  # of a model: where it is from, and what follows the context
Asked = dict[str, Any]
"""Values by name. `bridge.latency_ns` is a number of what `bridge` names; None: not from a name or file."""


def asked_of(
    mode: Mode,
    request: Request,
    gpus: Gpus,
    there: Machines,
    options: CompileOptions,
    names: tuple[Any, Any],
    chosen: Mapping[str, Any],
) -> Asked:
    """Of `lpu afd`. names: of model and rack, as they were given. chosen: the keywords of the model."""
    model, rack = names
    return (
        {"model": named(model)}
        | {key: plain_value(value) for key, value in chosen.items()}
        | rack_asked(rack, there.rack)
        | plain_values(asdict(options))
        | of_mode(mode)
        | asdict(request)
        | gpus_asked(gpus, there)
        | {"engine": gpus.engine, "gpu_table": named(gpus.gpu_table)}
    )


def of_mode(mode: Mode) -> Asked:
    """The name of a mode and its options."""
    options = {key: plain_value(getattr(mode, key)) for key in signature(type(mode)).parameters}
    return {"mode": mode.name, **{key: value for key, value in options.items() if key != "kv_cache"}}


def gpus_asked(kind: GpuKind, there: Machines) -> Asked:
    """GPUs and the bridge, with their numbers."""
    bridge = {f"bridge.{name}": value for name, value in there.bridge.numbers().items()}
    return {
        "gpu": named(kind.gpu),
        "gpu.sha256": sha256(repr(there.gpu).encode()).hexdigest()[:16],
        "bridge": named(kind.bridge),
        **bridge,
        "gemm": kind.gemm,
        "gpus": there.gpus,
        "gpu_tp": there.gpu_tp,
    }


def rack_asked(rack: str | Path | Rack, made: Rack) -> Asked:
    """The rack with the numbers of its levels and its chip, and its faults."""
    levels = {
        f"rack.{level.name}.{name}": getattr(level, name)
        for level in made.spec.levels
        for name in ("kind", "size", "lanes", "hop_ns", "slot_cycles")
    }
    chip = {f"rack.chip.{name}": value for name, value in made.chip.numbers().items()}
    faults = " ".join(str(one) for one in made.damage.faults) if made.damage else "none"
    return {
        "rack": named(rack),
        "rack.forward_ns": made.spec.forward_ns,
        **levels,
        **chip,
        "rack.faults": faults,
    }


def model_asked(opened: OpenModel) -> Asked:
    """What of a model a name does not say: its numbers, the format of its KV."""
    config = {key: value for key, value in (opened.about.config or {}).items() if key not in OF_A_STEP}
    sha = sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return {"model.sha256": sha, "kv": opened.step.kv}


def named(value: object) -> str | None:
    """A name or a path; None for anything else, which cannot be asked for again."""
    return str(value) if isinstance(value, (str, Path)) else None


def plain_values(values: Mapping[str, Any]) -> Asked:
    """The same with paths as texts."""
    return {name: plain_value(value) for name, value in values.items()}


def plain_value(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
