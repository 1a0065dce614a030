from dataclasses import replace

import numpy as np
import pytest
from drawn_rows import problems
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import llama

from compiler.errors import CapacityError
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.schedule.list_schedule import (
    start_cycles,
)
from compiler.schedule.ports import Moves, PortLoad
from fabric.rack import Rack, load_rack
from lpu.check.check import check


def quad(ports: int) -> Rack:
    rack = load_rack("quad")
    return replace(rack, chip=replace(rack.chip, activation_ports=ports))


@settings(max_examples=200, deadline=None)
@given(problems(), st.data())
def test_no_cycle_moves_more_than_there_are_ports(problem: tuple, data: st.DataObject) -> None:  # type: ignore[type-arg]
    edges, resource, hold, latency, width, free = problem

    def column(low: int, high: int) -> np.ndarray:
        return np.array(data.draw(st.lists(st.integers(low, high), min_size=len(hold), max_size=len(hold))))

    moves = Moves(rate=column(0, 9), rank=column(0, 1), arrival=column(-1, 1), limit=10)
    moves.arrival[moves.arrival == moves.rank] = -1
    start, _ = start_cycles(edges, resource, hold, latency, width, dict(free), PortLoad(moves, hold, latency))
    load = np.zeros((2, int((start + latency).max())), np.int64)
    for row, begin in enumerate(start):
        load[moves.rank[row], begin : begin + hold[row]] += moves.rate[row]
        if moves.arrival[row] >= 0:
            end = begin + latency[row]
            load[moves.arrival[row], end - hold[row] : end] += moves.rate[row]
    assert load.max() <= moves.limit
    assert load.max() == moves.most(start, start + np.array(latency), np.array(hold))
    for before, after in edges:
        assert start[after] >= start[before] + latency[before]


def test_a_chip_with_few_ports_gets_a_slower_schedule_that_is_legal() -> None:
    many, few = (compile_program(llama(batch=4), quad(ports), CompileOptions(tp=4)) for ports in (96, 10))
    assert few.manifest.cycles[160] > many.manifest.cycles[160]
    assert check(few, 160).ok
    report = check(replace(many, manifest=few.manifest), 160)
    assert report.counts[3], "the schedule for many ports overruns the few"


def test_a_row_that_needs_more_ports_than_there_are_is_refused() -> None:
    with pytest.raises(CapacityError, match=r"moves .* words a cycle, a chip has 4 activation ports"):
        compile_program(llama(batch=4), quad(4), CompileOptions(tp=4))
