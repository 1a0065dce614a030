"""GPUs beside the rack: afd, ratios."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from compiler.options import CompileOptions, Option
from lpu.afd.mode import Mode
from lpu.afd.modes.afd import Afd, FfnDown, FfnUp
from lpu.afd.modes.draft import Draft
from lpu.afd.modes.pd import Pd
from lpu.afd.registry import MODES
from lpu.cli.options import DEFAULT_RACK, Model, ModelOptions, NoCheck, RackName
from lpu.cli.terminal import TERMINAL, progress
from lpu.cli.verb import OneOf, Only
from lpu.gpu.operators import GemmFormat
from lpu.gpu.request import Request

if TYPE_CHECKING:
    from lpu.afd.setup import AfdOptions

DIFFERENT = 1
ByMode = Annotated[Mode, OneOf(Option("--mode", "How they share the work; see docs/afd.md."), MODES, "pd")]


def counts(text: str) -> tuple[int, ...]:
    """Positive counts with commas between them."""
    words = text.split(",")
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise ValueError(f"{text!r} is no list of positive counts")
    return tuple(int(word) for word in words)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOptions:
    """The GPUs beside the rack, and what joins both."""

    gpu: Annotated[str, Option("--gpu", "A GPU of the catalog (lpu gpus).")] = "h200"
    bridge: Annotated[
        str, Option("--bridge", "Between GPUs and LPUs: spectrum-x, fpga-400g, or a bridge file.")
    ] = "spectrum-x"
    gemm: Annotated[
        GemmFormat,
        Option("--gemm", f"The GPUs' weights and products: {', '.join(get_args(GemmFormat))}."),
    ] = "w8a16"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareOptions(GpuOptions):
    """A number of GPUs, dealt to replicas."""

    gpus: Annotated[int, Option("--gpus", "GPUs beside the rack.", least=1)] = 8
    gpu_tp: Annotated[int | None, Option("--gpu-tp", "GPUs to a replica.", least=1, shown="the fastest")] = (
        None
    )
    gpu_table: Annotated[
        str | None, Option("--gpu-table", "Measured operators (CSV), taken where it has them.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """What is done with the answer."""

    run: Annotated[bool, Option("--run", "Run the math too, and compare it with the model.")] = False
    output: Annotated[str | None, Option("-o --output", "Folder to write the LPUs' program into.")] = None
    trace: Annotated[str | None, Option("--trace", "Write a Perfetto trace here.")] = None
    no_check: NoCheck = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioOptions:
    """The points of a sweep of ratios."""

    gpus: Annotated[tuple[int, ...], Option("--gpus", "Numbers of GPUs.", metavar="N,N", parse=counts)] = (
        8,
        16,
        32,
        64,
    )
    batches: Annotated[tuple[int, ...], Option("--batches", "Batches.", metavar="N,N", parse=counts)] = (
        12,
        24,
        48,
        96,
    )
    micro_batches: Annotated[
        tuple[int, ...], Option("--micro-batches", "Micro-batches.", metavar="N,N", parse=counts)
    ] = (1, 2, 3, 4)
    kv_tokens: Annotated[int, Option("--kv-tokens", "Tokens of each sequence's KV.")] = 8192
    target_ms: Annotated[
        float | None, Option("--target-ms", "Milliseconds per token that a point may take.")
    ] = None
    ffn_down: FfnDown = None
    ffn_up: FfnUp = None


def afd(
    model: Model,
    mode: ByMode,
    request: Request,
    gpus: ShareOptions,
    options: Annotated[CompileOptions, Only(("tp", "pp", "layout", "placement", "seed"))],
    changes: Annotated[ModelOptions, Only(("context", "kv", "weights"))],
    doing: Doing,
    rack: RackName = DEFAULT_RACK,
) -> None:
    """GPU and LPU together: prefill/decode split, attention/FFN split, or drafting, in time and in bits."""
    from lpu import api
    from lpu.cli.show_afd import show_afd

    terminal, run, output, trace = TERMINAL.get(), doing.run, doing.output, doing.trace
    more: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    if isinstance(mode, Pd):
        request = replace(request, cached_tokens=mode.cached_tokens)
        more = {"kv_cache": mode.kv_cache}
    if isinstance(mode, Afd):
        chosen = {"ffn_down": mode.ffn_down, "ffn_up": mode.ffn_up}
    if isinstance(mode, Draft):
        more = {"drafter": mode.drafter}
    if trace is not None:
        api.check_writable(trace, "--trace")
    with progress() as bar:
        found = api.afd(
            model,
            request,
            gpus=gpus.gpus,
            gpu=gpus.gpu,
            rack=rack,
            bridge=gpus.bridge,
            gemm=gpus.gemm,
            gpu_tp=gpus.gpu_tp,
            gpu_table=gpus.gpu_table,
            options=_options(mode, options, not doing.no_check),
            run=run,
            output=output,
            progress=bar,
            **more,
            **chosen,
            **changes.given(),
        )
    if trace is not None:
        from lpu.afd.trace import write_trace

        write_trace(trace, found.events, {"mode": mode.name, "machine": dict(found.machine)})
    show_afd(found, terminal)
    for path in (output, trace):
        if path is not None:
            terminal.say(f"saved       {path}")
    terminal.result(found.to_json() | {"folder": output, "trace": trace})
    if not found.equal:
        raise typer.Exit(DIFFERENT)


def _options(mode: Mode, options: CompileOptions, check: bool) -> "AfdOptions":
    from lpu.afd.draft import Drafting
    from lpu.afd.hops import Dam
    from lpu.afd.setup import AfdOptions

    about: dict[str, Any] = {"mode": mode.name, "compile": options, "check": check}
    if isinstance(mode, Pd):
        about |= {"policy": mode.kv_policy}
    if isinstance(mode, Afd):
        dam = Dam(jitter=mode.gpu_jitter, target=mode.miss_probability, seed=mode.jitter_seed)
        target = None if mode.target_ms is None else round(mode.target_ms * 10**9)
        about |= {"dam": dam, "target": target, "micro_batches": mode.micro_batches}
        about |= {"by": mode.split, "threshold": mode.threshold}
    if isinstance(mode, Draft):
        about |= {"drafting": Drafting(drafts=mode.drafts, acceptance=mode.acceptance)}
    return AfdOptions(**about)


def ratios(
    model: Model,
    points: RatioOptions,
    gpus: GpuOptions,
    options: Annotated[CompileOptions, Only(("tp",))],
    changes: Annotated[ModelOptions, Only(("kv",))],
    rack: RackName = DEFAULT_RACK,
) -> None:
    """Ratios of GPUs to LPUs for attention/FFN disaggregation: the best one, and where it loses."""
    from lpu import api
    from lpu.cli.show_afd import show_ratios

    terminal = TERMINAL.get()
    with progress() as bar:
        found = api.ratios(
            model,
            gpus=points.gpus,
            batches=points.batches,
            micro_batches=points.micro_batches,
            kv_tokens=points.kv_tokens,
            target_seconds=None if points.target_ms is None else points.target_ms / 1000,
            gpu=gpus.gpu,
            rack=rack,
            bridge=gpus.bridge,
            gemm=gpus.gemm,
            options=options,
            progress=bar,
            kv=changes.kv,
            ffn_down=points.ffn_down,
            ffn_up=points.ffn_up,
        )
    show_ratios(found, terminal)
    terminal.result({"schema": "lpu-ratios/1"} | found.to_json())


VERBS = (afd, ratios)
