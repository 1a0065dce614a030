"""1000 tokens of a real hop program beside GPUs whose times jitter: what the LPUs do, and what it costs.

The cycles of a hop come from the program of llama-3.1-70b's FFNs (exact), the period from the ping-pong
schedule (modelled). Each hop's GPU time is drawn (lognormal: assumed); the LPUs wait for a slot, with slack
for the target probability of a miss, and once without. What `lpu/pingpong/boundary.py` reports of the
draws is held against a walk through every hop in plain integers: how many were late, what each paid, and the
LPUs' cycles of a token. With one seed and one target the same draws are late at any jitter: only the slack
differs. The exit code is 1 if the LPUs' cycles vary, a missed slot costs other than its period, or the
count is no likely draw.
"""

import argparse
import time
from collections import Counter
from dataclasses import replace
from math import sqrt

from measure import machine

from compiler.options import CompileOptions
from lpu import api
from lpu.afd.modes.afd import Afd
from lpu.afd.options import Gpus
from lpu.afd.report import AfdReport
from lpu.gpu.request import Request
from lpu.pingpong.boundary import Boundary, SlotReport, lognormal, slots

JITTERS = (0.0, 0.01, 0.05, 0.2)
DEVIATIONS = 4.0  # of a counted share from its probability, by chance less than once in 15,000


def main() -> None:
    args = arguments()
    print(machine())
    print(
        f"{args.model} on {args.rack} with tp {args.tp} beside {args.gpus} h200, {args.context} tokens of "
        f"KV, batch {args.batch}, m {args.micro_batches}; slack for a miss probability of {args.target:g}, "
        f"seed {args.seed}\n\n"
        "| jitter | slack, cycles | period, cycles | hops | LPU cycles a token | variance | late hops "
        "| analytic | deviations | slots missed | at most by a hop | added, periods "
        "| waits, cycles a token |\n|" + "---|" * 13
    )
    good, digests = True, set[str]()
    start = time.perf_counter()
    for jitter in JITTERS:
        found = with_jitter(args, jitter)
        digests.add(dict(found.machine)["digest"])
        report = found.boundary
        assert report is not None
        good &= shown(report)
        if jitter:
            bare = replace(report.boundary, slack_cycles=0)
            good &= shown(slots(bare, steps=len(report.lpu_cycles), hops=report.hops, seed=report.seed))
    print(
        f"\n{time.perf_counter() - start:.1f} s, the program compiled and checked {len(JITTERS)} times "
        f"(measured); digest {', '.join(sorted(digests))[:16]}, {len(digests)} in all\n"
        "LPU cycles: exact. Jitter: assumed. Slots and periods: modelled.\nGoals: variance 0, a missed slot "
        f"costs its period to the cycle, counted within {DEVIATIONS:g} standard deviations of\nanalytic, one "
        f"program whatever the jitter: {'met' if good and len(digests) == 1 else 'missed'}"
    )
    if not good or len(digests) > 1:
        raise SystemExit(1)


def with_jitter(args: argparse.Namespace, jitter: float) -> AfdReport:
    """What `lpu afd` reports of GPU times that deviate by a share of their mean."""
    mode = Afd(
        micro_batches=args.micro_batches,
        gpu_jitter=jitter,
        miss_probability=args.target,
        jitter_seed=args.seed,
    )
    request = Request(prompt_tokens=args.context - 256, new_tokens=512, batch=args.batch)
    about = Gpus(gpus=args.gpus), args.rack, CompileOptions(tp=args.tp)
    return api.afd(args.model, request, mode=mode, gpus=about[0], rack=about[1], options=about[2])


def shown(report: SlotReport) -> bool:
    """A row of the table, and whether it is as it must be."""
    one = report.boundary
    taken, late, most, added = replayed(one, report)
    chance, draws = one.miss_probability, report.hops * len(report.lpu_cycles)
    spread = sqrt(chance * (1 - chance) / draws)
    away = abs(late / draws - chance) / spread if spread else float(late > 0)
    print(
        f"| {one.jitter:g} | {one.slack_cycles:,} | {one.period_cycles:,} | {report.hops} "
        f"| {next(iter(taken)):,} | {report.lpu_cycles.var():g} | {late:,} of {draws:,} = {late / draws:.2e} "
        f"| {chance:.2e} | {away:.1f} | {report.misses:,} | {most} | {added / one.period_cycles:,g} "
        f"| {report.waiting_cycles.mean():,.0f} |",
        flush=True,
    )
    return (
        list(taken) == [int(report.lpu_cycles[0])]
        and float(report.lpu_cycles.var()) == 0
        and late == report.late_hops
        and added == report.added_cycles == report.misses * one.period_cycles
        and away <= DEVIATIONS
    )


def replayed(one: Boundary, report: SlotReport) -> tuple[Counter[int], int, int, int]:
    """Every hop of every token once more in plain integers, from the same draw.

    (LPU cycles of tokens with how often each occurs, late hops, most slots that one missed, cycles that
    tokens took longer than with every hop on its first slot).
    """
    factors = lognormal(one.jitter, report.hops * len(report.lpu_cycles), report.seed).tolist()
    taken: Counter[int] = Counter()
    late = most = added = 0
    for token in range(len(report.lpu_cycles)):
        now = busy = 0
        for hop in range(report.hops):
            gpu_ps = round(one.gpu_ps * factors[token * report.hops + hop])
            arrival = -(-gpu_ps * one.clock_hz // 10**12)
            slot, missed = one.offset_cycles, 0
            while slot < arrival:
                slot, missed = slot + one.period_cycles, missed + 1
            begin = now + slot
            now = begin + one.lpu_cycles
            busy += now - begin
            late, most = late + bool(missed), max(most, missed)
        taken[busy] += 1
        added += now - report.hops * (one.offset_cycles + one.lpu_cycles)
    return taken, late, most, added


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="llama-3.1-70b")
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--micro-batches", type=int, default=2)
    parser.add_argument("--target", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
