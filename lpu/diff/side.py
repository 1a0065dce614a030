"""One side of a difference: the step of a program, or what `lpu report --json` wrote of one."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compiler.analyse.chain import PARTS
from compiler.program.manifest import Manifest
from compiler.program.program import Program
from fabric.bridge import BridgeSpec
from lpu.inputs.document import FileError
from lpu.report.occupancy import kind_of
from lpu.report.traffic import link_levels
from lpu.report.walk import BlockChain, ChainPart, block_chains, units_of

Facts = Mapping[str, Any]
CONTEXTUAL = ("source", "max_context")  # of a model: what says nothing, or follows the context
REMAPPED = "remap"  # the fact that is the program of `lpu remap`, which keeps what it can where it was
COMPUTE = ("step", "waves")  # kinds of which a step can be held against a step


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A step: what it was compiled from, and its cycles by block.

    program: None where only a report is there, which says nothing of exchanges or links. facts: what can
    differ, by name, in the order in which it is explained. units: blocks of the model by kind.
    """

    name: str
    kind: str
    digest: str
    context: int
    cycles: int
    clock_hz: int
    chip: str
    model: str
    facts: Facts
    blocks: tuple[BlockChain, ...]
    units: Mapping[str, int]
    program: Program | None = None

    @property
    def microseconds(self) -> float:
        """How long the step takes at the chip's (assumed) clock."""
        return self.cycles * 1e6 / self.clock_hz

    def kinds(self) -> tuple[str, ...]:
        """The kinds of its blocks, in order."""
        return tuple(dict.fromkeys(block.kind for block in self.blocks))


def of_program(name: str, program: Program, context: int) -> Side:
    """The step of a program at one of its context buckets."""
    manifest = program.manifest
    return Side(
        name=name,
        kind=manifest.kind,
        digest=manifest.digest,
        context=context,
        cycles=manifest.cycles[context],
        clock_hz=manifest.clock_hz,
        chip=manifest.chip.name,
        model=manifest.model.name,
        facts=facts_of(program, context),
        blocks=block_chains(program, context),
        units=units_of(program),
        program=program,
    )


def facts_of(program: Program, context: int) -> Facts:
    """What the step of a program was compiled from, by name, in the order in which it is explained."""
    manifest, model = program.manifest, program.manifest.model
    options, chip = manifest.options, manifest.chip
    return {
        "model": _shape(model.name, model.parameters, model.config),
        "batch": {"batch": manifest.sequences},
        "chunk": {"chunk": manifest.chunk},
        "kv": {"kv": model.kv},
        "context": {"context": context},
        "chip": {"chip": chip.name, **dict(chip.numbers())},
        "rack": _wires(manifest),
        "tp": {"tp": manifest.tp},
        "pp": {"pp": options.pp},
        "cp": {"cp": options.cp or 1},
        "layout": {"layout": options.layout},
        "experts": {"experts": options.experts},
        "placement": {"placement": options.placement, "seed": options.seed},
        "objective": {
            "objective": options.objective,
            "interval_slack": options.interval_slack,
            "users": options.users,
        },
        REMAPPED: {"remapped from": remapped_from(manifest)[:16] or "nothing"},
        **({} if manifest.bridge is None else {"bridge": _bridge(manifest.bridge)}),
    }


def remapped_from(manifest: Manifest) -> str:
    """The digest of the program that `lpu remap` made this one of; nothing of one that it did not make."""
    return "" if manifest.broken is None else manifest.broken.parent


def _bridge(bridge: BridgeSpec) -> dict[str, Any]:
    return {"bridge": bridge.name, **bridge.numbers()}


def _shape(name: str, parameters: str, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a model is; of a module of one's own the digest of its parameters' shapes."""
    numbers = config if config is not None else {"parameters": parameters}
    return {"name": name} | {key: value for key, value in numbers.items() if key not in CONTEXTUAL}


def _wires(manifest: Manifest) -> dict[str, Any]:
    """The numbers of a rack; nanoseconds, so that another clock alone is no other rack."""
    table, levels = manifest.link_table(), link_levels(manifest)
    clock, slot = manifest.clock_hz, manifest.chip.slot_cycles
    found: dict[str, Any] = {
        "rack": manifest.rack,
        "chips": manifest.chips,
        "forward_ns": manifest.forward_cycles * 10**9 // clock,
        "faults": _faults(manifest.broken.faults if manifest.broken else ()),
    }
    for i, level in enumerate(manifest.levels):
        mine = table[levels == i]
        found[f"{level.name}.links"] = len(mine)
        found[f"{level.name}.lanes"] = _several(mine[:, 2])
        found[f"{level.name}.hop_ns"] = _several(mine[:, 3] * 10**9 // clock)
        if len(mine) and (mine[:, 4] != slot).any():
            found[f"{level.name}.slot_cycles"] = _several(mine[:, 4])
    found["wiring"] = hashlib.sha256(table[:, :2].tobytes()).hexdigest()[:12]
    return found


def _faults(faults: Sequence[str]) -> str:
    return " and ".join(faults) or "none"


def _several(values: np.ndarray) -> str:
    """One number, or the least and the most of several."""
    few = np.unique(values).tolist()
    return str(few[0]) if len(few) == 1 else f"{few[0]} to {few[-1]}" if few else "none"


def of_report(name: str, body: Any) -> Side:
    """The step that a JSON report of `lpu report` or `lpu compile` tells of. Raises FileError."""
    try:
        if body["schema"] not in ("lpu-report/1", "lpu-compile/1"):
            raise FileError(f"diff: {name}: schema is {str(body['schema'])[:40]!r}, not lpu-report/1.")
        found, options = body["occupancy"][-1], body["options"]
        model = body["model"]
        return Side(
            name=name,
            kind="hops" if body["hops"] else "step",
            digest=str(body["program_sha256"]),
            context=int(found["context"]),
            cycles=int(found["cycles"]),
            clock_hz=int(found["clock_hz"]),
            chip=str(found["chip"]),
            model=str(model["name"]),
            facts={
                "model": _shape(model["name"], model["parameters"], model["config"]),
                "batch": {"batch": body["batch"]},
                "chunk": {"chunk": found["chunk"]},
                "kv": {"kv": model["kv"]},
                "context": {"context": found["context"]},
                "chip": {"chip": found["chip"], "clock_hz": found["clock_hz"]},
                "rack": {
                    "rack": body["rack"],
                    "chips": found["chips"],
                    "faults": _faults(body.get("broken", {}).get("faults", ())),
                },
                "tp": {"tp": options["tp"]},
                "pp": {"pp": options["pp"]},
                "cp": {"cp": options["cp"] or 1},
                "layout": {"layout": options["layout"]},
                "experts": {"experts": options.get("experts", "exact")},
                "placement": {"placement": options["placement"], "seed": options["seed"]},
                "objective": {name: options.get(name) for name in ("objective", "interval_slack", "users")},
            },
            blocks=(blocks := tuple(_block(one) for one in found["chains"])),
            units={one.kind: sum(b.calls for b in blocks if b.kind == one.kind) for one in blocks},
        )
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise FileError(
            f"diff: {name}: is no report of lpu report --json ({type(error).__name__} at {str(error)[:60]})."
        ) from None


def _block(body: Any) -> BlockChain:
    parts = tuple(
        ChainPart(part=part, level="", rows=0, cycles=int(body["cycles"].get(part, 0))) for part in PARTS
    )
    return BlockChain(
        kind=kind_of(str(body["name"])),
        name=str(body["name"]),
        calls=int(body["calls"]),
        cycles=sum(part.cycles for part in parts),
        parts=tuple(part for part in parts if part.cycles),
        exchanges=(),
    )


def to_json(side: Side) -> dict[str, Any]:
    """Plain JSON values of a side."""
    return {
        "name": side.name,
        "kind": side.kind,
        "model": side.model,
        "program_sha256": side.digest,
        "context": side.context,
        "cycles": side.cycles,
        "microseconds": side.microseconds,
        "clock_hz": side.clock_hz,
        "blocks": [asdict(block) for block in side.blocks],
    }
