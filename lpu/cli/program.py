"""Verbs about a program: compile, check, report, bounds, show, trace."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from compiler.options import Check, CompileOptions, Option, Prove
from lpu.cli.options import (
    DEFAULT_RACK,
    Model,
    ModelOptions,
    Prefill,
    ProgramFolder,
    RackName,
    numbers,
)
from lpu.cli.terminal import TERMINAL, progress
from lpu.report.show_options import ShowOptions
from lpu.report.words import EXACT

BROKEN = 4
REFUSED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What is made of the model besides one program, and where it goes."""

    output: Annotated[str | None, Option("-o --output", "Folder to write the program into.")] = None
    prefill: Prefill = None
    sweep: Annotated[
        tuple[str, ...],
        Option(
            "--sweep",
            "Compile again with an assumed number changed: planes=4,6,8 or hop_ns=250,350,450; repeatable. "
            "Keys: docs/sweeps.md.",
            metavar="KEY=V1,V2",
        ),
    ] = ()
    dump_dir: Annotated[
        str | None,
        Option("--dump-dir", "Folder for what each step of the compiler gives, as text: 01-capture.txt, ..."),
    ] = None
    check: Check = True
    prove: Prove = None


def compile_(
    model: Model,
    making: Making,
    options: CompileOptions,
    changes: ModelOptions,
    rack: RackName = DEFAULT_RACK,
) -> None:
    """Compile a model for a rack: every cycle of every chip, checked."""
    from lpu import api
    from lpu.cli.show_program import prefill_body, program_body, show_prefill, show_program
    from lpu.folder import save_into
    from lpu.inputs.document import FileError
    from lpu.outputs.write import atomic_folder
    from lpu.prove.programs import proof_line
    from lpu.report.occupancy import occupancy
    from lpu.report.throughput import throughput

    terminal, output, prefill = TERMINAL.get(), making.output, making.prefill
    if making.dump_dir is not None and (options.objective == "pareto" or making.sweep):
        raise FileError("dump-dir: is for one program, several are compiled. Leave out --dump-dir.")
    if options.objective == "pareto":
        _pareto(model, rack, making, options, changes)
        return
    if making.sweep:
        if prefill:
            raise FileError("sweep: compiles decode programs only. Leave out --prefill, or --sweep.")
        _sweep(model, rack, making, options, changes)
        return
    with nullcontext() if output is None else atomic_folder(output) as folder, progress() as bar:
        opened = api.open_model(model, **changes.given())
        terminal.notes(opened.notes)
        made = api.compile(
            opened,
            rack=rack,
            options=options,
            check=making.check,
            prove=making.prove,
            prefill=prefill,
            dump_dir=making.dump_dir,
            progress=bar,
        )
        if folder is not None:
            save_into(folder, made.program, made.prefill)
    show_program(terminal, made.program)
    if made.prefill:
        show_prefill(terminal, made.prefill)
    used = [occupancy(made.program, bucket) for bucket in made.model.contexts]
    for one in used:
        terminal.say(str(one))
    for rate in throughput(made.program):
        terminal.say(str(rate))
    for bucket, report in made.reports.items():
        terminal.say(f"{report} (context {bucket})")
    for bucket, report in made.prefill_reports.items():
        terminal.say(f"{report} (prefill, context {bucket})")
    if making.check or making.prove:
        terminal.say(proof_line(made.proof))
    if output:
        terminal.say(f"saved       {output}")
    terminal.result(
        {"schema": "lpu-compile/1"}
        | program_body(made.program)
        | {
            "checked": making.check,
            "proved": not isinstance(made.proof, str),
            "folder": output,
            "occupancy": [one.to_json() for one in used],
            "prefill": prefill_body(made.prefill) if made.prefill else None,
            "throughput": [one.to_json() for one in throughput(made.program)],
        }
    )


def _pareto(model: str, rack: str, making: Making, options: CompileOptions, changes: ModelOptions) -> None:
    from lpu import api
    from lpu.inputs.document import FileError
    from lpu.report.throughput import HEADERS

    if making.output:
        raise FileError(
            "pareto: writes no program. Choose one: --objective throughput --interval-slack 1.2 -o FOLDER."
        )
    terminal, check = TERMINAL.get(), making.check
    with progress() as bar:
        found = api.pareto(model, rack=rack, options=options, check=check, progress=bar, **changes.given())
    terminal.table(HEADERS, [one.row() for one in found])
    terminal.say(
        f"{EXACT}; programs that another one beats in every column are left out (docs/throughput.md)"
    )
    terminal.result({"schema": "lpu-pareto/1", "kind": EXACT, "programs": [one.to_json() for one in found]})


def _sweep(model: str, rack: str, making: Making, options: CompileOptions, changes: ModelOptions) -> None:
    from lpu import api
    from lpu.inputs.document import FileError
    from lpu.sweep.sweep import HEADERS, parse_sweeps

    if making.output:
        raise FileError("sweep: writes no program. Leave out -o, or --sweep.")
    terminal, texts = TERMINAL.get(), list(making.sweep)
    about: dict[str, Any] = {"rack": rack, "options": options, "check": making.check}
    with progress() as bar:
        found = api.sweep(model, parse_sweeps(texts), progress=bar, **about, **changes.given())
    terminal.table(HEADERS, found.rows())
    terminal.say(str(found))
    terminal.result(found.to_json())


def check(program: ProgramFolder, prove: Prove = None) -> None:
    """Check a program against the rules of the machine, without the compiler (exit 4 if it breaks one)."""
    from lpu.check.memory_image import check_handover, pair
    from lpu.check.stated import machine
    from lpu.cli.show_program import check_body
    from lpu.folder import check_program, load_handover, load_prefill, load_program
    from lpu.prove.programs import left_out, proof_line, prove_programs

    terminal = TERMINAL.get()
    loaded = load_program(program)
    long = load_prefill(program, loaded)
    ingest, egress = load_handover(program)
    with progress() as bar:
        reports = check_program(loaded, bar)
        long_reports = check_program(long, bar, "check prefill") if long else {}
    for bucket, report in reports.items():
        terminal.say(f"{report} (context {bucket})")
    for bucket, report in long_reports.items():
        terminal.say(f"{report} (prefill, context {bucket})")
    image = [pair(loaded, long)] if long else []
    moved = [report for one in (ingest, egress) if one for report in check_program(one).values()]
    moved += [check_handover(loaded, ingest, egress)] if ingest else []
    for one in moved:
        terminal.say(f"{one} (hand-over of KV)")
    for one in image:
        terminal.say("image       one for both programs" if one.ok else str(one))
    ok = all(report.ok for report in (*reports.values(), *long_reports.values(), *image, *moved))
    proof = ""
    if ok and (prove or prove is None):
        proof = left_out(loaded) if prove is None else ""
        proof = proof or prove_programs(loaded, long, ingest, egress)
        terminal.say(proof_line(proof) if isinstance(proof, str) or proof.ok else f"prove: {proof.reason}")
    terminal.say(f"machine     {(of := machine(loaded.manifest))}")
    terminal.say(f"verdict     {'legal' if ok else 'broken'}, digest {loaded.manifest.digest}")
    terminal.result(
        {
            "schema": "lpu-check/1",
            "ok": ok,
            "machine": of,
            "proof": {"left_out": proof} if isinstance(proof, str) else proof.to_json(),
            "program_sha256": loaded.manifest.digest,
            "contexts": [check_body(bucket, report) for bucket, report in reports.items()],
            "prefill": [check_body(bucket, report) for bucket, report in long_reports.items()],
        }
    )
    if not ok:
        raise typer.Exit(BROKEN)
    if not isinstance(proof, str) and not proof.ok:
        raise typer.Exit(REFUSED)


def report(program: ProgramFolder) -> None:
    """What a program keeps busy: units, links, SRAM, and the bounds beside its cycles."""
    from lpu.cli.show_program import prefill_body, program_body, show_prefill, show_program
    from lpu.folder import load_prefill, load_step
    from lpu.report.occupancy import occupancy
    from lpu.report.throughput import throughput

    terminal = TERMINAL.get()
    loaded = load_step(program)
    long = load_prefill(program, loaded)
    show_program(terminal, loaded)
    if long:
        show_prefill(terminal, long)
    rates = throughput(loaded)
    used = [occupancy(loaded, bucket) for bucket in loaded.manifest.contexts]
    for one in used:
        terminal.say(str(one))
    for rate in rates:
        terminal.say(str(rate))
    terminal.result(
        {"schema": "lpu-report/1"}
        | program_body(loaded)
        | {
            "occupancy": [one.to_json() for one in used],
            "prefill": prefill_body(long) if long else None,
            "throughput": [one.to_json() for one in rates],
        }
    )


def bounds(program: ProgramFolder) -> None:
    """Lower bounds on the cycles of a program, the largest of them beside what it takes."""
    from compiler.analyse.bounds import bounds as bounds_of
    from compiler.analyse.chain import chain_totals, chains
    from lpu.folder import load_step
    from lpu.report.occupancy import chain_line

    terminal = TERMINAL.get()
    loaded = load_step(program)
    rows: list[dict[str, Any]] = []
    for bucket in loaded.manifest.contexts:
        rows += [
            {"context": bucket, "bound": one.name, "cycles": one.cycles, "reason": one.reason}
            for one in bounds_of(loaded, bucket)
        ]
    cycles = {bucket: loaded.manifest.cycles[bucket] for bucket in loaded.manifest.contexts}
    terminal.table(
        ("context", "bound", "cycles", "of the schedule", "reason"),
        [
            [
                f"{row['context']:,}",
                row["bound"],
                f"{row['cycles']:,}",
                f"{100 * row['cycles'] / max(cycles[row['context']], 1):.1f} %",
                row["reason"],
            ]
            for row in rows
        ],
    )
    went = {bucket: chains(loaded, bucket) for bucket in cycles}
    hops = len(loaded.manifest.hops)
    for bucket, count in cycles.items():
        where = f"of {hops} hops one after another" if hops else f"at context {bucket}"
        terminal.say(f"schedule    {count:,} cycles {where} ({EXACT})")
        terminal.say(f"chain       {chain_line(went[bucket])}")
    terminal.result(
        {
            "schema": "lpu-bounds/1",
            "program_sha256": loaded.manifest.digest,
            "bounds": rows,
            "latency_cycles": {str(bucket): count for bucket, count in cycles.items()},
            "chain_cycles": {str(bucket): chain_totals(found) for bucket, found in went.items()},
        }
    )


def show(program: ProgramFolder, options: ShowOptions) -> None:
    """Print the rows of a program: cycles, chip, unit, instruction and operands (docs/programs.md)."""
    from lpu import api

    terminal = TERMINAL.get()
    loaded = api.load_program(program)
    found = api.show(loaded, options)
    terminal.say(str(found))
    if found.total > len(found.lines):
        terminal.note(f"note: {len(found.lines)} of {found.total:,} rows; --limit shows more.")
    terminal.result({"schema": "lpu-show/1", "program_sha256": loaded.manifest.digest} | found.to_json())


def trace(
    program: ProgramFolder,
    output: Annotated[str, Option("-o --output", "JSON file to write.")],
    chips: Annotated[
        tuple[int, ...] | None,
        Option("--chips", "Chip numbers 0,1,2.", metavar="N,N", parse=numbers, shown="the first group"),
    ] = None,
    context: Annotated[int | None, Option("--context", "Context bucket.", shown="the first")] = None,
) -> None:
    """Write a step as a Chrome/Perfetto trace: a process per chip, a thread per unit and link lane."""
    from lpu.folder import load_program
    from lpu.inputs.document import FileError
    from lpu.report.trace import write_trace

    terminal = TERMINAL.get()
    loaded = load_program(program)
    known = loaded.manifest.contexts
    chosen = known[0] if context is None else context
    if chosen not in known:
        raise FileError(f"trace: --context {chosen}: the program has {', '.join(map(str, known))}.")
    write_trace(output, loaded, chosen, None if chips is None else list(chips))
    terminal.say(f"saved       {output}: open it at https://ui.perfetto.dev")
    terminal.result(
        {
            "schema": "lpu-trace-file/1",
            "file": output,
            "context": chosen,
            "program_sha256": loaded.manifest.digest,
        }
    )


VERBS = (compile_, check, report, bounds, show, trace)
