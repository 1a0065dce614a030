"""The verb that puts a trace of requests through a machine: replay."""

from dataclasses import dataclass
from typing import Annotated

from compiler.options import Check, CompileOptions, Option
from lpu.cli.afd import ByMode
from lpu.cli.options import ModelOptions, RackOptions, model_names
from lpu.cli.terminal import TERMINAL, progress
from lpu.cli.verb import Given, Only, options_of
from lpu.traffic.options import ReplayOptions, TrafficGpus

Served = Annotated[
    CompileOptions,
    Only(("tp", "pp", "layout", "placement", "seed", "objective", "interval_slack", "users")),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnRack(RackOptions):
    """The rack that a model is compiled for, whether its program is checked, and a page."""

    check: Check = True
    html: Annotated[
        str | None, Option("--html", "Also write a page: one HTML file (page extra).", metavar="FILE")
    ] = None


def replay(
    trace: Annotated[
        str,
        Option("TRACE", "A Mooncake, Azure or BurstGPT file, or distributions in YAML (docs/serving.md)."),
    ],
    model: Annotated[
        str, Option("MODEL|PROGRAM", "A MODEL to compile for it, or a program folder.", names=model_names)
    ],
    mode: ByMode,
    gpus: TrafficGpus,
    options: Served,
    changes: Annotated[ModelOptions, Only(("batch", "context", "kv", "weights", "trust"))],
    asked: ReplayOptions,
    on: OnRack,
) -> None:
    """Replay a trace of requests on GPUs that prefill and LPUs that decode: TTFT, TPOT, queues, goodput.

    Examples:
      lpu replay trace.jsonl llama-3.1-70b --gpus 8 --ttft-ms 1000
      lpu replay requests.yaml program --seeds 5 --jobs 2 -o out
      lpu replay trace.jsonl program --ttft-ms 1000 --html replay.html
      lpu replay requests.yaml llama-3.1-70b --mode draft --drafter llama-3.1-8b
    """
    from lpu import api
    from lpu.cli.run import is_program
    from lpu.cli.serving.show_replay import show_replay
    from lpu.traffic.replay import replay as replayed

    terminal = TERMINAL.get()
    if is_program(model):
        stated = {*changes.given(), *_changed(options), *_changed(on)} - {"check", "html"}
        Given(stated).refuse(sorted(stated), "has no meaning for a program that is compiled already")
    if on.html is not None:
        api.check_writable(on.html, "--html")
    with progress() as bar:
        found = replayed(
            trace,
            model,
            gpus=gpus,
            rack=on.named(),
            options=options,
            asked=asked,
            mode=mode,
            check=on.check,
            progress=bar,
            **changes.given(),
        )
    show_replay(found, terminal)
    if asked.output is not None:
        terminal.say(f"saved       {asked.output}")
    if on.html is not None:
        terminal.say(str(api.page(found, on.html)))
    folder = None if asked.output is None else str(asked.output)
    terminal.result(found.to_json() | {"folder": folder, "html": on.html})


VERBS = (replay,)


def _changed(record: CompileOptions | RackOptions) -> set[str]:
    """The options of a record that are not as they are by default."""
    return {one.name for one in options_of(type(record)) if getattr(record, one.name) != one.default}
