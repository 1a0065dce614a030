"""Placements: no heuristic beats a proved optimum; what compiles of the catalog is legal on its rack."""

from functools import cache
from itertools import product

import numpy as np
from models_named import of_model
from pairs import source

from compiler.errors import CapacityError, CompileError, OptionError
from compiler.options import LAYOUTS, STRATEGIES, CompileOptions
from compiler.pipeline import compile_program
from compiler.place.groups import tables_of
from compiler.place.registry import search
from compiler.place.truth import Shape, drawn
from fabric.catalog import rack_names
from fabric.rack import load_rack
from lpu.check.check import check, require
from lpu.prove.programs import prove_programs, require_proof
from models.catalog import catalog, catalog_names
from models.step import family_step

PROVE = 1_000_000  # steps of the exhaustive search
HEURISTICS = tuple(name for name in STRATEGIES if name not in ("metis", "cpsat", "exhaustive"))
MAY_OVERFILL = ("spectral",)  # cuts by size, not by words: its placement may hold more than a chip has
SHAPES: tuple[Shape, ...] = ("chain", "diamonds", "experts")
CONTEXT = 1024
MOST = 10**10  # parameters of a model: larger ones are scheduled by tests and benchmarks of their own


def hold_optimum(case: int) -> str:
    """A drawn problem: exhaustive search proves its optimum; no other placement or heuristic is better."""
    random = np.random.default_rng(case)
    problem = drawn(SHAPES[case % 3], int(random.integers(4, 8)), int(random.integers(2, 4)), case % 2, case)
    cost = problem.cost()
    tables = tables_of(cost)
    every = product(range(problem.trays), repeat=len(problem.needs))
    values = [tables.value(at) for at in every if tables.fits(at)]
    try:
        best = cost.estimate(search("exhaustive", cost.shards, cost.rack, cost, 0, PROVE)).value
    except CapacityError:
        assert not values, problem.name
        return "refused"
    assert cost.proved
    assert best == min(values), problem.name
    for name in HEURISTICS:
        fresh = problem.cost()
        try:
            found = fresh.estimate(search(name, fresh.shards, fresh.rack, fresh, case, 2000)).value
        except CompileError:
            continue  # a dynamic program for chains, or nothing that fits was found
        assert found >= best or name in MAY_OVERFILL, f"{problem.name}, {name}: {found} < {best}"
    return "held"


@cache
def programs() -> list[tuple[str, str, int, str]]:
    """Model, rack, tensor parallelism and layout of every program of the smaller models of the catalog."""
    racks = [load_rack(name) for name in rack_names()]
    return [
        (model, rack.name, tp, layout)
        for model in catalog_names()
        if catalog(model).parameters() < MOST
        for rack in racks
        for tp in (2**i for i in range(rack.chips.bit_length()))
        for layout in LAYOUTS
        if rack.chips % tp == 0
    ]


@cache
def _small() -> frozenset[str]:
    """Models of less than 2 G parameters and racks of at most 72 chips, by name."""
    models = (name for name in catalog_names() if catalog(name).parameters() < 2 * 10**9)
    return frozenset(models) | frozenset(name for name in rack_names() if load_rack(name).chips <= 72)


def quick(case: int) -> bool:
    """Whether a program of the catalog is one of a small model on a small rack."""
    model, rack, _, _ = programs()[case]
    return model in _small() and rack in _small()


def hold_catalog(case: int) -> str:
    """A program of the catalog: "held" if legal and proved, "refused" if it does not fit or cut so."""
    model, rack, tp, layout = programs()[case]
    config = catalog(model)
    context = min(CONTEXT, config.max_context)
    step = family_step(config, batch=1, context=context)
    try:
        program = compile_program(
            source(step, (context,)), load_rack(rack), CompileOptions(tp=tp, layout=layout)
        )
    except (CapacityError, OptionError):
        return "refused"
    require(check(program, context))
    require_proof(prove_programs(of_model(program, config)))
    return "held"
