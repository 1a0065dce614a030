"""Bounds against legal schedules: made at random from a program's rows, or compiled for other machines."""

from collections import defaultdict
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.analyse.bounds import bounds, busiest_link, busiest_planes, busy_units, critical_path
from compiler.analyse.chain import PARTS, chain_totals, chains
from compiler.analyse.dataflow import Waits, edges, waits
from compiler.analyse.holds import holds
from compiler.options import CompileOptions
from compiler.program.isa import Columns
from compiler.program.manifest import Manifest
from compiler.program.program import Program
from fabric.rack import load_rack
from lpu import api
from lpu.inputs.files import ModelFile
from lpu.sweep.keys import changed

CONTEXT = 80


def step_bounds(rack: str, tp: int, key: str = "", value: str = "", batch: int = 1) -> dict[str, int]:
    """Bounds and cycles of llama-tiny on a rack with one number changed."""
    machine = changed(load_rack(rack), key, value) if key else load_rack(rack)
    model = ModelFile(model="llama-tiny", context=(64,), batch=batch)
    program = api.compile(model, rack=machine, options=CompileOptions(tp=tp, pp=1), check=False).program
    found = {bound.name: bound.cycles for bound in bounds(program, 64)}
    return found | {"cycles": int(program.manifest.cycles[64])}


def another_schedule(columns: Columns, pairs: np.ndarray, manifest: Manifest, random: Random) -> Columns:
    """The same rows in random order, each as early as its operands, its unit and its lanes allow.

    Units stay those of the program, lanes are any of the link's; no row starts before cycle 0.
    """
    hold = holds(columns, manifest).tolist()
    latency = (columns.t1 - columns.t0).tolist()
    lanes = {(a, b): count for a, b, count, _, _ in manifest.links}
    before: dict[int, list[int]] = defaultdict(list)
    after: dict[int, list[int]] = defaultdict(list)
    for one, other in pairs.tolist():
        before[other].append(one)
        after[one].append(other)
    left = {row: len(before[row]) for row in range(len(columns))}
    ready = [row for row in range(len(columns)) if not left[row]]
    free: dict[tuple[int, ...], list[int]] = {}
    start = [0] * len(columns)
    while ready:
        row = ready.pop(random.randrange(len(ready)))
        chip, peer, unit = int(columns.chip[row]), int(columns.peer[row]), int(columns.unit[row])
        name = (chip, -1, unit) if peer < 0 else (chip, peer)
        width = 1 if peer < 0 else int(columns.aux[row])
        slots = free.setdefault(name, [0] * (1 if peer < 0 else lanes[chip, peer]))
        slots.sort()
        start[row] = max([slots[width - 1], *(start[one] + latency[one] for one in before[row])])
        slots[:width] = [start[row] + hold[row]] * width
        for one in after[row]:
            left[one] -= 1
            if not left[one]:
                ready.append(one)
    t0 = np.array(start, np.int64)
    return replace(columns, t0=t0, t1=t0 + np.array(latency, np.int64))


def row_bounds(columns: Columns, chain: Waits, manifest: Manifest) -> tuple[int, ...]:
    hold = holds(columns, manifest)
    return (
        critical_path(columns, chain)[0],
        busy_units(columns, chain, hold, manifest),
        busiest_planes(columns, hold, manifest),
        busiest_link(columns, hold, manifest),
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_bound_exceeds_any_legal_schedule_of_the_rows(
    piped_program: Program, pair_program: Program, seed: int
) -> None:
    random = Random(seed)
    for program in (pair_program, piped_program):
        manifest = program.manifest
        for call in program.calls:
            columns = program.expand_call(call, CONTEXT)
            if not len(columns):
                continue
            pairs = edges(columns, manifest.kernels, manifest.chip.planes, call.tag)
            other = another_schedule(columns, pairs, manifest, random)
            length = int(other.t1.max())
            chain = waits(other, pairs)
            found = row_bounds(other, chain, manifest)
            assert max(found) <= length
            assert found == row_bounds(columns, waits(columns, pairs), manifest)


@pytest.mark.parametrize("rack", ["pair", "quad"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("", ""),
        ("planes", "8"),
        ("hop_ns", "35"),
        ("tray.lanes", "1"),
        ("vxm_chains", "1"),
        ("slot_cycles", "1"),
    ],
)
def test_no_bound_exceeds_the_step_on_other_machines(rack: str, batch: int, key: str, value: str) -> None:
    found = step_bounds(rack, 2, key, value, batch)
    assert max(found.values()) == found["cycles"]


def test_installs_are_bounded_at_the_whole_bytes_that_a_plane_really_takes() -> None:
    """Six bytes a cycle over four planes are 1.5 each, rounded to 2: eight bytes a cycle in all."""
    assert step_bounds("pair", 2, "sram_bytes_per_cycle", "6") == step_bounds(
        "pair", 2, "sram_bytes_per_cycle", "8"
    )


@pytest.mark.slow
def test_a_bound_falls_when_its_resource_is_doubled_and_rises_with_the_hop() -> None:
    base = step_bounds("pair", 2)
    assert step_bounds("pair", 2, "sram_bytes_per_cycle", "204800")["installs"] * 2 <= base["installs"] + 99
    planes = step_bounds("pair", 2, "planes", "8")
    assert planes["products"] * 2 <= base["products"] + 99
    assert planes["MXM geometry"] <= base["MXM geometry"]
    lanes = step_bounds("pair", 2, "lanes", "2")
    slower = step_bounds("pair", 2, "slot_cycles", "720")
    assert 2 * lanes["links"] > base["links"] > lanes["links"] > 0
    assert slower["links"] > base["links"]
    for name in ("critical path", "busy units"):
        assert lanes[name] <= base[name] < slower[name]
    assert step_bounds("pair", 2, "hop_ns", "700")["critical path"] > base["critical path"]
    assert step_bounds("pair", 2, "vxm_latency_cycles", "40")["critical path"] > base["critical path"]
    chains_1 = step_bounds("pair", 2, "vxm_chains", "1")
    assert base["busy units"] <= chains_1["busy units"]


def test_a_longer_hop_costs_the_critical_path_its_hops() -> None:
    program = api.compile(
        ModelFile(model="llama-tiny", context=(64,)), rack="pair", options=CompileOptions(tp=2, pp=1)
    ).program
    path = next(bound for bound in bounds(program, 64) if bound.name == "critical path")
    hops = int(path.reason.split("chain of rows, ")[1].split()[0])
    one = load_rack("pair").links.hop_cycles[0]
    two = changed(load_rack("pair"), "hop_ns", "700").links.hop_cycles[0]
    longer = step_bounds("pair", 2, "hop_ns", "700")["critical path"]
    assert hops > 0
    assert longer >= path.cycles + hops * int(two - one)


def test_the_chain_that_ends_each_block_adds_up_to_the_step(
    pair_program: Program, piped_program: Program
) -> None:
    for program in (pair_program, piped_program):
        totals = chain_totals(chains(program, CONTEXT))
        assert sum(totals.values()) == program.manifest.cycles[CONTEXT]
        assert min(totals.values()) >= 0
        assert set(totals) == set(PARTS)
        assert totals["link hops"] > 0


def test_a_chain_without_its_waits_is_no_longer_than_the_critical_path(pair_program: Program) -> None:
    path = next(bound.cycles for bound in bounds(pair_program, CONTEXT) if bound.name == "critical path")
    totals = chain_totals(chains(pair_program, CONTEXT))
    assert sum(cycles for part, cycles in totals.items() if not part.startswith("waits")) <= path
