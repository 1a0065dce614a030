"""What can be asked of a program: check, report, bounds, trace."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from compiler.analyse.bounds import Bound
from compiler.analyse.bounds import bounds as bounds_of
from compiler.analyse.chain import Chain, chain_totals, chains
from compiler.program.program import Program
from lpu.check.check import Report
from lpu.check.memory_image import check_handover, pair
from lpu.check.stated import machine
from lpu.compiled import ProgramLike, programs_of
from lpu.figures.bars import levers_figure
from lpu.figures.drawing import Drawing
from lpu.figures.shown import Shown
from lpu.folder import Progress, check_program, load_handover, need_step, quiet
from lpu.inputs.document import FileError
from lpu.prove.programs import NOT_ASKED, Proof, left_out, proof_line, prove_programs
from lpu.report.occupancy import Occupancy, chain_line, occupancy
from lpu.report.program import Facts, prefill_body, prefill_facts, program_body, program_facts
from lpu.report.throughput import Throughput, throughput
from lpu.report.trace import Asked, write_trace
from lpu.report.walk import block_chains
from lpu.report.words import EXACT, kind, label_of
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

    @property
    def facts(self) -> Facts:
        """What it is, in names and values."""
        return program_facts(self.program) + (prefill_facts(self.prefill) if self.prefill else [])

    def __str__(self) -> str:
        return "\n".join([fact_lines(self.facts), *map(str, (*self.occupancy, *self.throughput))])

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
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Bounds(OnScreen):
    """Lower bounds on the cycles of a program by context bucket, and the chains that end its blocks."""

    HEADERS: ClassVar = ("context", "bound", "cycles", "of the schedule", "reason")

    digest: str
    chip: str
    hops: int
    cycles: dict[int, int]
    bounds: dict[int, tuple[Bound, ...]]
    chains: dict[int, Sequence[Chain]]

    def rows(self) -> list[list[str]]:
        """The cells of a table under HEADERS."""
        return [
            [
                f"{bucket:,}",
                one.name,
                f"{one.cycles:,}",
                f"{100 * one.cycles / max(self.cycles[bucket], 1):.1f} %",
                one.reason,
            ]
            for bucket, every in self.bounds.items()
            for one in every
        ]

    def ends(self) -> str:
        """What the schedule takes, and the chain of each bucket."""
        lines: list[str] = []
        for bucket, count in self.cycles.items():
            where = f"of {self.hops} hops one after another" if self.hops else f"at context {bucket}"
            lines.append(f"schedule    {count:,} cycles {where} ({kind(self.chip)})")
            lines.append(f"chain       {chain_line(self.chains[bucket])}")
        return "\n".join(lines)

    def __str__(self) -> str:
        every = [(one, bucket) for bucket, some in self.bounds.items() for one in some]
        lines = [f"bound       {one.name} {one.cycles:,} cycles at context {bucket}" for one, bucket in every]
        return "\n".join([*lines, self.ends()])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; keys carry their units."""
        return {
            "schema": "lpu-bounds/1",
            "kind": EXACT,
            "label": label_of(self.chip),
            "program_sha256": self.digest,
            "bounds": [
                {"context": bucket, "bound": one.name, "cycles": one.cycles, "reason": one.reason}
                for bucket, every in self.bounds.items()
                for one in every
            ],
            "latency_cycles": {str(bucket): count for bucket, count in self.cycles.items()},
            "chain_cycles": {str(bucket): chain_totals(found) for bucket, found in self.chains.items()},
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
    moved += [check_handover(loaded, ingest, egress)] if ingest else []
    found = Checked(
        digest=loaded.manifest.digest,
        reports=reports,
        prefill=prefill,
        image=pair(loaded, long) if long else None,
        moved=tuple(moved),
        machine=machine(loaded.manifest),
        proof=NOT_ASKED,
    )
    if prove is False or not found.ok:
        return found
    reason = left_out(loaded) if prove is None else ""
    return replace(found, proof=reason or prove_programs(loaded, long, ingest, egress))


def report(program: ProgramLike) -> ProgramReport:
    """What a program keeps busy: units, links, SRAM, and the bounds beside its cycles."""
    loaded, long = _step(program)
    return ProgramReport(
        program=loaded,
        prefill=long,
        occupancy=tuple(occupancy(loaded, bucket) for bucket in loaded.manifest.contexts),
        throughput=tuple(throughput(loaded)),
    )


def bounds(program: ProgramLike) -> Bounds:
    """Lower bounds on the cycles of a program, per context bucket."""
    loaded, _ = _step(program)
    manifest = loaded.manifest
    return Bounds(
        digest=manifest.digest,
        chip=manifest.chip.name,
        hops=len(manifest.hops),
        cycles={bucket: manifest.cycles[bucket] for bucket in manifest.contexts},
        bounds={bucket: bounds_of(loaded, bucket) for bucket in manifest.contexts},
        chains={bucket: chains(loaded, bucket) for bucket in manifest.contexts},
    )


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
    write_trace(output, loaded, bucket, chips)
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
