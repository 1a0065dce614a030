"""The verbs of GPUs beside a rack as plain functions: afd, ratios."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, cast, get_args

from compiler.errors import CompileError
from compiler.hops import compile_hops
from compiler.options import CompileOptions
from fabric.bridge import BridgeSpec
from fabric.catalog import gpu_spec
from fabric.gpu import GpuSpec
from fabric.rack import Rack
from lpu.afd import afd as modes
from lpu.afd.bits import pd_programs, spoken, users_of, verdict
from lpu.afd.hops import HopTimes
from lpu.afd.ratios import RatioSweep, ratio_sweep
from lpu.afd.report import AfdReport
from lpu.afd.setup import AfdOptions, Beside, hop_times, lpus_of
from lpu.decode.prefix_binding import binding_of
from lpu.decode.prefix_cache import PrefixCache
from lpu.decode.prefix_store import load as load_cache
from lpu.decode.prefix_store import save as save_cache
from lpu.folder import Progress, quiet, save_into
from lpu.gpu.operators import GemmFormat
from lpu.gpu.request import Request
from lpu.gpu.table import read_table
from lpu.inputs.document import FileError
from lpu.inputs.files import atomic_folder, check_writable, read_bridge, read_rack
from lpu.inputs.model import OpenModel, of_micro_batch
from lpu.inputs.open import Model, open_model

BLOCK_TOKENS = 16


def afd(
    model: Model,
    request: Request,
    *,
    gpus: int = 8,
    gpu: str | GpuSpec = "h200",
    rack: str | Path | Rack = "lpx",
    bridge: str | Path | BridgeSpec = "spectrum-x",
    gemm: str = "w8a16",
    gpu_tp: int | None = None,
    gpu_table: str | Path | None = None,
    options: AfdOptions | None = None,
    drafter: Model | None = None,
    run: bool = False,
    kv_cache: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress = quiet,
    **chosen: Any,
) -> AfdReport:
    """What `lpu afd` reports of a request. run: execute the math too and compare its bits with the model's.

    gpu_table: a file of measured operators, which are taken where it has them. kv_cache: a folder of
    prefixes' KV that a run in mode pd begins with and leaves. output: a folder for the LPUs' program, and in
    mode pd for those that hand KV over beside it. `chosen` goes to `open_model`; contexts are the ends of the
    turns if not given.
    Raises FileError, CompileError, HazardError, LinkError or MachineError.
    """
    options = options or AfdOptions()
    _check_use(options.mode, drafter is not None, run, kv_cache)
    beside = _beside(rack, gpu, gpus, bridge, gemm, gpu_tp, gpu_table)
    if not chosen.get("context"):
        ends = (request.before(turn + 1) for turn in range(request.turns))
        chosen = chosen | {"context": tuple(dict.fromkeys(ends))}
    given: dict[str, Any] = chosen | {"batch": request.batch}
    opened = open_model(model, **given)
    if max(opened.contexts) < request.context:
        raise FileError(
            f"request: its turns come to {request.context} tokens, --context ends at {max(opened.contexts)}."
        )
    small = None
    if drafter is not None:
        small = open_model(drafter, batch=request.batch, context=chosen["context"], kv=opened.step.kv)
    store = None
    if kv_cache is not None:
        store = _opened_cache(opened, kv_cache, gpus)
        request = replace(request, cached_tokens=_cached(store, opened, request))
    with nullcontext() if output is None else atomic_folder(output) as folder:
        report, program = modes.afd(opened, request, beside, options, small, progress)
        moved = None
        if options.mode == "pd" and (run or folder is not None):
            moved = pd_programs(program, beside.bridge, options.policy == "copy-back", options.check)
        if folder is not None:
            others = {} if moved is None else {"ingest": moved.ingest, "egress": moved.egress}
            save_into(folder, program, **others)
        if not run:
            return report
        found = spoken(
            options.mode,
            opened,
            program,
            request,
            handover=moved,
            drafter=small,
            drafts=options.drafting.drafts,
            cache=store,
            progress=progress,
        )
    if store is not None and kv_cache is not None:
        save_cache(kv_cache, store)
    return replace(report, bits=verdict(found, opened, request, progress), counts=found.counts)


def ratios(
    model: Model,
    *,
    gpus: Sequence[int],
    batches: Sequence[int],
    micro_batches: Sequence[int],
    kv_tokens: int,
    target_seconds: float | None = None,
    gpu: str | GpuSpec = "h200",
    rack: str | Path | Rack = "lpx",
    bridge: str | Path | BridgeSpec = "spectrum-x",
    gemm: str = "w8a16",
    options: CompileOptions | None = None,
    progress: Progress = quiet,
    **chosen: Any,
) -> RatioSweep:
    """Every number of GPUs with every batch and number of micro-batches; hops are compiled once per rows.

    The tp of the hops is searched at the fewest rows if the options leave it open.
    Raises FileError, and CompileError where no point at all can be made.
    """
    if target_seconds is not None and not 0 < target_seconds < inf:
        raise FileError(f"ratios: --target-ms is {1000 * target_seconds:g}, must be above 0 and finite.")
    given: dict[str, Any] = chosen | {"batch": 1, "context": (kv_tokens,)}
    opened = open_model(model, **given)
    sides = [_beside(rack, gpu, count, bridge, gemm) for count in gpus]
    shares = [side.shares(opened) for side in sides]
    rows = sorted({batch // m for batch in batches for m in micro_batches if batch % m == 0})
    if not rows:
        raise FileError(f"ratios: no batch of {list(batches)} divides into {list(micro_batches)} parts.")
    machine, link, plan = sides[0].rack, sides[0].bridge, options or CompileOptions()
    if plan.tp is None:
        first, _ = compile_hops(of_micro_batch(opened, rows[0]).source(), machine, plan, link)
        plan = replace(plan, tp=first.manifest.tp)

    @cache
    def hops(count: int) -> tuple[HopTimes, int] | CompileError:
        progress("hops", rows.index(count), len(rows))
        try:
            program, split = compile_hops(of_micro_batch(opened, count).source(), machine, plan, link)
        except CompileError as error:
            return error
        return hop_times(program, split), lpus_of(program)

    def times(count: int) -> tuple[HopTimes, int]:
        found = hops(count)
        if isinstance(found, CompileError):
            raise found
        return found

    spec = sides[0].gpu
    words = (
        f"{spec.name}{f' ({spec.band_text})' if spec.band else ''}, {gemm}, kv {opened.step.kv}, "
        f"{link.name} with {link.latency_ns / 1000:g} us one way (assumed), hops at tp {plan.tp} on "
        f"{machine.name}, {kv_tokens} tokens of KV a sequence; prefill is done elsewhere"
    )
    return ratio_sweep(shares, times, batches, micro_batches, kv_tokens, target_seconds, words)


def _beside(
    rack: str | Path | Rack,
    gpu: str | GpuSpec,
    gpus: int,
    bridge: str | Path | BridgeSpec,
    gemm: str,
    gpu_tp: int | None = None,
    table: str | Path | None = None,
) -> Beside:
    if gemm not in get_args(GemmFormat):
        raise FileError(f"options: --gemm is {gemm!r}, must be one of {', '.join(get_args(GemmFormat))}")
    return Beside(
        rack=rack if isinstance(rack, Rack) else read_rack(rack),
        gpu=gpu if isinstance(gpu, GpuSpec) else gpu_spec(gpu),
        gpus=gpus,
        bridge=bridge if isinstance(bridge, BridgeSpec) else read_bridge(bridge),
        gemm=cast(GemmFormat, gemm),
        gpu_tp=gpu_tp,
        table=None if table is None else read_table(Path(table)),
    )


def _check_use(mode: str, drafter: bool, run: bool, cache: str | Path | None) -> None:
    """Options that the mode would ignore are refused, and a folder that could not be written."""
    if drafter and mode != "draft":
        raise FileError(f"options: --drafter means nothing in mode {mode}. Use --mode draft.")
    if cache is None:
        return
    if mode != "pd" or not run:
        raise FileError("options: --kv-cache goes with --mode pd and --run: it holds real bytes.")
    if not Path(cache).exists():
        check_writable(cache, "--kv-cache")


def _cached(store: PrefixCache, model: OpenModel, request: Request) -> int:
    """Tokens of every first prompt whose KV the cache has; two of a prompt are always taken."""
    hits = [store.match(prompt).tokens for prompt in users_of(request, model)[0]]
    return min(*hits, request.prompt_tokens - 2) if hits else 0


def _opened_cache(model: OpenModel, folder: str | Path, gpus: int) -> PrefixCache:
    """Bound to the number of GPUs: their share of each head's KV is another layout."""
    binding = binding_of(model, tp=gpus)
    return (
        load_cache(folder, binding, BLOCK_TOKENS)
        if Path(folder).exists()
        else PrefixCache(binding, BLOCK_TOKENS)
    )
