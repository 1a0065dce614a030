"""Verbs about a program: compile, check, report, bounds, trace."""

from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpu.cli_options import (
    Batch,
    Context,
    Debug,
    Json,
    Kv,
    Layout,
    Model,
    NoCheck,
    Placement,
    Pp,
    ProgramFolder,
    RackName,
    Seed,
    Tp,
    Weights,
    compile_options,
    model_options,
)
from lpu.terminal import Terminal, progress

if TYPE_CHECKING:
    from compiler.program import Program
    from lpu.check import Report

BROKEN = 4
Output = Annotated[str | None, typer.Option("-o", "--output", help="Folder to write the program into.")]


def compile_(
    context: typer.Context,
    model: Model,
    rack: RackName = "lpx",
    output: Output = None,
    tp: Tp = None,
    pp: Pp = None,
    layout: Layout = "column",
    placement: Placement = "contiguous",
    seed: Seed = 0,
    batch: Batch = None,
    contexts: Context = None,
    kv: Kv = None,
    weights: Weights = None,
    no_check: NoCheck = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compile a model for a rack: every cycle of every chip, checked."""
    from compiler.program import save
    from lpu import api
    from lpu.files import atomic_folder
    from lpu.report import occupancy

    terminal: Terminal = context.obj
    options = compile_options(tp, pp, layout, placement, seed)
    chosen = model_options(batch, contexts, kv, weights)
    with atomic_folder(output) if output else nullcontext() as folder, progress() as bar:
        made = api.compile(model, rack=rack, options=options, check=not no_check, progress=bar, **chosen)
        if folder is not None:
            save(made.program, folder)
    show_program(terminal, made.program)
    used = [occupancy(made.program, bucket) for bucket in made.model.contexts]
    for one in used:
        terminal.say(str(one))
    for bucket, report in made.reports.items():
        terminal.say(f"{report} (context {bucket})")
    if output:
        terminal.say(f"saved       {output}")
    terminal.result(
        {"schema": "lpu-compile/1"}
        | program_body(made.program)
        | {
            "checked": not no_check,
            "folder": output,
            "occupancy": [one.to_json() for one in used],
        }
    )


def check(context: typer.Context, program: ProgramFolder, json: Json = False, debug: Debug = False) -> None:
    """Check a program against the rules of the machine, independently of the compiler (exit 4 if it breaks one)."""
    from lpu import api

    terminal: Terminal = context.obj
    loaded = api.load_program(program)
    with progress() as bar:
        reports = api.check_program(loaded, bar)
    for bucket, report in reports.items():
        terminal.say(f"{report} (context {bucket})")
    ok = all(report.ok for report in reports.values())
    terminal.say(f"verdict     {'legal' if ok else 'broken'}, digest {loaded.manifest['digest']}")
    terminal.result(
        {
            "schema": "lpu-check/1",
            "ok": ok,
            "program_sha256": loaded.manifest["digest"],
            "contexts": [check_body(bucket, report) for bucket, report in reports.items()],
        }
    )
    if not ok:
        raise typer.Exit(BROKEN)


def report(context: typer.Context, program: ProgramFolder, json: Json = False, debug: Debug = False) -> None:
    """What a program keeps busy: units, links, SRAM, and the bounds beside its cycles."""
    from lpu import api
    from lpu.report import occupancy

    terminal: Terminal = context.obj
    loaded = api.load_program(program)
    show_program(terminal, loaded)
    used = [occupancy(loaded, bucket) for bucket in loaded.manifest["contexts"]]
    for one in used:
        terminal.say(str(one))
    terminal.result(
        {"schema": "lpu-report/1"} | program_body(loaded) | {"occupancy": [one.to_json() for one in used]}
    )


def bounds(context: typer.Context, program: ProgramFolder, json: Json = False, debug: Debug = False) -> None:
    """Lower bounds on the cycles of a program, the largest of them beside what it takes."""
    from compiler.bounds import bounds as bounds_of
    from lpu import api

    terminal: Terminal = context.obj
    loaded = api.load_program(program)
    rows: list[dict[str, Any]] = []
    for bucket in loaded.manifest["contexts"]:
        rows += [
            {"context": bucket, "bound": one.name, "cycles": one.cycles, "reason": one.reason}
            for one in bounds_of(loaded, bucket)
        ]
    cycles = {bucket: loaded.manifest["cycles"][str(bucket)] for bucket in loaded.manifest["contexts"]}
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
    for bucket, count in cycles.items():
        terminal.say(f"schedule    {count:,} cycles at context {bucket} (modelled)")
    terminal.result(
        {
            "schema": "lpu-bounds/1",
            "program_sha256": loaded.manifest["digest"],
            "bounds": rows,
            "latency_cycles": {str(bucket): count for bucket, count in cycles.items()},
        }
    )


def trace(
    context: typer.Context,
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
    from lpu import api
    from lpu.document import FileError
    from lpu.trace import write_trace

    terminal: Terminal = context.obj
    loaded = api.load_program(program)
    known = loaded.manifest["contexts"]
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
            "program_sha256": loaded.manifest["digest"],
        }
    )


def show_program(terminal: Terminal, program: "Program") -> None:
    """What a program is, in a few lines."""
    from lpu.confidence import confidence_line
    from lpu.figures import size

    body, manifest = program_body(program), program.manifest
    about, options = manifest["model"], manifest["options"]
    terminal.facts(
        [
            (
                "model",
                f"{about['name']}, weights {about['weights']}, kv {about['kv']}, batch {body['batch']}",
            ),
            ("rack", f"{body['rack']}: {manifest['chips']} chips {manifest['chip_name']}"),
            (
                "layout",
                f"tp {options['tp']} by {options['layout']}, {body['groups_used']} of "
                f"{manifest['chips'] // options['tp']} groups in the pipeline, placement {options['placement']}",
            ),
            *(
                (
                    "latency",
                    f"{one['latency_cycles']:,} cycles = {one['latency_microseconds']:.2f} us per token at "
                    f"context {one['context']} ({one['rows']:,} rows)",
                )
                for one in body["contexts"]
            ),
            (
                "sram",
                f"{size(body['sram_bytes_max'])} on the fullest chip, of {size(body['sram_bytes_chip'])}",
            ),
            ("numbers", confidence_line(manifest["sources"])),
            ("digest", body["program_sha256"]),
        ]
    )


def program_body(program: "Program") -> dict[str, Any]:
    """The same as JSON values."""
    from compiler.isa import WORD_BYTES
    from lpu.confidence import by_confidence

    manifest = program.manifest
    words = max(sum(region[1] for region in chip) for chip in manifest["regions"])
    return {
        "model": manifest["model"],
        "rack": manifest["rack"],
        "options": manifest["options"],
        "groups_used": len(manifest["groups"]),
        "batch": manifest["rows"],
        "contexts": [
            {
                "context": context,
                "rows": len(program.expand(context)),
                "latency_cycles": manifest["cycles"][str(context)],
                "latency_microseconds": manifest["cycles"][str(context)] * 1e6 / manifest["clock_hz"],
            }
            for context in manifest["contexts"]
        ],
        "clock_hz": manifest["clock_hz"],
        "numbers": by_confidence(manifest["sources"]),
        "sram_bytes_max": words * WORD_BYTES,
        "sram_bytes_chip": manifest["chip"]["sram_bytes"],
        "inputs_sha256": manifest["inputs"],
        "program_sha256": manifest["digest"],
    }


def check_body(context: int, found: "Report") -> dict[str, Any]:
    """One report as JSON values."""
    return {
        "context": context,
        "rows": found.rows,
        "ok": found.ok,
        "violations": found.total,
        "violations_per_rule": list(found.counts),
        "first": [asdict(one) for one in found.violations],
    }


VERBS = (compile_, check, report, bounds, trace)
