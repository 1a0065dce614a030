"""The verb `compare`. Nothing heavy is imported before it runs."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from compiler.options import STRATEGIES, CompileOptions, Option
from lpu.cli.options import DEFAULT_RACK, FaultNames, Model, ModelOptions, rack_with
from lpu.cli.terminal import TERMINAL, progress
from lpu.cli.verb import Only

BITS_DIFFER = 1
ALL = ",".join(STRATEGIES)
CERTIFY_TOKENS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparing:
    """Which strategies on which racks, and how long each may search."""

    rack: Annotated[
        str,
        Option(
            "--rack", "Racks, by comma: catalog names or files. The first is the reference.", metavar="R,R"
        ),
    ] = DEFAULT_RACK
    fault: FaultNames = ()
    strategies: Annotated[
        str,
        Option(
            "--strategies",
            f"By comma: {', '.join(STRATEGIES)}, an installed one, or package.module:function.",
            metavar="S,S",
            shown="all of them",
        ),
    ] = ALL
    seeds: Annotated[int, Option("--seeds", "Seeds 0 .. N-1 of strategies that draw.", least=1)] = 5
    budget: Annotated[int, Option("--budget", "Evaluations of every search.", least=1)] = 20_000
    alpha: Annotated[int, Option("--alpha", "Searches minimise latency + alpha x period.", least=0)] = 0
    certify: Annotated[
        bool, Option("--certify", "Run every placement and compare the bits of the logits.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept of a comparison, and who computes it."""

    output: Annotated[
        str | None,
        Option("-o --output", "Results folder: points are kept there and taken again.", metavar="DIR"),
    ] = None
    table: Annotated[str | None, Option("--csv", "File to write every point into.", metavar="FILE")] = None
    pictures: Annotated[
        str | None, Option("--pictures", "Folder for pictures (matplotlib extra).", metavar="DIR")
    ] = None
    jobs: Annotated[int | None, Option("--jobs", "Processes.", least=1, shown="one per core")] = None
    scheduler: Annotated[
        str | None,
        Option("--scheduler", "Address of a Dask cluster (distributed extra).", metavar="ADDRESS"),
    ] = None


def compare(
    model: Model,
    comparing: Comparing,
    options: Annotated[CompileOptions, Only(("tp", "layout"))],
    changes: ModelOptions,
    kept: Kept,
) -> None:
    """Compare placement strategies: each placement goes through the real scheduler and the checker.

    Examples:
      lpu compare llama-tiny --rack quad --seeds 2 -o results
      lpu compare llama-3.1-70b --strategies contiguous,annealing --csv points.csv
    """
    import os

    from lpu import api
    from lpu.compare.compare import HEADERS
    from lpu.compare.point import Task
    from lpu.outputs.write import check_folder, check_writable, write_file

    terminal = TERMINAL.get()
    task = Task(
        model=model,
        rack=comparing.rack,
        strategy="",
        chosen=changes.given(),
        tp=options.tp or 0,
        layout=options.layout,
        budget=comparing.budget,
        alpha=comparing.alpha,
        certify=CERTIFY_TOKENS if comparing.certify else 0,
    )
    if kept.table is not None:
        check_writable(kept.table, "--csv")
    if kept.pictures is not None:
        from lpu.compare.pictures import need_matplotlib

        need_matplotlib()
        check_folder(kept.pictures, "--pictures")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with progress() as bar:
        terminal.notes(api.open_model(model, **changes.given()).notes)
        found = api.compare(
            model,
            _words(comparing.strategies),
            racks=[rack_with(one, comparing.fault) for one in _words(comparing.rack)],
            seeds=comparing.seeds,
            task=task,
            folder=kept.output,
            workers=kept.scheduler or kept.jobs or cores,
            progress=bar,
        )
    for one in found.racks:
        terminal.say(f"{found.model} on {one.rack}")
        terminal.table(HEADERS, one.rows())
        terminal.say(str(one) + "\n")
    for line in found.across():
        terminal.say(line)
    if kept.table is not None:
        write_file(kept.table, _csv(found.to_json()).encode(), "--csv")
    if kept.pictures is not None:
        from lpu.compare.pictures import draw

        for path in draw(found, Path(kept.pictures)):
            terminal.say(f"picture     {path}")
    terminal.result(found.to_json())
    if any(one.bits_equal is False for one in found.racks):
        raise typer.Exit(BITS_DIFFER)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _csv(body: dict[str, Any]) -> str:
    """A line per point: every figure that is one number or one word."""
    lines: list[dict[str, Any]] = []
    for one in body["racks"]:
        for point in one["points"]:
            line: dict[str, Any] = {"model": body["model"], "rack": one["rack"]}
            for name, value in point.items():
                if name in ("estimate", "measured"):
                    line |= {f"{name}_{part}": figure for part, figure in value.items()}
                elif not isinstance(value, list):
                    line[name] = value
            lines.append(line)
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


VERBS = (compare,)
