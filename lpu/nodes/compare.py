"""One model on single nodes, and beside them on a rack of LPUs by its compiled program."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compiler.errors import CompileError
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.node import NodeSpec
from fabric.rack import Rack
from lpu.check.check import require
from lpu.energy.energy import step_energy
from lpu.energy.spread import Spread
from lpu.folder import Progress, check_program, quiet
from lpu.inputs.model import OpenModel
from lpu.nodes.demand import BYTES, NodeDemand
from lpu.nodes.faults import Faults, Misses, faults
from lpu.nodes.residency import resident_tokens
from lpu.nodes.roofline import NodeWork, Roofline, decode, holds, prefill
from lpu.report.words import EXACT, caution, label_of
from lpu.screen import OnScreen

HEADERS = (
    "node", "lies in", "resident tokens", "first token", "a token", "tokens/s", "bound by", "P95 a token",
    "J a token",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class OnNode:
    """A model on a node. steps, prompts: with tiers serial and overlapped. error: why none fits.

    duty: share of the time in use; joules of a token take the rest at idle power.
    """

    node: NodeSpec
    load: NodeWork
    duty: float
    error: str = ""
    steps: tuple[Roofline, ...] = ()
    prompts: tuple[Roofline, ...] = ()
    resident: tuple[tuple[str, float], ...] = ()
    held: tuple[tuple[str, float, float], ...] = ()
    faults: Faults | None = None

    @property
    def kind(self) -> str:
        """How its figures are known."""
        return "modelled, speculative" if self.node.speculative else "modelled"

    @property
    def tokens_per_second(self) -> float:
        """Of all sequences together, tiers serial."""
        return self.load.batch / self.steps[0].seconds

    @property
    def fault_rate(self) -> float:
        """Chance that a token waits for the drive: 1 where KV lies on it, else that of cold places."""
        on_drive = any(tier == "ssd" for tier, *_ in self.held)
        return 1.0 if on_drive else (self.faults.rate if self.faults else 0.0)

    @property
    def p95_seconds(self) -> float:
        """Of a step at the 95th percentile of misses, each as slow as the drive can be."""
        step = self.steps[0].seconds
        return self.faults.p95_seconds(step)[1] if self.faults else step

    @property
    def joules_per_token(self) -> tuple[float, float]:
        """(least, most): power under load for a step, and idle power for the time between."""
        seconds = self.steps[0].seconds
        rest = seconds * (1 - self.duty) / self.duty
        low, high = (
            (busy * seconds + idle * rest) / self.load.batch
            for busy, idle in zip(self.node.watts, self.node.idle_watts, strict=True)
        )
        return low, high

    def row(self) -> list[str]:
        """Its cells under HEADERS."""
        if self.error:
            return [self.node.name, "does not fit", *["-"] * (len(HEADERS) - 2)]
        step, low, high = self.steps[0], *self.joules_per_token
        return [
            self.node.name + (" *" if self.node.speculative else ""),
            "+".join(tier for tier, *_ in self.held),
            f"{self.resident[-1][1]:,.0f}",
            seconds_text(self.prompts[0].seconds),
            seconds_text(step.seconds),
            f"{self.tokens_per_second:,.4g}",
            step.bound,
            seconds_text(self.p95_seconds),
            f"{low:,.3g} - {high:,.3g}",
        ]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        out: dict[str, Any] = {"node": self.node.name, "kind": self.kind, "error": self.error or None}
        if self.error:
            return out
        return out | {
            "held_bytes": [{"tier": t, "weights": w, "kv": kv} for t, w, kv in self.held],
            "resident_tokens": {name: None if t == float("inf") else t for name, t in self.resident},
            "prefill": [one.to_json() for one in self.prompts],
            "decode": [one.to_json() for one in self.steps],
            "tokens_per_second": self.tokens_per_second,
            "p95_seconds": self.p95_seconds,
            "fault_rate": self.fault_rate,
            "faults": self.faults.to_json() if self.faults else None,
            "joules_per_token": list(self.joules_per_token),
            "watts": list(self.node.watts),
            "idle_watts": list(self.node.idle_watts),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RackBeside:
    """The same model as a program of a rack, weights e4m3. error: why there is none; then no more."""

    rack: str
    chip: str
    load: NodeWork
    error: str = ""
    cycles: int = 0
    seconds: float = 0.0
    chips: int = 0
    joules: Spread | None = None

    def row(self) -> list[str]:
        """Its cells under HEADERS; the prompt is left out, programs for chunks are `--prefill`'s."""
        if self.error or self.joules is None:
            return [self.rack, "no program", *["-"] * (len(HEADERS) - 2)]
        return [
            self.rack,
            f"sram of {self.chips} chips",
            "-",
            "-",
            seconds_text(self.seconds),
            f"{self.load.batch / self.seconds:,.4g}",
            f"{self.cycles:,} cycles",
            seconds_text(self.seconds),
            f"{self.joules.low:,.3g} - {self.joules.high:,.3g}",
        ]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        out: dict[str, Any] = {"rack": self.rack, "error": self.error or None}
        if self.error or self.joules is None:
            return out
        return out | {
            "kind": EXACT,
            "label": label_of(self.chip),
            "caution": caution(self.chip),
            "cycles": self.cycles,
            "seconds": self.seconds,
            "tokens_per_second": self.load.batch / self.seconds,
            "chips": self.chips,
            "joules_per_token": self.joules.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Compared(OnScreen):
    """Every node, and the rack where one was asked for."""

    model: NodeDemand
    load: NodeWork
    nodes: tuple[OnNode, ...]
    rack: RackBeside | None

    def rows(self) -> list[list[str]]:
        """Cells under HEADERS, the rack last."""
        return [one.row() for one in (*self.nodes, *([self.rack] if self.rack else []))]

    def notes(self) -> list[str]:
        """Why some have no figures, and what to read the others with."""
        errors = [f"{one.error}" for one in self.nodes if one.error]
        if self.rack and self.rack.error:
            errors.append(self.rack.error)
        if self.rack and not self.rack.error and self.load.weights != "fp8":
            errors.append(f"{self.rack.rack}: its weights are e4m3, whatever the nodes' format.")
        told = caution(self.rack.chip) if self.rack and not self.rack.error else None
        return errors + ([f"caution     {told}"] if told else [])

    def __str__(self) -> str:
        return "\n".join(["  ".join(row) for row in self.rows()] + self.notes())

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "schema": "lpu-nodes-compare/1",
            "model": self.model.name,
            "parameters": self.model.parameters,
            "active_parameters": self.model.active,
            "context": self.load.context,
            "batch": self.load.batch,
            "weights": self.load.weights,
            "kv": self.load.kv,
            "kv_bytes": self.load.batch * self.model.kv_numbers(self.load.context) * BYTES[self.load.kv],
            "nodes": [one.to_json() for one in self.nodes],
            "rack": self.rack.to_json() if self.rack else None,
        }


def on_node(node: NodeSpec, model: NodeDemand, load: NodeWork, misses: Misses, duty: float = 1.0) -> OnNode:
    """A model on one node."""
    try:
        held = holds(node, model, load)
    except CompileError as error:
        return OnNode(node=node, load=load, duty=duty, error=str(error))
    return OnNode(
        node=node,
        load=load,
        duty=duty,
        steps=(decode(node, model, load), decode(node, model, load, overlapped=True)),
        prompts=(prefill(node, model, load), prefill(node, model, load, overlapped=True)),
        resident=tuple(resident_tokens(node, model, load.weights, load.kv).items()),
        held=tuple((one.tier, one.weights, one.kv) for one in held),
        faults=faults(node, model, load.kv, misses),
    )


def on_rack(opened: OpenModel, rack: Rack, load: NodeWork, progress: Progress = quiet) -> RackBeside:
    """A model compiled, checked and priced on a rack."""
    try:
        program = compile_program(opened.source(), rack, CompileOptions(), progress)
    except CompileError as error:
        return RackBeside(rack=rack.name, chip=rack.chip.name, load=load, error=str(error))
    for report in check_program(program, progress).values():
        require(report)
    manifest = program.manifest
    cycles = manifest.cycles[load.context]
    return RackBeside(
        rack=rack.name,
        chip=rack.chip.name,
        load=load,
        cycles=cycles,
        seconds=cycles / manifest.clock_hz,
        chips=manifest.chips,
        joules=step_energy(program, load.context).joules_per_token,
    )


def on_nodes(
    nodes: Sequence[NodeSpec], model: NodeDemand, load: NodeWork, misses: Misses, duty: float
) -> tuple[OnNode, ...]:
    """A model on every node."""
    return tuple(on_node(node, model, load, misses, duty) for node in nodes)


def seconds_text(seconds: float) -> str:
    """Three digits that count, in the unit that suits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return (
                f"{seconds / scale:,.3g} {unit}"
                if seconds / scale < 1e3
                else f"{seconds / scale:,.0f} {unit}"
            )
    return f"{seconds * 1e9:,.3g} ns"
