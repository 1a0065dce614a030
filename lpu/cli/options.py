"""The options that several verbs share, each declared once. Nothing heavy is imported here."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from compiler.options import LAYOUTS, OBJECTIVES, STRATEGIES, CompileOptions
from lpu.cli.terminal import TERMINAL

DEFAULT_RACK = "lpx"


def _set_json(value: bool) -> bool:
    TERMINAL.get().json |= value
    return value


def _set_debug(value: bool) -> bool:
    TERMINAL.get().debug |= value
    return value


def _one_of(choices: tuple[str, ...]) -> Callable[[str | None], str | None]:
    def check(value: str | None) -> str | None:
        if value is not None and value not in choices:
            raise typer.BadParameter(f"{value!r} is none of {', '.join(choices)}")
        return value

    return check


def _count_or_auto(text: str) -> int:
    """A count, 0 for `auto`."""
    if text != "auto" and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise typer.BadParameter(f"{text!r} is neither a positive count nor auto")
    return 0 if text == "auto" else int(text)


Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout.", callback=_set_json, is_eager=True)
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Tracebacks of errors.", callback=_set_debug, is_eager=True)
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A catalog name (lpu models), a model file, a Hugging Face folder, or package.module:factory.",
    ),
]
ProgramFolder = Annotated[str, typer.Argument(metavar="PROGRAM", help="A folder that lpu compile -o wrote.")]
RackName = Annotated[
    str | None,
    typer.Option("--rack", help=f"A catalog name (lpu racks) or a rack file; {DEFAULT_RACK} by default."),
]
Batch = Annotated[int | None, typer.Option("--batch", min=1, help="Sequences at once.")]
Context = Annotated[
    str | None, typer.Option("--context", help="Context buckets in tokens, ascending: 1024,8192.")
]
Kv = Annotated[str | None, typer.Option("--kv", help="Format of the KV cache: fp16 or fp8.")]
Weights = Annotated[
    str | None, typer.Option("--weights", help="seed:N, safetensors, safetensors:PATH or orbax:PATH.")
]
Stream = Annotated[
    bool | None,
    typer.Option(
        "--stream/--no-stream",
        help="Take the weights call by call at every step; by default if they exceed the memory here.",
    ),
]
Tp = Annotated[
    int | None,
    typer.Option(
        "--tp",
        metavar="N|auto",
        parser=_count_or_auto,
        help="Chips per group; auto, the default, schedules all that fit and takes the shortest step.",
    ),
]
Pp = Annotated[
    int | None, typer.Option("--pp", min=1, help="Groups in the pipeline; as few as fit by default.")
]
Cp = Annotated[
    int | None,
    typer.Option(
        "--cp", min=1, help="Chips that each KV head's context is dealt over; the fastest by default."
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        help=f"How matmuls split in a group: {', '.join(LAYOUTS)}.",
        callback=_one_of(LAYOUTS),
    ),
]
Placement = Annotated[
    str | None,
    typer.Option(
        "--placement",
        help=f"Where blocks run: {', '.join(STRATEGIES)}, package.module:function, "
        "or the name of an installed strategy.",
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the placement.")]
Prefill = Annotated[
    int | None,
    typer.Option("--prefill", min=2, help="Also a program for so many tokens of one prompt at a time."),
]
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="latency: one step, as short as can be (default); throughput: a new step of other users every "
        "interval of cycles; pareto: compare both (docs/throughput.md).",
        callback=_one_of(OBJECTIVES),
    ),
]
Slack = Annotated[
    float | None,
    typer.Option("--interval-slack", help="Interval over its resource bound, at least: 1.0 (default), 1.5."),
]
Users = Annotated[
    int | None,
    typer.Option(
        "--users", min=1, help="Groups of --batch sequences that keep KV; as many as fit by default."
    ),
]
Tokens = Annotated[int, typer.Option("--tokens", min=1, help="New tokens of each sequence.")]
Prompts = Annotated[list[str] | None, typer.Option("--prompt", help="A prompt; repeat it for a batch.")]
PromptIds = Annotated[
    list[str] | None, typer.Option("--prompt-ids", help="Token ids 1,2,3; several prompts as 1,2;3,4.")
]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Do not check the program.")]


def compile_options(
    tp: int | None,
    pp: int | None,
    layout: str | None,
    placement: str | None,
    seed: int | None,
    cp: int | None = None,
    objective: str | None = None,
    interval_slack: float | None = None,
    users: int | None = None,
) -> CompileOptions:
    """The options of the compiler; what is not given stays as it is by default."""
    given = {"tp": tp or None, "pp": pp, "layout": layout, "placement": placement, "seed": seed, "cp": cp}
    given |= {"objective": objective, "interval_slack": interval_slack, "users": users}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return CompileOptions(**chosen)


def model_options(
    batch: int | None, context: str | None, kv: str | None, weights: str | None
) -> dict[str, Any]:
    """What overrides the model file; FileError if the context is no list of numbers."""
    buckets = None
    if context is not None:
        try:
            buckets = tuple(int(word) for word in context.split(","))
        except ValueError:
            from lpu.inputs.document import FileError

            raise FileError(
                f"options: --context {context!r} is no list of numbers. Write --context 1024,8192."
            ) from None
    return {"batch": batch, "context": buckets, "kv": kv, "weights": weights}


def chosen_prompts(texts: list[str] | None, ids: list[str] | None) -> list[Any] | None:
    """Prompts of both options in order, texts first; None if there is none."""
    from lpu.inputs.text import parse_ids

    found: list[Any] = [*(texts or []), *(prompt for part in ids or [] for prompt in parse_ids(part))]
    return found or None
