"""GPUs beside the rack: afd, ratios."""

from typing import Annotated, Any

import typer

from lpu.cli.options import (
    DEFAULT_RACK,
    Context,
    Debug,
    Json,
    Kv,
    Layout,
    Model,
    NoCheck,
    Placement,
    Pp,
    RackName,
    Seed,
    Tp,
    Weights,
    compile_options,
    model_options,
)
from lpu.cli.terminal import TERMINAL, progress

DIFFERENT = 1
Gpu = Annotated[str, typer.Option("--gpu", help="A GPU of the catalog (lpu gpus).")]
Bridge = Annotated[
    str, typer.Option("--bridge", help="Between GPUs and LPUs: spectrum-x, fpga-400g, or a bridge file.")
]
Gemm = Annotated[
    str, typer.Option("--gemm", help="The GPUs' weights and products: w8a16, bf16, fp8 or nvfp4.")
]
By = Annotated[
    str | None, typer.Option("--split", help="afd: the LPUs' share by role (FFNs, default) or by intensity.")
]
Threshold = Annotated[
    float | None, typer.Option("--threshold", help="afd: FLOP per byte from which on the LPUs do it.")
]
Down = Annotated[str | None, typer.Option("--ffn-down", help="afd: FFN inputs cross as fp16, or fp8.")]
Up = Annotated[str | None, typer.Option("--ffn-up", help="afd: FFN results cross as f32, or fp16.")]


def afd(
    model: Model,
    mode: Annotated[str, typer.Option("--mode", help="pd, afd or draft; see docs/afd.md.")] = "pd",
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="GPUs beside the rack.")] = 8,
    gpu: Gpu = "h200",
    rack: RackName = None,
    bridge: Bridge = "spectrum-x",
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", help="Tokens that a turn brings.")] = 4096,
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Tokens decoded in a turn.")] = 512,
    later_tokens: Annotated[
        int | None, typer.Option("--later-tokens", help="Tokens that turns after the first bring.")
    ] = None,
    cached_tokens: Annotated[
        int | None,
        typer.Option("--cached-tokens", help="pd: of the first prompt, tokens whose KV the GPUs have; 0."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", help="Sequences at once.")] = 1,
    turns: Annotated[int, typer.Option("--turns", help="Turns of the conversation.")] = 1,
    queue: Annotated[float, typer.Option("--queue-seconds", help="Before a prefill begins.")] = 0.0,
    micro_batches: Annotated[
        int | None,
        typer.Option("--micro-batches", help="afd: 1 to 4, in ping-pong; 2, or 1."),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option("--target-ms", help="afd: ms a token, to warn of the dead zone."),
    ] = None,
    split: By = None,
    threshold: Threshold = None,
    ffn_down: Down = None,
    ffn_up: Up = None,
    jitter: Annotated[
        float | None, typer.Option("--gpu-jitter", help="afd: of GPU times, deviation over mean; 0.")
    ] = None,
    miss: Annotated[
        float | None,
        typer.Option("--miss-probability", help="afd: how often a hop may miss its slot; 0.001."),
    ] = None,
    jitter_seed: Annotated[
        int | None, typer.Option("--jitter-seed", min=0, help="afd: of the jitter; 0.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--kv-policy", help="pd: GPUs recompute decoded tokens (default), or copy-back."),
    ] = None,
    drafter: Annotated[str | None, typer.Option("--drafter", help="draft: the small model.")] = None,
    drafts: Annotated[
        int | None, typer.Option("--drafts", help="draft: tokens proposed a round; 4 by default.")
    ] = None,
    acceptance: Annotated[
        float | None, typer.Option("--acceptance", help="draft: assumed chance that a draft is right; 0.7.")
    ] = None,
    gpu_tp: Annotated[
        int | None, typer.Option("--gpu-tp", min=1, help="GPUs to a replica; the fastest by default.")
    ] = None,
    gpu_table: Annotated[
        str | None, typer.Option("--gpu-table", help="Measured operators (CSV), taken where it has them.")
    ] = None,
    gemm: Gemm = "w8a16",
    tp: Tp = None,
    pp: Pp = None,
    layout: Layout = None,
    placement: Placement = None,
    seed: Seed = None,
    contexts: Context = None,
    kv: Kv = None,
    weights: Weights = None,
    run: Annotated[
        bool, typer.Option("--run", help="Run the math too, and compare it with the model.")
    ] = False,
    kv_cache: Annotated[
        str | None,
        typer.Option("--kv-cache", help="pd with --run: a folder of KV to begin with and leave."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Folder to write the LPUs' program into.")
    ] = None,
    trace: Annotated[str | None, typer.Option("--trace", help="Write a Perfetto trace here.")] = None,
    no_check: NoCheck = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """GPU and LPU together: prefill/decode split, attention/FFN split, or drafting, in time and in bits."""
    from lpu import api
    from lpu.afd.draft import Drafting
    from lpu.afd.hops import Dam
    from lpu.afd.setup import AfdOptions
    from lpu.cli.show_afd import show_afd
    from lpu.gpu.request import Request

    terminal = TERMINAL.get()
    request = Request(
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        later_tokens=later_tokens,
        cached_tokens=cached_tokens or 0,
        batch=batch,
        turns=turns,
        queue_seconds=queue,
    )
    options = AfdOptions(
        mode=mode,
        dam=Dam(**_given(jitter=jitter, target=miss, seed=jitter_seed)),
        drafting=Drafting(**_given(drafts=drafts, acceptance=acceptance)),
        threshold=threshold,
        compile=compile_options(tp, pp, layout, placement, seed),
        check=not no_check,
        target=None if target is None else round(target * 10**9),
        **_given(policy=policy, micro_batches=micro_batches, by=split),
    )
    _refuse("pd", mode, cached_tokens=cached_tokens, kv_policy=policy, kv_cache=kv_cache)
    _refuse("afd", mode, micro_batches=micro_batches, split=split, threshold=threshold)
    _refuse("afd", mode, ffn_down=ffn_down, ffn_up=ffn_up, target_ms=target)
    _refuse("afd", mode, gpu_jitter=jitter, miss_probability=miss, jitter_seed=jitter_seed)
    _refuse("draft", mode, drafter=drafter, drafts=drafts, acceptance=acceptance)
    if trace is not None:
        api.check_writable(trace, "--trace")
    chosen = model_options(None, contexts, kv, weights) | {"ffn_down": ffn_down, "ffn_up": ffn_up}
    with progress() as bar:
        found = api.afd(
            model,
            request,
            gpus=gpus,
            gpu=gpu,
            rack=rack or DEFAULT_RACK,
            bridge=bridge,
            gemm=gemm,
            gpu_tp=gpu_tp,
            gpu_table=gpu_table,
            options=options,
            drafter=drafter,
            run=run,
            kv_cache=kv_cache,
            output=output,
            progress=bar,
            **chosen,
        )
    if trace is not None:
        from lpu.afd.trace import write_trace

        write_trace(trace, found.events, {"mode": mode, "machine": dict(found.machine)})
    show_afd(found, terminal)
    for path in (output, trace):
        if path is not None:
            terminal.say(f"saved       {path}")
    terminal.result(found.to_json() | {"folder": output, "trace": trace})
    if not found.equal:
        raise typer.Exit(DIFFERENT)


def ratios(
    model: Model,
    gpus: Annotated[str, typer.Option("--gpus", help="Numbers of GPUs: 8,16,32.")] = "8,16,32,64",
    batches: Annotated[str, typer.Option("--batches", help="Batches: 12,24,48.")] = "12,24,48,96",
    micro_batches: Annotated[
        str, typer.Option("--micro-batches", help="Micro-batches: 1,2,3,4.")
    ] = "1,2,3,4",
    context: Annotated[int, typer.Option("--kv-tokens", help="Tokens of each sequence's KV.")] = 8192,
    target: Annotated[
        float | None, typer.Option("--target-ms", help="Milliseconds per token that a point may take.")
    ] = None,
    gpu: Gpu = "h200",
    rack: RackName = None,
    bridge: Bridge = "spectrum-x",
    gemm: Gemm = "w8a16",
    tp: Tp = None,
    kv: Kv = None,
    ffn_down: Down = None,
    ffn_up: Up = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Ratios of GPUs to LPUs for attention/FFN disaggregation: the best one, and where it loses."""
    from lpu import api
    from lpu.cli.show_afd import show_ratios

    terminal = TERMINAL.get()
    with progress() as bar:
        found = api.ratios(
            model,
            gpus=_numbers("--gpus", gpus),
            batches=_numbers("--batches", batches),
            micro_batches=_numbers("--micro-batches", micro_batches),
            kv_tokens=context,
            target_seconds=None if target is None else target / 1000,
            gpu=gpu,
            rack=rack or DEFAULT_RACK,
            bridge=bridge,
            gemm=gemm,
            options=compile_options(tp, None, None, None, None),
            progress=bar,
            kv=kv,
            ffn_down=ffn_down,
            ffn_up=ffn_up,
        )
    show_ratios(found, terminal)
    terminal.result({"schema": "lpu-ratios/1"} | found.to_json())


def _given(**options: object) -> dict[str, Any]:
    """Without those that are not given, whose defaults stand elsewhere."""
    return {name: value for name, value in options.items() if value is not None}


def _refuse(owner: str, mode: str, **options: object) -> None:
    """An option that only another mode reads is an error, not ignored."""
    from lpu.inputs.document import FileError

    for name in _given(**options) if mode != owner else ():
        raise FileError(
            f"options: --{name.replace('_', '-')} means nothing in mode {mode}. Use --mode {owner}."
        )


def _numbers(option: str, text: str) -> list[int]:
    """Positive counts, or a FileError that names the option."""
    from lpu.inputs.document import FileError

    words = text.split(",")
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise FileError(f"options: {option} {text!r} is no list of positive counts. Write {option} 8,16.")
    return [int(word) for word in words]


VERBS = (afd, ratios)
