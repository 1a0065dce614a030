"""GPUs beside the rack: afd, ratios."""

from typing import Annotated

import typer

from compiler.options import CompileOptions, Option
from lpu.afd.mode import Mode
from lpu.afd.options import GpuKind, Gpus, RatioPoints, Wanted
from lpu.afd.registry import MODES
from lpu.cli.options import Model, ModelOptions, RackOptions
from lpu.cli.terminal import TERMINAL, progress
from lpu.cli.verb import OneOf, Only
from lpu.gpu.request import Request

DIFFERENT = 1
ByMode = Annotated[Mode, OneOf(Option("--mode", "How they share the work; see docs/afd.md."), MODES, "pd")]


def afd(
    model: Model,
    mode: ByMode,
    request: Request,
    gpus: Gpus,
    options: Annotated[CompileOptions, Only(("tp", "pp", "layout", "placement", "seed"))],
    changes: Annotated[ModelOptions, Only(("context", "kv", "weights", "trust"))],
    wanted: Wanted,
    on: RackOptions,
) -> None:
    """GPU and LPU together: prefill/decode split, attention/FFN split, or drafting, in time and in bits.

    Examples:
      lpu afd llama-3.1-70b --mode pd --gpus 8 --prompt-tokens 8192
      lpu afd llama-3.1-70b --mode afd --batch 24 --gpus 16
    """
    from lpu import api
    from lpu.cli.show_afd import show_afd

    terminal = TERMINAL.get()
    with progress() as bar:
        found = api.afd(
            model,
            request,
            mode=mode,
            gpus=gpus,
            rack=on.named(),
            options=options,
            wanted=wanted,
            progress=bar,
            **changes.given(),
        )
    show_afd(found, terminal)
    for path in (wanted.output, wanted.trace):
        if path is not None:
            terminal.say(f"saved       {path}")
    if wanted.html is not None:
        terminal.say(str(api.page(found, wanted.html)))
    terminal.result(found.to_json() | {"folder": wanted.output, "trace": wanted.trace, "html": wanted.html})
    if not found.equal:
        raise typer.Exit(DIFFERENT)


def ratios(
    model: Model,
    points: RatioPoints,
    kind: GpuKind,
    options: Annotated[CompileOptions, Only(("tp",))],
    changes: Annotated[ModelOptions, Only(("kv", "trust"))],
    on: RackOptions,
) -> None:
    """Ratios of GPUs to LPUs for attention/FFN disaggregation: the best one, and where it loses.

    Examples:
      lpu ratios llama-3.1-70b --gpus 8,16 --batches 24,48 --target-ms 10
    """
    from lpu import api
    from lpu.cli.show_afd import show_ratios

    terminal = TERMINAL.get()
    with progress() as bar:
        found = api.ratios(
            model,
            points,
            kind=kind,
            rack=on.named(),
            options=options,
            progress=bar,
            **changes.given(),
        )
    show_ratios(found, terminal)
    terminal.result({"schema": "lpu-ratios/1"} | found.to_json())


VERBS = (afd, ratios)
