"""Ratios of GPUs to LPUs for models with experts: gpt-oss-120b, Qwen3-235B, DeepSeek-V3 and Kimi-K2.

Attention on 8 to 72 GPUs, experts on the racks that hold them, and Kimi-K2 beside five racks, which hold the
experts of some layers; contexts of 8k, 128k and 400k tokens. Beside each point stand the same GPUs alone,
experts over all of them (wide expert parallelism), dealt as is best for that. A point is valid if it has a
time or a reason why it has none. Hops are compiled, GPUs and links modelled: a projection. What is published
of such systems stands beside it: signs of measured ones as `lpu validate` has them, and the vendor's
operating point. The exit code is 1 if a point is not valid or a sign is not that of the published figure.
"""

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import machine, peak_gb, show

from compiler.errors import CompileError
from compiler.hops import compile_hops
from compiler.options import CompileOptions
from fabric.catalog import bridge_spec
from fabric.rack import Rack
from lpu.afd.machines import Machines, lpus_of
from lpu.afd.ratios import Ratio, ratio_sweep
from lpu.afd.times.hops import HopTimes, hop_times
from lpu.inputs.files import read_gpu, read_rack
from lpu.inputs.model import of_micro_batch
from lpu.inputs.open import open_model
from lpu.validate.cases.afd.ascend_910c import verdicts

GPUS = (8, 16, 32, 72)
CONTEXTS = (8192, 131_072, 400_000)
CASES = ((1, 1), (4, 1), (4, 4), (8, 2), (16, 4))  # batch, micro-batches
PLACES = (  # model, racks, tp of its experts, layers on LPUs (None: all)
    ("gpt-oss-120b", "lpx-x3", 16, None),
    ("qwen3-235b-a22b", "lpx-x3", 8, None),
    ("deepseek-v3", "lpx-x8", 32, None),
    ("kimi-k2", "lpx-x5", 48, 26),
    ("kimi-k2", "lpx-x12", 48, None),
)
USUAL = PLACES[:-1]  # the last one takes most of two minutes to compile; --places kimi-k2@lpx-x12 sweeps it
VENDOR = 400  # tokens/s a user at 400k tokens: facts/afd.md section 6


def main() -> None:
    args = arguments()
    print(machine())
    start, user = time.perf_counter(), time.process_time()
    every: list[tuple[str, int, Ratio]] = []
    ok = signs()
    for model, rack, tp, layers in PLACES if args.places else USUAL:
        if args.places and model not in args.places and f"{model}@{rack}" not in args.places:
            continue
        found = swept(model, racks(rack), tp, layers, args.gpu)
        every += [(model, context, point) for context, points in found.items() for point in points]
        told(model, rack, found)
    show("seconds for the sweep (measured)", time.perf_counter() - start, "s", 120)
    print(f"user CPU                              {time.process_time() - user:>10.2f} s")
    print(f"most memory (measured)                {peak_gb():>10.2f} GB")
    valid = sum(point.tpot is not None or bool(point.refused) for _, _, point in every)
    print(f"valid      {valid} of {len(every)} points")
    vendor(every, args.gpu)
    if valid < len(every) or not ok:
        raise SystemExit(1)


def racks(name: str) -> Rack:
    """One of the catalog, or five of them in a ring."""
    if name != "lpx-x5":
        return read_rack(name)
    text = (files("fabric") / "catalog/racks/lpx-x6.yaml").read_text()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lpx-x5.yaml"
        path.write_text(text.replace("lpx-x6", name).replace("size: 6", "size: 5"))
        return read_rack(path)


def signs() -> bool:
    """Where measured systems of GPUs or NPUs win and lose by dividing, beside the same schedule here."""
    good = True
    for one in verdicts():
        if "sign" in one.name:
            same = one.published == one.modelled
            good &= same
            said = "same" if same else "OTHER"
            print(f"sign       {one.name}: published {one.published:+g}, modelled {one.modelled:+g}: {said}")
    return good


def swept(model: str, rack: Rack, tp: int, layers: int | None, gpu: str) -> dict[int, tuple[Ratio, ...]]:
    """The points of a model by length of the KV."""
    opened = open_model(model, batch=1, kv="fp8", ffn_down="fp16")
    bridge = bridge_spec("spectrum-x")

    @cache
    def made(rows: int) -> tuple[HopTimes, int] | CompileError:
        start = time.process_time()
        try:
            part = of_micro_batch(opened, rows).source()
            program, split = compile_hops(part, rack, CompileOptions(tp=tp), bridge, layers=layers)
        except CompileError as error:
            return error
        found = hop_times(program, split)
        spent = time.process_time() - start
        print(
            f"{model}: {len(found.cycles)} hops of {rows} rows on {rack.name}, "
            f"{lpus_of(program)} LPUs: {max(found.cycles):,} cycles ({spent:.1f} s of CPU)",
            flush=True,
        )
        return found, lpus_of(program)

    def hops(rows: int) -> tuple[HopTimes, int]:
        found = made(rows)
        if isinstance(found, CompileError):
            raise found
        return found

    shares = [
        Machines(rack=rack, gpu=read_gpu(gpu), gpus=count, bridge=bridge).shares(opened) for count in GPUS
    ]
    return {
        context: tuple(
            point for batch, m in CASES for point in ratio_sweep(shares, hops, [batch], [m], context).points
        )
        for context in CONTEXTS
    }


def told(model: str, rack: str, found: Mapping[int, Sequence[Ratio]]) -> None:
    for context, points in found.items():
        counts = Counter(point.verdict(None) for point in points)
        said = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        print(f"{model} beside {rack}, {context:,} tokens: {said}")
        timed = [point for point in points if point.tpot is not None]
        if timed:
            quicker = sum(point.alone is None or point.tpot < point.alone for point in timed if point.tpot)
            print(f"  faster a user than the same GPUs alone at {quicker} of {len(timed)} points")
            print(f"  fastest       {line(max(timed, key=lambda point: 1 / (point.tpot or 1)))}")
            print(f"  most per rack {line(max(timed, key=lambda point: point.per_rack))}")
        refused = [point.refused for point in points if point.refused]
        if refused:
            print(f"  refused, such as: {refused[0]}")
    print(flush=True)


def line(point: Ratio) -> str:
    assert point.tpot is not None
    alone = f"{1e3 * point.alone:.3f} ms" if point.alone else "none holds it"
    return (
        f"{point.gpus} GPUs : {point.lpus} LPUs, batch {point.batch}, m {point.micro_batches}: "
        f"{1e3 * point.tpot:.3f} ms, {1 / point.tpot:,.0f}/s a user, {point.per_rack:,.0f}/s a rack; "
        f"alone {alone}; {point.verdict(None)}, set by {point.binding}"
    )


def vendor(every: Sequence[tuple[str, int, Ratio]], gpu: str) -> None:
    """The vendor's operating point beside ours."""
    for model in dict.fromkeys(model for model, _, _ in every):
        speeds = [1 / p.tpot for name, context, p in every if name == model and context == 400_000 and p.tpot]
        if speeds:
            said = "reached" if max(speeds) >= VENDOR else "missed"
            print(
                f"vendor     {model} at 400k on {gpu}: {max(speeds):,.0f} tokens/s a user at best; the "
                f"vendor projects {VENDOR} for a 2T mixture: {said} by our GPU model (launch by launch)"
            )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpu", default="r100")
    parser.add_argument("--places", nargs="*", help="models, or model@racks; the first four if not given")
    return parser.parse_args()


if __name__ == "__main__":
    main()
