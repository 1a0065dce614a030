import numpy as np
from drawn_rows import problems
from hypothesis import given, settings
from steps import llama

from compiler.lower.rows import RowBuilder, tag
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.instructions.vector import EmbedKernel
from compiler.program.isa import Op
from compiler.schedule.list_schedule import (
    dependencies,
    start_cycles,
)
from fabric.rack import load_rack


@settings(max_examples=200, deadline=None)
@given(problems())
def test_no_instance_is_held_twice_and_every_edge_is_kept(problem: tuple) -> None:  # type: ignore[type-arg]
    edges, resource, hold, latency, width, free = problem
    start, first = start_cycles(edges, resource, hold, latency, width, dict(free))
    for before, after in edges:
        assert start[after] >= start[before] + latency[before]
    held: set[tuple[int, int, int]] = set()
    for row, begin in enumerate(start):
        for cycle in range(begin, begin + hold[row]):
            for instance in range(first[row], first[row] + width[row]):
                assert free[resource[row]] >> instance & 1
                assert (resource[row], instance, cycle) not in held
                held.add((resource[row], instance, cycle))


def test_a_transfer_never_beats_the_wire() -> None:
    rack = load_rack("lpx")
    columns = compile_program(llama(), rack, CompileOptions(tp=16)).expand(160)
    moves = np.isin(columns.op, (Op.SEND, Op.FORWARD))
    links = rack.links.index[columns.chip[moves], columns.peer[moves]]
    assert (links >= 0).all()
    assert (columns.t1 - columns.t0)[
        moves
    ].min() >= rack.links.hop_cycles.min() + rack.links.slot_cycles.min()


def test_the_first_hop_is_a_send_and_each_further_one_a_forward() -> None:
    columns = compile_program(llama(), load_rack("ring-8"), CompileOptions(tp=8)).expand(160)
    moves = np.isin(columns.op, (Op.SEND, Op.FORWARD))
    arrived = set(zip(columns.peer[moves].tolist(), columns.dst_tag[moves].tolist(), strict=True))
    keys = zip(columns.chip.tolist(), columns.src_tag.tolist(), strict=True)
    was_sent = np.array([key in arrived for key in keys])
    assert np.array_equal(columns.op[moves] == Op.FORWARD, was_sent[moves])


def test_a_line_range_reaches_no_line_of_the_next_rank() -> None:
    """Five lines from line 0 sent from rank 0 to rank 1: the send does not wait for itself."""
    rows = RowBuilder()
    rows.add(Op.EMBED, rank=0, n=5, aux=0, src_tag=tag(2, 0), dst_tag=tag(3, 0))
    rows.add(Op.SEND, rank=0, peer=1, n=5, src_tag=tag(3, 0), dst_tag=tag(3, 0))
    edges = dependencies(rows.build(), [EmbedKernel(vocab=2, stride=3)])
    assert edges.tolist() == [[0, 1]]
