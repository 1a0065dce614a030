"""Verbs about a program: compile, check, report, bounds, show, trace."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from compiler.options import Check, CompileOptions, Option, Prove
from lpu.cli.options import Model, ModelOptions, Popularity, Prefill, ProgramFolder, RackOptions
from lpu.cli.terminal import TERMINAL, progress
from lpu.report.chips import chip_ranges
from lpu.report.show_options import ShowOptions
from lpu.report.words import CAUTION_FACTOR, EXACT, caution, kind, label_of

BROKEN = 4
REFUSED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What is made of the model besides one program, and where it goes."""

    output: Annotated[
        str | None, Option("-o --output", "Folder to write the program into.", metavar="DIR")
    ] = None
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
        Option(
            "--dump-dir",
            "Folder for what each step of the compiler gives, as text: 01-capture.txt, ...",
            metavar="DIR",
        ),
    ] = None
    popularity: Popularity = "uniform"
    check: Check = True
    prove: Prove = None


def compile_(
    model: Model,
    making: Making,
    options: CompileOptions,
    changes: ModelOptions,
    on: RackOptions,
) -> None:
    """Compile a model for a rack: every cycle of every chip, checked.

    Examples:
      lpu compile llama-tiny
      lpu compile llama-3.1-70b --context 8192 -o program
      lpu compile ./my-hf-folder --rack quad --tp 2 --prefill 16 -o program
    """
    from lpu import api
    from lpu.folder import save_into
    from lpu.inputs.document import FileError
    from lpu.outputs.write import atomic_folder
    from lpu.routing.popularity import popularity_of

    output, prefill = making.output, making.prefill
    popularity = popularity_of(making.popularity)
    rack = on.named()
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
        TERMINAL.get().notes(opened.notes)
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
    _show(made, making, popularity)


def _show(made: Any, making: Making, popularity: Any) -> None:
    """Prints what was compiled: programs, what is busy, routing, rates, the check, the proof, the folder."""
    from lpu.prove.programs import proof_line
    from lpu.report.occupancy import occupancy
    from lpu.report.program import prefill_body, prefill_facts, program_body, program_facts
    from lpu.report.throughput import throughput
    from lpu.routing.worst_case import routing

    terminal, output = TERMINAL.get(), making.output
    terminal.facts(program_facts(made.program))
    if made.prefill:
        terminal.facts(prefill_facts(made.prefill))
    used = [occupancy(made.program, bucket) for bucket in made.model.contexts]
    for one in used:
        terminal.say(str(one))
    if (routed := routing(made.program, popularity)) is not None:
        terminal.say(str(routed))
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
            "routing": routed and routed.to_json(),
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
        opened = api.open_model(model, **changes.given())
        terminal.notes(opened.notes)
        found = api.pareto(opened, rack=rack, options=options, check=check, progress=bar)
    terminal.table(HEADERS, [one.row() for one in found])
    chip = found[0].chip
    terminal.say(f"{kind(chip)}; programs that another one beats in every column are left out")
    if said := caution(chip):
        terminal.facts([("caution", said)])
    terminal.result(
        {
            "schema": "lpu-pareto/1",
            "kind": EXACT,
            "label": label_of(chip),
            "caution_factor": CAUTION_FACTOR if said else None,
            "programs": [one.to_json() for one in found],
        }
    )


def _sweep(model: str, rack: str, making: Making, options: CompileOptions, changes: ModelOptions) -> None:
    from lpu import api
    from lpu.inputs.document import FileError
    from lpu.sweep.sweep import HEADERS, parse_sweeps

    if making.output:
        raise FileError("sweep: writes no program. Leave out -o, or --sweep.")
    terminal, texts = TERMINAL.get(), list(making.sweep)
    about: dict[str, Any] = {"rack": rack, "options": options, "check": making.check}
    with progress() as bar:
        values = parse_sweeps(texts)
        opened = api.open_model(model, **changes.given())
        terminal.notes(opened.notes)
        found = api.sweep(opened, values, progress=bar, **about)
    terminal.table(HEADERS, found.rows())
    terminal.say(str(found))
    terminal.result(found.to_json())


def check(program: ProgramFolder, prove: Prove = None) -> None:
    """Check a program against the rules of the machine, without the compiler (exit 4 if it breaks one).

    Examples:
      lpu check program
    """
    from lpu import api

    terminal = TERMINAL.get()
    with progress() as bar:
        found = api.check(program, prove=prove, progress=bar)
    terminal.say(str(found))
    terminal.result(found.to_json())
    if not found.ok:
        raise typer.Exit(BROKEN)
    if not found.proved:
        raise typer.Exit(REFUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """Whether a report is also written as a page, and what that says."""

    html: Annotated[
        str | None,
        Option("--html", "Also write a page: one HTML file (page extra).", metavar="FILE"),
    ] = None
    context: Annotated[
        int | None, Option("--context", "Context bucket of the page.", shown="the longest")
    ] = None
    popularity: Popularity = "uniform"
    check: Annotated[bool, Option("--check/--no-check", "Check the program, for the page to say so.")] = True
    again: Annotated[
        bool | None,
        Option(
            "--again/--no-again",
            "Say what a step takes with each number of the machine 10 % off: compiled again (exact), or not.",
            shown="compiled again on the page of a program of up to 3,000 rows",
        ),
    ] = None


def report(program: ProgramFolder, page: PageOptions) -> None:
    """What a program keeps busy: units, links, SRAM, and the bounds beside its cycles; also as a page.

    Examples:
      lpu report program
      lpu report program --json
      lpu report program --html report.html
    """
    from lpu import api

    terminal = TERMINAL.get()
    if page.html is not None:
        with progress() as bar:
            made = api.page(
                program,
                page.html,
                context=page.context,
                check=page.check,
                again=page.again,
                progress=bar,
            )
        terminal.say(str(made))
        terminal.result(made.to_json())
        return
    found = api.report(program, popularity=page.popularity)
    terminal.facts(found.facts)
    for one in found.parts:
        terminal.say(str(one))
    body = found.to_json()
    if page.again is not None:
        with progress() as bar:
            moved = api.sensitivity(program, context=page.context, again=page.again, progress=bar)
        terminal.say(str(moved))
        body |= {"sensitivity": moved.to_json()}
    terminal.result(body)


def bounds(program: ProgramFolder) -> None:
    """Lower bounds on the cycles of a program, the largest of them beside what it takes.

    Examples:
      lpu bounds program
    """
    from lpu import api

    terminal = TERMINAL.get()
    found = api.bounds(program)
    terminal.table(found.HEADERS, found.rows())
    terminal.say(found.ends())
    terminal.result(found.to_json())


def show(program: ProgramFolder, options: ShowOptions) -> None:
    """Show a program: a map of the rack and its blocks over time, or the rows that options ask for.

    Examples:
      lpu show program
      lpu show program --chip 0 --cycles 0-200
      lpu show program --call layers.0.ffn --unit chain
    """
    from lpu import api

    terminal = TERMINAL.get()
    loaded = api.load_program(program)
    if options == ShowOptions(context=options.context):
        seen = api.overview(loaded, options.context)
        terminal.panel("stages of the rack", f"{seen.title}\n{seen.map()}")
        terminal.panel("blocks over time", seen.gantt())
        terminal.note("note: rows are shown for --chip, --unit, --cycles, --op, --call or --limit.")
        terminal.result(seen.to_json() | {"program_sha256": loaded.manifest.digest})
        return
    found = api.show(loaded, options)
    terminal.say(str(found))
    if found.total > len(found.lines):
        terminal.note(f"note: {len(found.lines)} of {found.total:,} rows; --limit shows more.")
    terminal.result({"schema": "lpu-show/1", "program_sha256": loaded.manifest.digest} | found.to_json())


def trace(
    program: ProgramFolder,
    output: Annotated[
        str,
        Option(
            "-o --output",
            "File to write: .pftrace (Perfetto's own, trace extra) or .json, .gz after either.",
            metavar="FILE",
        ),
    ],
    chips: Annotated[
        Any,
        Option(
            "--chips",
            "Chip numbers and ranges 0-15,20, or all.",
            metavar="N-N,N",
            parse=chip_ranges,
            shown="the first group",
        ),
    ] = None,
    context: Annotated[int | None, Option("--context", "Context bucket.", shown="the first")] = None,
) -> None:
    """Write a step as a trace for Perfetto: a process per chip, a thread per unit and link lane.

    Examples:
      lpu trace program -o trace.json
      lpu trace program --chips 0-15,20 -o trace.pftrace
      lpu trace program --chips all -o trace.pftrace.gz
    """
    from lpu import api

    terminal = TERMINAL.get()
    found = api.trace(program, output, chips=chips, context=context)
    terminal.say(str(found))
    terminal.result(found.to_json())


VERBS = (compile_, check, report, bounds, show, trace)
