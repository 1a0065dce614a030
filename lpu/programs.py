"""What can be asked of a program: check, report, bounds, trace."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compiler.analyse.aim import aims
from compiler.analyse.bounds import bounds as bounds_of
from compiler.analyse.chain import chains
from compiler.program.program import Program
from lpu.check.check import Report
from lpu.check.memory_image import check_handover, pair
from lpu.check.stated import machine
from lpu.compiled import Compiled, ProgramLike, programs_of
from lpu.energy.energy import StepEnergy, step_energy
from lpu.energy.prices import prices
from lpu.energy.profile import powers
from lpu.figures.bars import levers_figure
from lpu.figures.drawing import Drawing
from lpu.figures.shown import Shown
from lpu.folder import Progress, check_program, load_handover, need_step, quiet
from lpu.inputs.document import FileError
from lpu.inputs.model import OpenModel
from lpu.legal import taken_as_legal
from lpu.modules import readers_of
from lpu.prove.programs import NOT_ASKED, Proof, left_out, proof_line, prove_programs
from lpu.report import listing
from lpu.report.bounds import Bounds as Bounds
from lpu.report.listing import Listing
from lpu.report.occupancy import Occupancy, occupancy
from lpu.report.program import Facts, prefill_body, prefill_facts, program_body, program_facts
from lpu.report.show_options import ShowOptions
from lpu.report.throughput import Throughput, throughput
from lpu.report.trace import Asked, write_trace
from lpu.report.walk import block_chains
from lpu.routing.popularity import popularity_of
from lpu.routing.worst_case import RoutingCost, routing
from lpu.screen import OnScreen, fact_lines


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Checked(OnScreen):
    """The reports on a program, its prefill program, their one memory image and what moves its KV.

    machine: what is known of the machine that it states. proof: of a legal program, or why it was left out.
    """

    digest: str
    reports: dict[int, Report]
    prefill: dict[int, Report]
    image: Report | None
    moved: tuple[Report, ...]
    machine: str
    proof: Proof | str

    @property
    def proved(self) -> bool:
        """Whether the proof, if there is one, holds."""
        return isinstance(self.proof, str) or self.proof.ok

    @property
    def ok(self) -> bool:
        """Whether every rule holds everywhere."""
        image = [self.image] if self.image else []
        return all(one.ok for one in (*self.reports.values(), *self.prefill.values(), *image, *self.moved))

    def __str__(self) -> str:
        lines = [f"{report} (context {bucket})" for bucket, report in self.reports.items()]
        lines += [f"{report} (prefill, context {bucket})" for bucket, report in self.prefill.items()]
        lines += [f"{one} (hand-over of KV)" for one in self.moved]
        if self.image:
            lines.append("image       one for both programs" if self.image.ok else str(self.image))
        if self.ok:
            lines.append(proof_line(self.proof))
        lines.append(f"machine     {self.machine}")
        return "\n".join([*lines, f"verdict     {'legal' if self.ok else 'broken'}, digest {self.digest}"])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "lpu-check/1",
            "ok": self.ok,
            "machine": self.machine,
            "proof": {"left_out": self.proof} if isinstance(self.proof, str) else self.proof.to_json(),
            "program_sha256": self.digest,
            "contexts": [_check_body(bucket, report) for bucket, report in self.reports.items()],
            "prefill": [_check_body(bucket, report) for bucket, report in self.prefill.items()],
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ProgramReport(Shown):
    """What a program keeps busy, per context bucket, and how many steps of its users follow one another."""

    program: Program
    prefill: Program | None
    occupancy: tuple[Occupancy, ...]
    throughput: tuple[Throughput, ...]
    energy: tuple[StepEnergy, ...] = ()
    routing: RoutingCost | None = None

    @property
    def parts(self) -> tuple[Any, ...]:
        """What it says after the facts, part by part."""
        routed = () if self.routing is None else (self.routing,)
        return (*self.occupancy, *routed, *self.throughput, *self.energy)

    @property
    def facts(self) -> Facts:
        """What it is, in names and values."""
        return program_facts(self.program) + (prefill_facts(self.prefill) if self.prefill else [])

    def __str__(self) -> str:
        return "\n".join([fact_lines(self.facts), *map(str, self.parts)])

    def drawing(self) -> Drawing:
        """Where the cycles of the critical path of the longest context are."""
        context = self.program.manifest.longest
        return levers_figure(block_chains(self.program, context), self.program.manifest.cycles[context])

    def records(self) -> list[dict[str, Any]]:
        """A line for each part of the chain of each kind of block, and for each bound, by context."""
        return [
            {"context": one.context, "what": what, "name": name, "part": part, "cycles": cycles}
            for one in self.occupancy
            for what, name, part, cycles in (
                *(("bound", bound.name, "", bound.cycles) for bound in one.bounds),
                *(
                    ("chain", chain.name, part, chain.calls * cycles)
                    for chain in one.chains
                    for part, cycles in chain.cycles.items()
                ),
            )
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "lpu-report/1",
            **program_body(self.program),
            "occupancy": [one.to_json() for one in self.occupancy],
            "prefill": prefill_body(self.prefill) if self.prefill else None,
            "throughput": [one.to_json() for one in self.throughput],
            "energy": [one.to_json() for one in self.energy],
            "routing": self.routing and self.routing.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TraceFile(OnScreen):
    """A trace that was written."""

    path: str
    context: int
    digest: str

    def __str__(self) -> str:
        return f"saved       {self.path}: open it at https://ui.perfetto.dev"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "lpu-trace-file/1",
            "file": self.path,
            "context": self.context,
            "program_sha256": self.digest,
        }


def check(program: ProgramLike, *, prove: bool | None = None, progress: Progress = quiet) -> Checked:
    """Check a program against the rules of the machine, without the compiler, and prove it if it is legal.

    Nothing is raised for a broken rule. Of a folder also its prefill program and those that move its KV.
    prove: None if it is small and its model is known.
    """
    loaded, long = programs_of(program)
    ingest, egress = load_handover(program) if isinstance(program, (str, Path)) else (None, None)
    reports = check_program(loaded, progress)
    prefill = check_program(long, progress, "check prefill") if long else {}
    moved = [report for one in (ingest, egress) if one for report in check_program(one).values()]
    known = not any(one.counts[0] for one in (*reports.values(), *prefill.values(), *moved))
    moved += [check_handover(loaded, ingest, egress)] if ingest and known else []
    found = Checked(
        digest=loaded.manifest.digest,
        reports=reports,
        prefill=prefill,
        image=pair(loaded, long) if long and known else None,
        moved=tuple(moved),
        machine=machine(loaded.manifest),
        proof=NOT_ASKED,
    )
    if prove is False or not found.ok:
        return found
    reason = left_out(loaded) if prove is None else ""
    return replace(found, proof=reason or prove_programs(loaded, long, ingest, egress))


def prove(
    program: Program | Compiled,
    prefill: Program | None = None,
    ingest: Program | None = None,
    egress: Program | None = None,
    model: OpenModel | None = None,
) -> Proof:
    """Prove that a program computes its model for every input, without running it (docs/proof.md).

    prefill, ingest, egress: programs with the same memory image. model: of a module of the user's own; it and
    the first come with a `Compiled`. Nothing is raised for a program that is not proved: the verdict says it.
    """
    if isinstance(program, Compiled):
        program, prefill, model = program.program, program.prefill, program.model
    return prove_programs(program, prefill, ingest, egress, own=model and readers_of(model))


def report(program: ProgramLike, *, popularity: str = "uniform") -> ProgramReport:
    """What a program keeps busy: units, links, SRAM, and the bounds beside its cycles.

    popularity: of experts, for what slots for the worst routing cost over the mean routing's.
    """
    loaded, long = _step(program)
    with taken_as_legal(loaded, long):
        buckets = loaded.manifest.contexts
        return ProgramReport(
            program=loaded,
            prefill=long,
            occupancy=tuple(occupancy(loaded, bucket) for bucket in buckets),
            throughput=tuple(throughput(loaded)),
            energy=() if loaded.manifest.hops else tuple(step_energy(loaded, b) for b in buckets),
            routing=routing(loaded, popularity_of(popularity)),
        )


def bounds(program: ProgramLike) -> Bounds:
    """Lower bounds on the cycles of a program, per context bucket."""
    loaded, _ = _step(program)
    manifest = loaded.manifest
    with taken_as_legal(loaded):
        return Bounds(
            digest=manifest.digest,
            chip=manifest.chip.name,
            hops=len(manifest.hops),
            cycles={bucket: manifest.cycles[bucket] for bucket in manifest.contexts},
            bounds={bucket: bounds_of(loaded, bucket) for bucket in manifest.contexts},
            chains={bucket: chains(loaded, bucket) for bucket in manifest.contexts},
            aims={bucket: () if manifest.hops else aims(loaded, bucket) for bucket in manifest.contexts},
            clock_hz=manifest.clock_hz,
        )


def show(program: Program, options: ShowOptions | None = None) -> Listing:
    """Rows of a program in words, at most as many as the options' limit; see docs/programs.md.

    Raises FileError for a chip, unit, instruction, call, context or range of cycles that is not there.
    """
    with taken_as_legal(program):
        return listing.show(program, options)


def trace(
    program: ProgramLike,
    output: str | Path,
    *,
    chips: Asked | None = None,
    context: int | None = None,
) -> TraceFile:
    """Write a step as a trace for Perfetto: a process per chip, a thread per unit and link lane.

    output: Perfetto's own format if it ends in .pftrace, with layers, flows and counters; else Chrome's JSON;
    compressed where .gz follows. chips: numbers, ranges (a, b) or "all", of the first group if not given.
    context: a bucket, the first if not given.
    Raises FileError for another context, UnknownChipNumberError for a chip outside the rack.
    """
    loaded, _ = programs_of(program)
    known = loaded.manifest.contexts
    bucket = known[0] if context is None else context
    if bucket not in known:
        raise FileError(f"trace: --context {bucket}: the program has {', '.join(map(str, known))}.")
    with taken_as_legal(loaded):
        write_trace(output, loaded, bucket, chips, lambda some: powers(loaded, bucket, some, prices()))
    return TraceFile(path=str(output), context=bucket, digest=loaded.manifest.digest)


def _step(program: ProgramLike) -> tuple[Program, Program | None]:
    """A program that computes, not one that moves KV. Raises FileError."""
    loaded, long = programs_of(program)
    return need_step(loaded, str(program) if isinstance(program, (str, Path)) else "program"), long


def _check_body(context: int, found: Report) -> dict[str, Any]:
    """One report as JSON values."""
    return {
        "context": context,
        "rows": found.rows,
        "ok": found.ok,
        "violations": found.total,
        "violations_per_rule": list(found.counts),
        "first": [asdict(one) for one in found.violations],
    }
