"""`lpu plan`: configurations that meet targets under a load, each verified by a replay.

Programs are compiled once for every rack, objective and batch. What cannot meet the targets whatever the
queues do is refused by arithmetic, with both numbers; all others are replayed.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from compiler.errors import CompileError, OptionError
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.program import Program
from fabric.rack import Rack
from lpu.afd.machines import Machines, lpus_of, machines
from lpu.afd.report import CAUTION, PROJECTION
from lpu.folder import Progress, quiet, require_legal
from lpu.inputs.open import Model, open_model
from lpu.keywords import ModelKeywords, model_keywords
from lpu.plan.divided import divided
from lpu.plan.options import PlanOptions
from lpu.plan.verdict import Configuration, Judged, Ranking
from lpu.traffic.build import context_for
from lpu.traffic.machine import prefiller, served, shares_for
from lpu.traffic.outcome import Outcome
from lpu.traffic.readers.drawn import Arrivals, DrawnTraffic
from lpu.traffic.reports.percentiles import Quantiles, spread
from lpu.traffic.served import Served
from lpu.traffic.simulation.simulate import simulate

BUCKET = 1024
STABLE = 1.0  # a part that is busy longer than this share has a queue without end


@dataclass(frozen=True, slots=True, kw_only=True)
class Machinery:
    """A configuration, and the machine of its replay."""

    configuration: Configuration
    machine: Served


def plan(
    model: Model,
    asked: PlanOptions,
    *,
    progress: Progress = quiet,
    **keywords: Unpack[ModelKeywords],
) -> Ranking:
    """What `lpu plan` reports. Raises FileError or OptionError; what does not compile is a refusal."""
    about = dict(model_keywords("plan", keywords))
    trace = drawing(asked)
    requests = trace.trace()
    good: list[Judged] = []
    refused: list[Judged] = []
    every = list(_programs(model, asked, about, progress)) if "pd" in asked.modes else []

    def judge(candidate: Machinery) -> None:
        found = _verdict(candidate, asked, lambda one: simulate(requests, one))
        found = replace(found, **commands(model, asked, found.configuration, about))
        (refused if found.reason else good).append(found)

    for number, (configuration, program, there, why) in enumerate(every):
        progress("plan: replay", number, len(every))
        if program is None:
            refused.append(Judged(configuration=configuration, reason=why))
            continue
        for candidate in _candidates(configuration, program, there, asked, refused):
            judge(candidate)
    context = context_of(model, asked, bool(about.get("trust")))
    for chosen, machine in divided(model, asked, about, context, requests, refused, progress):
        judge(Machinery(configuration=chosen, machine=machine))
    return Ranking(
        asked=_asked(asked),
        label=PROJECTION,
        good=tuple(sorted(good, key=_rank)),
        refused=tuple(sorted(refused, key=_rank)),
        drawing=drawing_text(trace),
        notes=(
            CAUTION,
            "no price of an LPX is published; power of LPUs is assumed (a band), of GPUs that of the package",
        ),
    )


def _rank(one: Judged) -> tuple[Any, ...]:
    """The cheapest first, among equals the larger margin."""
    chosen = one.configuration
    return (
        chosen.racks,
        -(one.margin or 0.0),
        chosen.rack,
        chosen.mode,
        chosen.objective,
        chosen.batch,
        chosen.gpus,
        chosen.replicas,
    )


def drawing(asked: PlanOptions) -> DrawnTraffic:
    """The load as requests are drawn. Raises OptionError for one that there cannot be."""
    try:
        return DrawnTraffic(
            requests=asked.requests,
            arrivals=Arrivals(kind="poisson", rate=asked.rate),
            input=replace(asked.isl.lengths(), least=2),
            output=asked.osl.lengths(),
            seed=asked.seed,
            name="plan",
        )
    except ValueError as error:
        raise OptionError(
            "plan", "load", str(error), "Give another --rate, --isl, --osl or --requests."
        ) from error


def drawing_text(trace: DrawnTraffic) -> str:
    """The same as a file for `lpu replay`."""

    def flow(record: Any) -> str:
        kept = {key: value for key, value in asdict(record).items() if value not in (None, (), [])}
        return "{" + ", ".join(f"{key}: {value}" for key, value in kept.items()) + "}"

    arrivals = f"{{kind: poisson, rate: {trace.arrivals.rate}}}"
    lines = [f"requests: {trace.requests}", f"seed: {trace.seed}", f"arrivals: {arrivals}"]
    return "\n".join([*lines, f"input: {flow(trace.input)}", f"output: {flow(trace.output)}", ""])


def context_of(model: Model, asked: PlanOptions, trust: bool) -> int:
    """The bucket for the longest request, at most the model's longest context."""
    longest = asked.isl.most + asked.osl.most - 1
    found = context_for(longest, model, trust)
    return found[0] if found else longest


def _programs(
    model: Model, asked: PlanOptions, about: dict[str, Any], progress: Progress
) -> Iterator[tuple[Configuration, Program | None, dict[int, Machines], str]]:
    """Each rack, objective and batch: the program, or why there is none, and the GPUs beside it."""
    context = context_of(model, asked, bool(about.get("trust")))
    given: dict[str, Any] = {**about, "context": context}
    open_model(model, **given).need_decoder("plan")
    for rack in asked.racks:
        there = {count: machines(rack, asked, count) for count in asked.gpus if count}
        found = there[max(there)].rack if there else machines(rack, asked, 1).rack
        for objective in asked.objectives:
            for batch in asked.batches:
                chosen = Configuration(rack=rack, objective=objective, batch=batch, context=context)
                try:
                    program = _compiled(model, found, chosen, about, progress)
                except CompileError as error:
                    yield chosen, None, there, " ".join(str(error).split())
                    continue
                manifest = program.manifest
                users = (manifest.waves.users if manifest.waves else 1) * manifest.rows
                yield replace(chosen, tp=manifest.tp, chips=lpus_of(program), users=users), program, there, ""


def _compiled(
    model: Model, rack: Rack, chosen: Configuration, about: dict[str, Any], progress: Progress
) -> Program:
    given: dict[str, Any] = {**about, "batch": chosen.batch, "context": chosen.context}
    opened = open_model(model, **given)
    program = compile_program(opened.source(), rack, CompileOptions(objective=chosen.objective), progress)
    require_legal(program, None, progress)
    return program


def _candidates(
    configuration: Configuration,
    program: Program,
    there: dict[int, Machines],
    asked: PlanOptions,
    refused: list[Judged],
) -> Iterator[Machinery]:
    """The program with each number of GPUs and each way to deal them; those that hold nothing are refused."""
    for count in asked.gpus:
        if not count:
            yield Machinery(configuration=configuration, machine=served(program))
            continue
        beside = replace(configuration, gpus=count, gpu=there[count].gpu.name)
        try:
            every = shares_for(program, there[count])
        except CompileError as error:
            refused.append(
                Judged(configuration=replace(beside, replicas=1), reason=" ".join(str(error).split()))
            )
            continue
        for share in every:
            dealt = replace(beside, replicas=share.replicas)
            try:
                share.require_fit(1, configuration.context)
            except CompileError as error:
                refused.append(Judged(configuration=dealt, reason=" ".join(str(error).split())))
                continue
            machine = served(program, prefiller(share, program, "none", BUCKET))
            yield Machinery(configuration=dealt, machine=machine)


def _verdict(candidate: Machinery, asked: PlanOptions, replayed: Any) -> Judged:
    """By arithmetic where that is enough, else by a replay."""
    machine, chosen = candidate.machine, candidate.configuration
    slots, gpus = busy(machine, asked)
    known = Judged(configuration=chosen, slots_busy=slots, gpus_busy=gpus)
    tpot = machine.paces[0 if machine.gpus_step else -1].turn / machine.clock_hz
    if tpot * 1000 > asked.tpot:
        reason = f"TPOT is {tpot * 1000:.4f} ms, the target {asked.tpot:g} ms"
        return replace(known, reason=reason, tpot=tpot)
    for name, share in (("slots of the LPUs", slots), ("GPUs", gpus or 0.0)):
        if share >= STABLE:
            reason = f"the {name} would be busy {share:.0%} of the time, a queue needs less than 100 %"
            return replace(known, reason=reason, tpot=tpot)
    return _replayed(known, asked, replayed(machine))


def busy(machine: Served, asked: PlanOptions) -> tuple[float, float | None]:
    """Shares of time that slots and GPUs are busy at the mean lengths; None without GPUs."""
    pace, prefill = machine.paces[-1], machine.prefill
    rate = asked.rate / machine.clock_hz
    steps = asked.osl.mean + (0 if prefill else asked.isl.mean - 1)
    if machine.gpus_step:  # the shortest steps, and the first token is the prefill's
        pace, steps = machine.paces[0], steps - 1
    if prefill is None:
        return rate * steps * pace.turn / machine.slots, None
    cost = prefill.cost(asked.isl.mean, 0)
    return rate * steps * pace.turn / machine.slots, rate * cost.compute / prefill.replicas


def _replayed(known: Judged, asked: PlanOptions, found: Outcome) -> Judged:
    """What the replay says of the targets."""
    ttft, tpot = spread(found.ttft), spread(found.tpot)
    first = _at(ttft, asked.percentile)
    later = _at(tpot, asked.percentile) if tpot else 0.0
    good = found.meets(asked.ttft / 1000, asked.tpot / 1000, None)
    tokens = int(found.outputs[found.served].sum()) / (found.span_cycles / found.clock_hz)
    watts = known.configuration.kilowatts
    out = replace(
        known,
        ttft=first,
        tpot=later,
        margin=min(1 - first * 1000 / asked.ttft, 1 - later * 1000 / asked.tpot),
        good=float(np.mean(good)),
        joules_per_token=None if watts is None else tuple(one * 1000 / tokens for one in watts),
    )
    for name, seconds, target in (("TTFT", first, asked.ttft), ("TPOT", later, asked.tpot)):
        if seconds * 1000 > target:
            seen = f"{seconds * 1000:,.1f} ms in the replay"
            return replace(out, reason=f"{name} p{asked.percentile:g} is {seen}, the target {target:g} ms")
    return out


def _at(found: Quantiles | None, percentile: float) -> float:
    """The percentile at the upper end of its interval: a target is to be met for sure."""
    if found is None:
        return float("inf")
    one = found.at(percentile / 100)
    return one.high if np.isfinite(one.high) else found.most


def commands(model: Model, asked: PlanOptions, one: Configuration, about: dict[str, Any]) -> dict[str, str]:
    """What compiles a configuration, and what replays the load on it (plan.yaml: the file of the load)."""
    name = model if isinstance(model, str | Path) else "MODEL"
    made = f"{name} --rack {one.rack} --context {one.context} --batch {one.batch} --objective {one.objective}"
    if about.get("kv"):
        made += f" --kv {about['kv']}"
    targets = f"--ttft-ms {asked.ttft:g} --tpot-ms {asked.tpot:g}"
    if one.mode != "pd":
        small = f" --drafter {asked.drafter}" if one.mode == "draft" else ""
        made = made.replace(f" --objective {one.objective}", "") + f" --mode {one.mode}{small}"
        made += f" --gpus {one.gpus} --gpu {one.gpu}"
        tokens = f"--prompt-tokens {asked.isl.mean} --new-tokens {asked.osl.mean}"
        return {
            "compiled": f"lpu afd {made} {tokens} -o program",
            "replayed": f"lpu replay plan.yaml {made} {targets}",
        }
    gpus = f"--gpus {one.gpus}"
    if one.gpus:
        gpus += f" --gpu {one.gpu} --gpu-tp {one.gpus // one.replicas}"
    return {
        "compiled": f"lpu compile {made} -o program",
        "replayed": f"lpu replay plan.yaml {made} {gpus} --cache none {targets}",
    }


def _asked(asked: PlanOptions) -> dict[str, Any]:
    return {
        "requests_per_second": asked.rate,
        "input_tokens": {"mean": asked.isl.mean, "sd": asked.isl.sd, "most": asked.isl.most},
        "output_tokens": {"mean": asked.osl.mean, "sd": asked.osl.sd, "most": asked.osl.most},
        "ttft_ms": asked.ttft,
        "tpot_ms": asked.tpot,
        "percentile": asked.percentile,
        "replayed_requests": asked.requests,
    }
