"""One point of a comparison: a strategy searches, the real scheduler compiles, the checker checks.

A task is plain JSON, so that it can be hashed and sent to another process or machine; so is what comes back.
Figures of `Point` are modelled; those of `Point.measured` were timed.
"""

import hashlib
import inspect
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compiler.analyse.bounds import bounds
from compiler.errors import CompileError, advising
from compiler.options import STRATEGIES, CompileOptions
from compiler.pipeline import compile_placed, compile_program, placement_problem
from compiler.place.cost import CostModel, Exchanges
from compiler.place.problem import Placement, Shards
from compiler.place.registry import search, strategy
from compiler.program.isa import WORD_BYTES
from compiler.program.program import Program
from compiler.source import Traced, traced
from fabric.numbering import as_given, numbering
from fabric.rack import Rack
from lpu.check.check import require
from lpu.check.findings import HazardError
from lpu.compare.loads import loads, stages
from lpu.folder import check_program
from lpu.inputs.files import read_rack
from lpu.inputs.model import OpenModel
from lpu.inputs.open import open_model

DEFAULT = "default"  # the strategy of the point that is what `lpu compile` does when it is given no placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The definition of a point: model, options that override its file, rack, strategy and its limits.

    tp: 0 for the default point: chosen by `lpu compile`. certify: number of tokens to run.
    """

    model: str
    rack: str
    strategy: str
    chosen: dict[str, Any] = field(default_factory=dict[str, Any])
    tp: int = 0
    layout: str = "column"
    seed: int = 0
    budget: int = 20_000
    alpha: int = 0
    certify: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The result of a task. error: why there is no program; figures are 0 then.

    period_cycles: the busiest unit class of a chip for one token. link_peak_cycles: the most loaded link.
    bound_cycles: the largest lower bound of this program. estimate: from the cost model. best: (evaluations,
    value) at each improvement of the search. busy_cycles, stage: by chip; stage -1: unused.
    """

    strategy: str
    seed: int
    tp: int = 0
    error: str = ""
    latency_cycles: int = 0
    microseconds: float = 0.0
    period_cycles: int = 0
    link_peak_cycles: int = 0
    max_bytes: int = 0
    hop_bytes: int = 0
    bound_cycles: int = 0
    clock_hz: int = 0
    estimate: dict[str, int] = field(default_factory=dict[str, int])
    evaluations: int = 0
    proved: bool = False
    best: list[list[int]] = field(default_factory=list[list[int]])
    busy_cycles: list[int] = field(default_factory=list[int])
    stage: list[int] = field(default_factory=list[int])
    weights: str = ""
    program_sha256: str = ""
    placement_sha256: str = ""
    logits_sha256: str = ""
    reference_sha256: str = ""
    measured: dict[str, float] = field(default_factory=dict[str, float])


def key(task: Task) -> str:
    """sha256 of everything that decides a point: task, current model, current rack and code."""
    opened = _opened(task.model, json.dumps(task.chosen, sort_keys=True), task.rack, bool(task.certify))
    body = [asdict(task), asdict(opened.model.about), opened.rack.to_json(), _code(task.strategy)]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@lru_cache
def _code(name: str) -> str:
    """sha256 of the sources of the compiler, of this file, and of a plug-in strategy."""
    here = Path(__file__)
    paths = [here, *sorted((here.parents[2] / "compiler").rglob("*.py"))]
    if name not in (DEFAULT, *STRATEGIES):
        try:
            paths.append(Path(inspect.getfile(strategy(name))))
        except (TypeError, OSError):  # a builtin, or an object that is called
            paths.append(Path(sys.modules[type(strategy(name)).__module__].__file__ or __file__))
    sha = hashlib.sha256(version("lpu-emulator").encode())
    for path in paths:
        sha.update(path.read_bytes())
    return sha.hexdigest()


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """The point of a task, both as JSON; what cannot be compiled or placed is a point with an error."""
    one = Task(**task)
    try:
        return asdict(_measured(one))
    except (CompileError, HazardError) as error:
        text = " ".join(str(error).split())
        return asdict(Point(strategy=one.strategy, seed=one.seed, tp=one.tp, error=text))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A model and a rack, and what compilations of them share in a process."""

    model: OpenModel
    rack: Rack
    traced: Traced
    exchanges: Exchanges


@lru_cache(maxsize=4)
def _opened(model: str, chosen: str, rack: str, certified: bool = False) -> _Opened:
    opened = open_model(model, **json.loads(chosen))
    if certified:
        opened.need_weights("compare --certify")
    return _Opened(model=opened, rack=read_rack(rack), traced=traced(opened.source()), exchanges={})


@lru_cache(maxsize=4)
def _shards(model: str, chosen: str, rack: str, tp: int, layout: str, ours: bool) -> tuple[Shards, int]:
    """The shards, and `cp`: the number of ranks over which the context of each KV head is divided.

    ours: for a strategy of ours, which sees the chips as the compiler numbers them.
    """
    opened = _opened(model, chosen, rack)
    asked = (numbering if ours else as_given)(opened.rack).rack
    return placement_problem(opened.traced, asked, CompileOptions(tp=tp, layout=layout))


Searched = tuple[CostModel, Placement]


def program_of(task: Task) -> Program:
    """The program of a point, compiled again. Raises CompileError or FileError."""
    return _made(task)[0]


def _measured(task: Task) -> Point:
    program, measured, searched = _made(task)
    return _point(task, _opened_for(task), program, measured, searched)


def _opened_for(task: Task) -> "_Opened":
    return _opened(task.model, json.dumps(task.chosen, sort_keys=True), task.rack, bool(task.certify))


def _made(task: Task) -> tuple[Program, dict[str, float], Searched | None]:
    """The program of a task, what was timed, and what was searched, if anything was."""
    chosen = json.dumps(task.chosen, sort_keys=True)
    opened = _opened_for(task)
    rack, start = opened.rack, time.perf_counter()
    if task.strategy == DEFAULT:
        options = CompileOptions(tp=task.tp or None, layout=task.layout)
        program = compile_program(opened.traced.source, rack, options)
        return program, {"compile_seconds": time.perf_counter() - start}, None
    ours = task.strategy in STRATEGIES
    shards, cp = _shards(task.model, chosen, task.rack, task.tp, task.layout, ours)
    numbers = numbering(rack) if ours else as_given(rack)
    cost = CostModel(shards, numbers.rack, task.alpha, opened.exchanges if ours else {})
    start = time.perf_counter()
    with advising(opened.model.about.kv):
        placement = search(task.strategy, shards, numbers.rack, cost, task.seed, task.budget)
    searched = time.perf_counter() - start
    start = time.perf_counter()
    options = CompileOptions(tp=task.tp, cp=cp, layout=task.layout, placement=task.strategy, seed=task.seed)
    program = compile_placed(opened.traced, rack, options, numbers.chips[placement])
    measured = {
        "search_seconds": searched,
        "compile_seconds": time.perf_counter() - start,
        "evaluations_per_second": cost.evaluations / max(searched, 1e-9),
    }
    return program, measured, (cost, placement)


def _point(
    task: Task,
    opened: _Opened,
    program: Program,
    measured: dict[str, float],
    searched: Searched | None = None,
) -> Point:
    """The figures of a compiled program, after its check and, with `task.certify`, its run."""
    start = time.perf_counter()
    for report in check_program(program).values():
        require(report)
    measured["check_seconds"] = time.perf_counter() - start
    manifest = program.manifest
    context = max(manifest.contexts)
    cycles, clock = manifest.cycles[context], manifest.clock_hz
    busy, link_peak, hop_words = loads(program, context)
    regions = manifest.region_table()[:, :, 1].sum(axis=1)
    logits, reference = _logits(task, opened.model, program) if task.certify else ("", "")
    found: dict[str, Any] = {}
    if searched is not None:
        cost, placement = searched
        found = {
            "estimate": asdict(cost.estimate(placement)),
            "evaluations": cost.evaluations,
            "proved": cost.proved,
            "best": [list(pair) for pair in _thinned(cost.best)],
            "placement_sha256": hashlib.sha256(placement.astype("<i8").tobytes()).hexdigest(),
        }
    return Point(
        strategy=task.strategy,
        seed=task.seed,
        tp=manifest.tp,
        latency_cycles=cycles,
        microseconds=cycles * 1e6 / clock,
        period_cycles=int(busy.max()),
        link_peak_cycles=link_peak,
        max_bytes=int(regions.max()) * WORD_BYTES,
        hop_bytes=hop_words * WORD_BYTES,
        bound_cycles=max(bound.cycles for bound in bounds(program, context)),
        clock_hz=clock,
        busy_cycles=busy.tolist(),
        stage=stages(program),
        weights=str(manifest.model.weights),
        program_sha256=manifest.digest,
        logits_sha256=logits,
        reference_sha256=reference,
        measured=measured,
        **found,
    )


def _thinned(best: list[tuple[int, int]], most: int = 200) -> list[tuple[int, int]]:
    """At most `most` of the improvements: first, last, and evenly between."""
    if len(best) <= most:
        return best
    return [best[i * (len(best) - 1) // (most - 1)] for i in range(most)]


def _logits(task: Task, model: OpenModel, program: Program) -> tuple[str, str]:
    """Digests of the logits of the run and, for the default point, of the single-device reference."""
    from lpu.decode.decoders import machine_of, reference_decode, restart
    from lpu.decode.generate import generate
    from lpu.inputs.prompts import default_prompts

    batch = program.manifest.rows
    prompts = default_prompts(batch, model.vocab)
    ran = generate(restart(machine_of(program, model)), prompts, task.certify, batch).digest
    if task.strategy != DEFAULT:
        return ran, ""
    return ran, generate(reference_decode(model), prompts, task.certify, batch).digest
