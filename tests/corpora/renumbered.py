"""Racks whose chips are called by other numbers: what is compiled for them takes equally many cycles."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from compiler.options import CompileOptions
from compiler.pipeline import compile_pair, compile_program
from fabric.catalog import chip_spec
from fabric.chip import stated
from fabric.rack import Rack, build_rack
from fabric.topology import Kind, Level, RackSpec
from lpu.check.check import check, require
from lpu.inputs.model import OpenModel
from lpu.inputs.open import open_model

CHIP = chip_spec("tiny").with_numbers("test", slot_cycles=4)
NEAR = 1.02  # cycles of a relabelled rack over those of any other: at most
SEEDS = 20
OPTIONS = {
    "latency": CompileOptions(tp=4, layout="row"),
    "throughput": CompileOptions(tp=2, objective="throughput"),
}
KINDS = (*OPTIONS, "prefill")


def built(chips: int = 0, links: tuple[tuple[int, int, int, int], ...] = (), *levels: Level) -> Rack:
    """A rack of chips of the tests from links, or from levels."""
    spec = RackSpec(name="drawn", chip="tiny", forward_ns=50, chips=chips, links=links, levels=levels)
    return build_rack(replace(spec, sources=stated(spec.numbers(), (), "test")), CHIP)


def level(name: str, kind: Kind, size: int, shape: tuple[int, ...] = (), links: int = 0) -> Level:
    """A level of 4 lanes and 100 ns, between trays 2 lanes and 200 ns."""
    lanes, hop = (2, 200) if links else (4, 100)
    return Level(name=name, kind=kind, size=size, lanes=lanes, hop_ns=hop, shape=shape, links=links)


def irregular(chips: int = 12) -> Rack:
    """A rack of no form: a drawn tree, and as many links again, of drawn lanes and nanoseconds."""
    random = np.random.default_rng(11)
    pairs = {(int(random.integers(b)), b): None for b in range(1, chips)}
    while len(pairs) < 2 * chips:
        a, b = sorted(random.choice(chips, 2, replace=False).tolist())
        pairs[a, b] = None
    numbers = ((int(random.integers(1, 9)), int(random.integers(50, 400))) for _ in pairs)
    return built(chips, tuple((a, b, *one) for (a, b), one in zip(pairs, numbers, strict=True)))


RACKS: dict[str, Callable[[], Rack]] = {
    "ring": lambda: built(0, (), level("ring", "ring", 8)),
    "torus": lambda: built(0, (), level("torus", "torus", 8, (2, 4))),
    "mesh": lambda: built(0, (), level("row", "line", 4), level("column", "line", 3)),
    "dragonfly": lambda: built(0, (), level("tray", "all-to-all", 4), level("rack", "dragonfly", 4, (), 2)),
    "irregular": irregular,
}


def relabelled(rack: Rack, seed: int) -> Rack:
    """The same rack given link by link, its chips called by drawn numbers."""
    name, links = np.random.default_rng(seed).permutation(rack.chips), rack.links
    hop = links.hop_cycles  # a tiny chip has a cycle a nanosecond
    table = np.stack([name[links.a], name[links.b], links.lanes, hop])[:, links.a < links.b]
    return built(rack.chips, tuple((a, b, lanes, ns) for a, b, lanes, ns in table.T.tolist()))


def cycles(rack: Rack, kind: str) -> int:
    """Cycles of a step, of an interval, or of a step and a chunk, for a group of four chips."""
    if kind == "prefill":
        programs = compile_pair(model().source(), model().source(8), rack, CompileOptions(tp=4))
    else:
        programs = (compile_program(model().source(), rack, OPTIONS[kind]),)
    for program in programs:
        require(check(program, max(program.manifest.contexts)))
    body = programs[0].manifest.body
    if body.kind == "waves":
        return max(one.interval for one in body.contexts.values())
    return sum(max(program.manifest.cycles.values()) for program in programs)


@cache
def model(divided: bool = False) -> OpenModel:
    """The model of every program; divided: of hops."""
    return open_model("llama-tiny", context=[80], divided=divided)


@cache
def as_it_is(name: str, kind: str) -> int:
    """Cycles of the rack of that name with its own numbers."""
    return cycles(RACKS[name](), kind)


def hold_numbering(case: int) -> str:
    """A rack, a kind of program and a seed: as many cycles as with the rack's own numbers, within 2 %."""
    name, kind = list(RACKS)[case // SEEDS // len(KINDS)], KINDS[case // SEEDS % len(KINDS)]
    now, was = cycles(relabelled(RACKS[name](), case % SEEDS), kind), as_it_is(name, kind)
    assert max(now, was) <= NEAR * min(now, was), f"{name}, {kind}: {now} cycles, {was} with its own numbers"
    return "held"


SIZE = len(RACKS) * len(KINDS) * SEEDS
