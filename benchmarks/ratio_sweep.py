"""200 ratios of GPUs to LPUs for llama-3.1-70b on one LPX rack, and the best one against a published form.

The sweep is `lpu ratios`: hop programs are compiled, GPUs and links modelled. A point is valid if it has a
time or a reason why it has none. Beside it stands the optimum r* of arXiv 2601.21351 (facts/afd.md section
1.4): its lines are laid through two points of each stage, and it is compared with GPUs added 8 by 8 (one
replica) at a fixed batch for each. The exit code is 1 if a point is not valid.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from measure import machine, peak_gb, show

from compiler.hops import compile_hops
from compiler.options import CompileOptions
from fabric.catalog import gpu_spec
from lpu import api
from lpu.afd.machines import LPUS_PER_RACK, lpus_of
from lpu.afd.options import RatioPoints
from lpu.afd.ratios import GPUS_PER_RACK, Ratio, RatioSweep
from lpu.afd.times.hops import HopTimes, hop_times, pace
from lpu.gpu.pool import GpuPool
from lpu.gpu.share import GpuShare
from lpu.gpu.units import PS_PER_SECOND, cycles_ps, picoseconds
from lpu.inputs.files import read_bridge, read_rack
from lpu.inputs.model import of_micro_batch
from lpu.inputs.open import open_model
from lpu.pingpong.closed_forms import LinearTime, best_ratio

GPUS = (8, 16, 32, 64, 128)
BATCHES = (12, 24, 48, 96, 192, 384, 480, 768, 960, 1536)
MICRO_BATCHES = (1, 2, 3, 4)
REPLICAS = range(1, 17)  # of 8 GPUs each, for the check
WITHIN = 10  # percent; what the paper states for its own simulator


def main() -> None:
    args = arguments()
    print(machine())
    print(
        f"{args.model} on {args.rack} with tp {args.tp} beside 8 to 128 h200, {args.context} tokens of KV\n"
    )
    start = time.perf_counter()
    found = api.ratios(
        args.model,
        RatioPoints(gpus=GPUS, batches=BATCHES, micro_batches=MICRO_BATCHES, kv_tokens=args.context),
        rack=args.rack,
        options=CompileOptions(tp=args.tp),
    )
    seconds = time.perf_counter() - start
    show("seconds for the sweep (measured)", seconds, "s", 60)
    print(f"most memory (measured)                {peak_gb():>10.2f} GB")
    valid = sum(point.tpot is not None or bool(point.refused) for point in found.points)
    whole = len(GPUS) * len(BATCHES) * len(MICRO_BATCHES)
    ok = valid == whole == len(found.points)
    share = 100 * valid / whole
    print(f"valid      {valid} of {whole} points, {share:g} % (goal: 100 %, {'met' if ok else 'missed'})")
    told(found)
    checked(args)
    if not ok:
        raise SystemExit(1)


def told(found: RatioSweep) -> None:
    """The best point, where dividing loses, and what was refused (modelled; a projection)."""
    verdicts = Counter(point.verdict(None) for point in found.points)
    print("verdicts   " + ", ".join(f"{name} {count}" for name, count in sorted(verdicts.items())))
    reasons = Counter(point.refused.split(":")[0] for point in found.points if point.refused)
    for stage, count in sorted(reasons.items()):
        one = next(point for point in found.points if point.refused.startswith(stage))
        print(f"refused    {count} by {stage}, such as: {one.refused}")
    print("best       " + (line(found.best) if found.best else "none has a time"))
    for point in found.points:
        if point.verdict(None) == "wins":
            print(f"wins       {line(point)}; {point.alone_per_rack:,.0f} of these GPUs alone")
    alone = max(found.points, key=lambda point: point.alone_per_rack)
    print(
        f"GPUs alone {alone.gpus} GPUs, batch {alone.batch}: {alone.alone_per_rack:,.0f} tokens/s a rack "
        "of 72"
    )
    print(f"losing     {found.losing}")
    print("basis      hops exact; GPUs, links, periods modelled; a projection\n")


def line(point: Ratio) -> str:
    assert point.tpot is not None
    return (
        f"{point.gpus} GPUs : {point.lpus} LPUs, batch {point.batch}, m {point.micro_batches}: "
        f"{1000 * point.tpot:.3f} ms a token, {point.per_rack:,.0f} tokens/s a rack, {point.verdict(None)}, "
        f"set by {point.binding}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """r*: replicas by the closed form. Stages in microseconds at the fitted size."""

    replicas: Fraction
    attention: float
    up: float


def checked(args: argparse.Namespace) -> None:
    """The optimum along equal replicas, counted and by the closed form."""
    opened = open_model(args.model, batch=1, context=(args.context,))
    config = opened.config
    assert config is not None
    rack, bridge, pool = (
        read_rack(args.rack),
        read_bridge("spectrum-x"),
        GpuPool(spec=gpu_spec("h200"), gpus=8),
    )
    shares = [
        GpuShare(config=config, pool=pool, replicas=count, bridge=bridge, kv="bf16") for count in REPLICAS
    ]

    @cache
    def hops(rows: int) -> tuple[HopTimes, int]:
        part = of_micro_batch(opened, rows).source()
        program, split = compile_hops(part, rack, CompileOptions(tp=args.tp), bridge)
        return hop_times(program, split), lpus_of(program)

    m = args.micro_batches
    for rows in args.rows:
        points: list[Ratio] = []
        for share in shares:
            batch = m * rows * share.replicas
            times, lpus = hops(rows * share.replicas)
            found = pace(share, times, batch, m, args.context)
            tpot = float(found.period) / PS_PER_SECOND
            points.append(
                Ratio(
                    gpus=share.gpus,
                    lpus=lpus,
                    batch=batch,
                    micro_batches=m,
                    tpot=tpot,
                    alone=found.alone / PS_PER_SECOND,
                    binding=found.binding,
                )
            )
        best = max(range(len(points)), key=lambda i: points[i].per_rack)
        few, many = hops(2 * rows), hops(16 * rows)
        fit = fitted(shares[0], (2 * rows, few), (16 * rows, many), rows, args.context)
        report(rows, points, best, fit)


def fitted(
    share: GpuShare,
    few: tuple[int, tuple[HopTimes, int]],
    many: tuple[int, tuple[HopTimes, int]],
    rows: int,
    context: int,
) -> Fit:
    """Lines through two points of each stage, and r* of them.

    A device of the formula is as many replicas as take the share of a rack that the LPUs take.
    """
    layers = share.config.layers
    ends = (share.embed(rows) + share.head(rows)) // layers  # on the attention pool, spread over its layers
    sizes = (context // 2, 2 * context)
    attention = through(
        *((rows * size, ends + picoseconds(share.attention(rows, size).seconds)) for size in sizes)
    )
    ffn = through(*((size, cycles_ps(max(times.cycles), times.clock_hz)) for size, (times, _) in (few, many)))
    up = through(*((n, share.latency + share.copied(n * few[1][0].up_bytes, n)) for n in (rows, 2 * rows)))
    device = Fraction(few[1][1], LPUS_PER_RACK) / Fraction(share.pool.gpus, GPUS_PER_RACK)
    kv_tokens = Fraction(rows * context)
    of_device = LinearTime(slope=up.slope / device, fixed=up.fixed)  # its replicas have a link each
    found = best_ratio(attention, ffn, of_device, kv_tokens, round(rows * device)) * device
    return Fit(replicas=found, attention=float(attention.at(kv_tokens)) / 1e6, up=float(up.at(rows)) / 1e6)


def through(one: tuple[int, int], other: tuple[int, int]) -> LinearTime:
    """The line through two points."""
    slope = Fraction(other[1] - one[1], other[0] - one[0])
    return LinearTime(slope=slope, fixed=one[1] - slope * one[0])


def report(rows: int, points: Sequence[Ratio], best: int, fit: Fit) -> None:
    nearest = min(range(len(points)), key=lambda i: abs(i + 1 - fit.replicas))
    away = 100 * (float(fit.replicas) / (best + 1) - 1)
    less = 100 * (1 - points[nearest].per_rack / points[best].per_rack)
    print(
        f"check      {rows} rows per replica of 8 GPUs and micro-batch, attention {fit.attention:.1f} us, "
        f"up {fit.up:.1f} us"
    )
    print("  counted  " + line(points[best]))
    print(
        f"  r*       {float(fit.replicas):.2f} replicas = {8 * float(fit.replicas):.0f} GPUs: {away:+.1f} % "
        f"of the counted optimum ({best + 1} replicas), the nearest point gives {less:.1f} % less "
        f"(goal: within {WITHIN} %, {'met' if less <= WITHIN else 'missed'})",
        flush=True,
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="llama-3.1-70b")
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--micro-batches", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 16, 32])
    return parser.parse_args()


if __name__ == "__main__":
    main()
