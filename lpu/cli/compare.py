"""The verb `compare`. Nothing heavy is imported before it runs."""

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

from compiler.options import STRATEGIES
from lpu.cli.options import (
    DEFAULT_RACK,
    Batch,
    Context,
    Debug,
    Json,
    Kv,
    Layout,
    Model,
    Tp,
    Weights,
    model_options,
)
from lpu.cli.terminal import TERMINAL, progress

BITS_DIFFER = 1
ALL = ",".join(STRATEGIES)
CERTIFY_TOKENS = 4
Racks = Annotated[
    str, typer.Option("--rack", help="Racks, by comma: catalog names or files. The first is the reference.")
]
Strategies = Annotated[
    str,
    typer.Option(
        "--strategies",
        help=f"By comma: {ALL}, an installed one, or package.module:function.",
    ),
]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Seeds 0 .. N-1 of strategies that draw.")]
Budget = Annotated[int, typer.Option("--budget", min=1, help="Evaluations of every search.")]
Alpha = Annotated[int, typer.Option("--alpha", min=0, help="Searches minimise latency + alpha x period.")]
Folder = Annotated[
    str | None, typer.Option("-o", "--output", help="Results folder: points are kept there and taken again.")
]
Table = Annotated[str | None, typer.Option("--csv", help="File to write every point into.")]
Pictures = Annotated[str | None, typer.Option("--pictures", help="Folder for pictures (matplotlib extra).")]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Processes; one per core by default.")]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", help="Address of a Dask cluster (distributed extra).")
]
Certify = Annotated[
    bool, typer.Option("--certify", help="Run every placement and compare the bits of the logits.")
]


def compare(
    model: Model,
    rack: Racks = DEFAULT_RACK,
    strategies: Strategies = ALL,
    seeds: Seeds = 5,
    budget: Budget = 20_000,
    alpha: Alpha = 0,
    tp: Tp = None,
    layout: Layout = None,
    batch: Batch = None,
    contexts: Context = None,
    kv: Kv = None,
    weights: Weights = None,
    output: Folder = None,
    table: Table = None,
    pictures: Pictures = None,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    certify: Certify = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare placement strategies: each placement goes through the real scheduler and the checker."""
    import os

    from lpu import api
    from lpu.compare.compare import HEADERS
    from lpu.compare.point import Task
    from lpu.inputs.document import FileError

    terminal = TERMINAL.get()
    chosen = {name: value for name, value in model_options(batch, contexts, kv, weights).items() if value}
    task = Task(
        model=model,
        rack=rack,
        strategy="",
        chosen=chosen,
        tp=tp or 0,
        layout=layout or "column",
        budget=budget,
        alpha=alpha,
        certify=CERTIFY_TOKENS if certify else 0,
    )
    if pictures is not None:
        from lpu.compare.pictures import need_matplotlib

        need_matplotlib()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with progress() as bar:
        found = api.compare(
            model,
            _words(strategies),
            racks=_words(rack),
            seeds=seeds,
            task=task,
            folder=output or None,
            jobs=jobs or cores,
            scheduler=scheduler,
            progress=bar,
        )
    for one in found.racks:
        terminal.say(f"{found.model} on {one.rack}")
        terminal.table(HEADERS, one.rows())
        terminal.say(str(one) + "\n")
    for line in found.across():
        terminal.say(line)
    if table is not None:
        try:
            _write_csv(Path(table), found.to_json())
        except OSError as error:
            raise FileError(f"{table}: cannot be written ({error.strerror or error}).") from error
    if pictures is not None:
        from lpu.compare.pictures import draw

        for path in draw(found, Path(pictures)):
            terminal.say(f"picture     {path}")
    terminal.result(found.to_json())
    if any(one.bits_equal is False for one in found.racks):
        raise typer.Exit(BITS_DIFFER)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _write_csv(path: Path, body: dict[str, Any]) -> None:
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
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(lines)


VERBS = (compare,)
