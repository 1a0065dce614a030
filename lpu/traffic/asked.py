"""What a replay was asked for, as plain JSON: what differs between two reports, and how to ask again."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from compiler.options import CompileOptions
from compiler.program.program import Program
from lpu.afd.asked import Asked, gpus_asked, named, of_mode, plain_value, plain_values
from lpu.afd.machines import Machines
from lpu.afd.mode import Mode
from lpu.compiled import Compiled
from lpu.diff.side import facts_of
from lpu.inputs.document import Document, parse
from lpu.traffic.options import ReplayOptions, TrafficGpus
from lpu.traffic.readers.drawn import DrawnTraffic
from lpu.traffic.trace import Trace

COMPILED = "compiled."  # before what the program was compiled from, by fact
DRAWN = "drawn."  # before the values of what requests were drawn from
OF_A_RUN = ("jobs", "scheduler", "output", "log", "pictures")  # how it is computed and kept


def asked_of(
    traffic: Trace | DrawnTraffic,
    program: Program,
    names: tuple[str | None, Any, Any],
    chosen: tuple[CompileOptions, Mode, Mapping[str, Any]],
    asked: ReplayOptions,
    gpus: tuple[TrafficGpus, Machines | None],
) -> Asked:
    """Of `lpu replay`. What a program was compiled from is told by its manifest.

    names: of the trace, of the model or program, and of the rack, as they were given. chosen: options, mode,
    and the keywords of the model.
    """
    trace, model, rack = names
    options, mode, keywords = chosen
    kind, there = gpus
    about = {field.name: plain_value(getattr(asked, field.name)) for field in fields(asked)}
    about = {name: value for name, value in about.items() if name not in OF_A_RUN} | of_mode(mode)
    found = _traffic(traffic, trace) | about | {"gpus": kind.gpus}
    if there is not None:
        found |= gpus_asked(kind, there) | {"gpu_tp": kind.gpu_tp}
    facts = facts_of(program, program.manifest.longest)
    compiled = {
        f"{COMPILED}{fact}.{key}": plain_value(value)
        for fact, some in facts.items()
        for key, value in some.items()
    }
    ours = {
        "model": named(model),
        "rack": named(rack),
        **plain_values(asdict(options)),
        **plain_values(keywords),
    }
    if isinstance(model, Program | Compiled) or (named(model) and (Path(model) / "manifest.json").is_file()):
        ours = {"program": named(model)}
    return found | ours | compiled


def _traffic(traffic: Trace | DrawnTraffic, name: str | None) -> Asked:
    if isinstance(traffic, DrawnTraffic):
        return {f"{DRAWN}{key}": value for key, value in _flat(asdict(traffic)).items()}
    arrays = (traffic.arrivals, traffic.inputs, traffic.outputs)
    sha = sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in arrays)).hexdigest()[:16]
    return {"trace": name, "trace.requests": len(traffic), "trace.sha256": sha}


def _flat(values: Mapping[str, Any]) -> Asked:
    out: Asked = {}
    for key, value in values.items():
        inside = _flat(value) if isinstance(value, dict) else None
        out |= {key: plain_value(value)} if inside is None else {f"{key}.{k}": v for k, v in inside.items()}
    return out


def drawn_again(asked: Mapping[str, Any]) -> DrawnTraffic:
    """What requests were drawn from. Raises FileError if the values are none that can be."""
    body: dict[str, Any] = {}
    for key, value in asked.items():
        if key.startswith(DRAWN):
            *path, last = key.removeprefix(DRAWN).split(".")
            inside = body
            for part in path:
                inside = inside.setdefault(part, {})
            inside[last] = value
    return parse(DrawnTraffic, Document(Path("requests"), body, {(): (1, 1)}))
