"""Verbs about a program: compile, check, report, bounds, trace."""

from contextlib import nullcontext
from typing import Annotated, Any

import typer

from compiler.options import CompileOptions
from lpu.cli.options import (
    DEFAULT_RACK,
    Batch,
    Context,
    Cp,
    Debug,
    Json,
    Kv,
    Layout,
    Model,
    NoCheck,
    Objective,
    Placement,
    Pp,
    Prefill,
    ProgramFolder,
    RackName,
    Seed,
    Slack,
    Tp,
    Users,
    Weights,
    compile_options,
    model_options,
)
from lpu.cli.terminal import TERMINAL, progress

BROKEN = 4
Sweeps = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="KEY=V1,V2",
        help="Compile again with an assumed number changed: planes=4,6,8 or hop_ns=250,350,450; repeatable. "
        "Keys: docs/sweeps.md.",
    ),
]
Output = Annotated[str | None, typer.Option("-o", "--output", help="Folder to write the program into.")]


def compile_(
    model: Model,
    rack: RackName = None,
    output: Output = None,
    tp: Tp = None,
    pp: Pp = None,
    cp: Cp = None,
    layout: Layout = None,
    placement: Placement = None,
    seed: Seed = None,
    batch: Batch = None,
    contexts: Context = None,
    kv: Kv = None,
    weights: Weights = None,
    prefill: Prefill = None,
    objective: Objective = None,
    interval_slack: Slack = None,
    users: Users = None,
    sweep: Sweeps = None,
    no_check: NoCheck = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compile a model for a rack: every cycle of every chip, checked."""
    from lpu import api
    from lpu.cli.show_program import prefill_body, program_body, show_prefill, show_program
    from lpu.folder import save_into
    from lpu.inputs.document import FileError
    from lpu.inputs.files import atomic_folder
    from lpu.report.occupancy import occupancy
    from lpu.report.throughput import throughput

    terminal = TERMINAL.get()
    options = compile_options(tp, pp, layout, placement, seed, cp, objective, interval_slack, users)
    chosen = model_options(batch, contexts, kv, weights)
    if options.objective == "pareto":
        _pareto(model, rack or DEFAULT_RACK, output, not no_check, options, chosen)
        return
    if sweep:
        if prefill:
            raise FileError("sweep: compiles decode programs only. Leave out --prefill, or --sweep.")
        _sweep(model, rack or DEFAULT_RACK, sweep, output, not no_check, options, chosen)
        return
    with nullcontext() if output is None else atomic_folder(output) as folder, progress() as bar:
        made = api.compile(
            model,
            rack=rack or DEFAULT_RACK,
            options=options,
            check=not no_check,
            prefill=prefill,
            progress=bar,
            **chosen,
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
    if output:
        terminal.say(f"saved       {output}")
    terminal.result(
        {"schema": "lpu-compile/1"}
        | program_body(made.program)
        | {
            "checked": not no_check,
            "folder": output,
            "occupancy": [one.to_json() for one in used],
            "prefill": prefill_body(made.prefill) if made.prefill else None,
            "throughput": [one.to_json() for one in throughput(made.program)],
        }
    )


def _pareto(
    model: str,
    rack: str,
    output: str | None,
    check: bool,
    options: CompileOptions,
    chosen: dict[str, Any],
) -> None:
    from lpu import api
    from lpu.inputs.document import FileError
    from lpu.report.throughput import HEADERS

    if output:
        raise FileError(
            "pareto: writes no program. Choose one: --objective throughput --interval-slack 1.2 -o FOLDER."
        )
    terminal = TERMINAL.get()
    with progress() as bar:
        found = api.pareto(model, rack=rack, options=options, check=check, progress=bar, **chosen)
    terminal.table(HEADERS, [one.row() for one in found])
    terminal.say(
        "modelled; programs that another one beats in every column are left out (docs/throughput.md)"
    )
    terminal.result(
        {"schema": "lpu-pareto/1", "label": "modelled", "programs": [one.to_json() for one in found]}
    )


def _sweep(
    model: str,
    rack: str,
    texts: list[str],
    output: str | None,
    check: bool,
    options: CompileOptions,
    chosen: dict[str, Any],
) -> None:
    from lpu import api
    from lpu.inputs.document import FileError
    from lpu.sweep.sweep import HEADERS, parse_sweeps

    if output:
        raise FileError("sweep: writes no program. Leave out -o, or --sweep.")
    terminal = TERMINAL.get()
    with progress() as bar:
        found = api.sweep(
            model, parse_sweeps(texts), rack=rack, options=options, check=check, progress=bar, **chosen
        )
    terminal.table(HEADERS, found.rows())
    terminal.say(str(found))
    terminal.result(found.to_json())


def check(program: ProgramFolder, json: Json = False, debug: Debug = False) -> None:
    """Check a program against the rules of the machine, without the compiler (exit 4 if it breaks one)."""
    from lpu.check.memory_image import check_handover, pair
    from lpu.cli.show_program import check_body
    from lpu.folder import check_program, load_handover, load_prefill, load_program

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
    terminal.say(f"verdict     {'legal' if ok else 'broken'}, digest {loaded.manifest.digest}")
    terminal.result(
        {
            "schema": "lpu-check/1",
            "ok": ok,
            "program_sha256": loaded.manifest.digest,
            "contexts": [check_body(bucket, report) for bucket, report in reports.items()],
            "prefill": [check_body(bucket, report) for bucket, report in long_reports.items()],
        }
    )
    if not ok:
        raise typer.Exit(BROKEN)


def report(program: ProgramFolder, json: Json = False, debug: Debug = False) -> None:
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


def bounds(program: ProgramFolder, json: Json = False, debug: Debug = False) -> None:
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
        terminal.say(f"schedule    {count:,} cycles {where} (modelled)")
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


def trace(
    program: ProgramFolder,
    output: Annotated[str, typer.Option("-o", "--output", help="JSON file to write.")],
    chips: Annotated[
        str | None, typer.Option("--chips", help="Chip numbers 0,1,2; the first group if not given.")
    ] = None,
    bucket: Annotated[
        int | None, typer.Option("--context", help="Context bucket; the first if not given.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a step as a Chrome/Perfetto trace: a process per chip, a thread per unit and link lane."""
    from lpu.folder import load_program
    from lpu.inputs.document import FileError
    from lpu.report.trace import write_trace

    terminal = TERMINAL.get()
    loaded = load_program(program)
    known = loaded.manifest.contexts
    chosen = known[0] if bucket is None else bucket
    if chosen not in known:
        raise FileError(f"trace: --context {chosen}: the program has {', '.join(map(str, known))}.")
    try:
        numbers = None if chips is None else [int(word) for word in chips.split(",")]
    except ValueError:
        raise FileError(f"trace: --chips {chips!r} is no list of chip numbers. Write --chips 0,1.") from None
    write_trace(output, loaded, chosen, numbers)
    terminal.say(f"saved       {output}: open it at https://ui.perfetto.dev")
    terminal.result(
        {
            "schema": "lpu-trace-file/1",
            "file": output,
            "context": chosen,
            "program_sha256": loaded.manifest.digest,
        }
    )


VERBS = (compile_, check, report, bounds, trace)
