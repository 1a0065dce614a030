from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.lower import rules
from compiler.lower.kv_blocks import chunk_of, kv_capacity, run_of
from compiler.lower.layout import Deal, natural
from compiler.lower.merging import FAN, at_once, levels
from compiler.lower.ops.chains import tile_cut
from compiler.lower.rows import WeightArena
from compiler.place.stages import Room, Size, assign
from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.instructions.cold import ColdTileKernel
from compiler.program.instructions.experts import (
    ExpertTileKernel,
    HalfKernel,
    RankKernel,
    ShareKernel,
    SlotsKernel,
    WeightedGluKernel,
)
from compiler.program.instructions.host import GiveKernel, HandoverKernel, LoadKernel, TakeKernel
from compiler.program.instructions.matmul import MatmulKernel, ReduceKernel, WriteBackKernel, tree_kernel
from compiler.program.instructions.norms import (
    HeadNormKernel,
    LayerNormKernel,
    MomentsKernel,
    NormKernel,
    PrescaleKernel,
    RstatKernel,
)
from compiler.program.instructions.recurrent import (
    ConvKernel,
    DeltaKernel,
    GateKernel,
    OpenKernel,
    SsmKernel,
)
from compiler.program.instructions.vector import (
    AddKernel,
    ArgmaxKernel,
    ArgredKernel,
    BiasKernel,
    CapKernel,
    CastKernel,
    EmbedKernel,
    GluKernel,
    LaneMulKernel,
    MadKernel,
    MulKernel,
    RopeKernel,
)
from compiler.program.isa import Kernel, Op
from compiler.timing import RULES, timing
from fabric.catalog import chip_spec


def attention(**changes: Any) -> AttentionKernel:
    numbers: dict[str, Any] = {
        "group": 2, "block": 160, "chunk": 80, "chunks": 1, "head_dim": 64, "kv_words": 1, "kv_stride": 80,
        "rows": 1, "sequences": 1, "cached": 1, "capacity": 80, "run": 160,
    }  # fmt: skip
    return AttentionKernel(kv="fp16", **(numbers | changes))


KERNELS: dict[str, Kernel] = {
    kernel.family: kernel
    for kernel in (
        attention(host_slot=38),
        MatmulKernel(k_lines=2),
        WriteBackKernel(wide=False, products=1),
        ReduceKernel(parts=2),
        EmbedKernel(vocab=10, stride=1),
        RstatKernel(width=80, eps=1e-5),
        MomentsKernel(width=80, eps=1e-5),
        LayerNormKernel(),
        NormKernel(),
        PrescaleKernel(),
        tree_kernel((1, 1), whole=True),
        HeadNormKernel(head_dim=64, eps=1e-5),
        RopeKernel(head_dim=64, input="f32", positions=8, stride=1),
        CastKernel(),
        AddKernel(),
        BiasKernel(),
        MulKernel(factor=0.5),
        MadKernel(factor=0.5),
        LaneMulKernel(),
        CapKernel(cap=30.0),
        GluKernel(activation="silu"),
        ArgmaxKernel(vocab=10),
        ArgredKernel(),
        LoadKernel(host_slot=38),
        TakeKernel(wire="fp16", host_slot=38),
        GiveKernel(wire="f32", host_slot=38),
        HandoverKernel(
            head_dim=64, kv="fp16", kv_words=1, kv_stride=80, capacity=80, cached=1, run=80, host_slot=38
        ),
    )
}
KERNELS.update(
    (kernel.family, kernel)
    for kernel in (
        ExpertTileKernel(k_lines=2, experts=8, expert=-1),
        ColdTileKernel(k_lines=2, experts=8, expert=-1, wide=2, rows=1, host_slot=38),
        HalfKernel(k_lines=2),
        RankKernel(experts=128, chosen=8, first=0),
        ShareKernel(experts=128, renormalise=True),
        SlotsKernel(experts=128, chosen=8, slots=8),
        WeightedGluKernel(activation="silu"),
        ConvKernel(kept=3, cached=1, rows=1, sequences=1, biased=False),
        SsmKernel(
            kept=4,
            cached=1,
            rows=1,
            sequences=1,
            channels=160,
            steps=40,
            groups=1,
            decays=1,
            apart=False,
            low=0.0,
            high=1.0,
        ),
        DeltaKernel(kept=4, cached=1, rows=1, sequences=1, channels=160, heads=4, groups=2),
        GateKernel(),
        OpenKernel(),
    )
)


def test_all_ops_but_one_have_rows() -> None:
    assert [op for op, rule in rules.RULES.items() if not (rule.lower or rule.joint)] == ["round8"]


def test_every_opcode_has_a_cost() -> None:
    for op in RULES:
        kernel = KERNELS[INSTRUCTIONS[op].kernel.family]
        hold, latency = timing(op, np.array([1, 2]), kernel, chip_spec("lp30"), 1)
        assert (hold >= 1).all()
        assert (latency >= hold).all()


@given(st.integers(1, 500), st.sampled_from([1, 2, 4, 8]), st.integers(1, 8))
def test_tiles_cover_the_lines_and_are_at_most_four_wide(lines: int, planes: int, rows: int) -> None:
    widths = tile_cut(lines, planes, rows)
    assert widths.sum() == lines
    assert widths.min() >= 1
    assert widths.max() <= 4


def test_k_and_v_are_installed_once_per_sequence_however_many_rows_it_has() -> None:
    """160 tokens of 120 fp16 lanes at 25,600 bytes a cycle: 2 cycles; each row streams its heads through."""
    for op in (Op.QK, Op.PV):
        hold = [
            timing(
                op,
                0,
                attention(chunk=160, head_dim=120, group=1, sequences=sequences),
                chip_spec("lp30"),
                rows,
            )[0]
            for sequences, rows in ((1, 1), (4, 4), (1, 4), (2, 8), (1, 512))
        ]
        assert hold == [2, 8, 4, 8, 512]


def test_a_full_tile_takes_four_cycles_at_the_default_chip() -> None:
    """320 x 320 bytes at 25,600 bytes per cycle and plane (facts: scheduling.md 1.1)."""
    assert timing(Op.MM, 4, MatmulKernel(k_lines=2), chip_spec("lp30"), 1)[0] == 4


@given(st.integers(1, 20_000), st.integers(1, 64))
def test_natural_lines_are_spread_evenly_and_in_order(total: int, ranks: int) -> None:
    owner, columns = natural(total, ranks)
    assert (np.diff(owner) >= 0).all()
    counts = np.bincount(owner, minlength=ranks)
    assert counts.max() - counts.min() <= 1
    assert np.array_equal(columns[columns >= 0], np.arange(total))


def test_heads_wider_than_a_plane_take_more_of_them_and_v_a_column_of_ones() -> None:
    """Cycles against 320 tokens of 192, 320, 321 and 576 lanes, 20 heads."""
    chip, wide = chip_spec("lp30"), (192, 320, 321, 576)
    kernels = [attention(block=320, chunk=320, head_dim=lanes, group=20) for lanes in wide]
    held = {op: [int(timing(op, 0, kernel, chip, 1)[0]) for kernel in kernels] for op in (Op.QK, Op.PV)}
    assert held == {Op.QK: [20, 20, 40, 40], Op.PV: [20, 40, 40, 40]}


@given(st.integers(1, 10_000), st.integers(1, 9))
def test_regions_hold_the_context(context: int, stripes: int) -> None:
    assert chunk_of(context, 512) * -(-context // 512) >= context
    run = run_of((context,), 512, stripes)
    assert kv_capacity((context,), 512, Deal.evenly(stripes, run)) * stripes >= context
    assert stripes > 1 or run == 1


def test_weights_of_one_rank_lie_end_to_end_in_load_order() -> None:
    arena = WeightArena(2)
    fields = {"kind": 0, "tensor": 0, "k0": 0, "n0": 0, "lines": 1, "tag": 0}
    first = arena.load(np.array([1, 0, 1]), np.array([10, 20, 30]), **fields)
    again = arena.load(np.array([1]), 5, **fields)
    assert [int(a & 0xFFFF) for a in first] == [0, 0, 10]
    assert int(again[0] & 0xFFFF) == 40
    assert arena.words.tolist() == [20, 45]


def _room(groups: int, words: int) -> Room:
    return Room(rack="r", groups=groups, tp=1, words=words, capacity=words)


def _sizes(*words: int) -> list[Size]:
    return [Size(name=f"b{i}", words=np.array([w]), transient=0) for i, w in enumerate(words)]


@pytest.mark.parametrize(("pp", "stages"), [(None, [0, 0, 1, 2]), (4, [0, 1, 2, 3])])
def test_blocks_go_to_as_few_groups_as_fit_or_to_exactly_pp(pp: int | None, stages: list[int]) -> None:
    found = assign(_sizes(4, 6, 7, 9), _room(8, 10), pp)
    assert [stage.group for stage in found] == stages


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.data())
def test_a_balanced_pipeline_uses_every_group_in_order(words: list[int], data: st.DataObject) -> None:
    pp = data.draw(st.integers(1, len(words)))
    stages = [stage.group for stage in assign(_sizes(*words), _room(64, 10_000), pp)]
    assert stages[0] == 0
    assert stages[-1] == pp - 1
    assert set(np.diff(stages).tolist()) <= {0, 1}


def test_uneven_blocks_are_turned_to_the_emptiest_chips() -> None:
    sizes = [Size(name="b", words=np.array([6, 0, 0, 0]), transient=0)] * 4
    room = Room(rack="r", groups=1, tp=4, words=6, capacity=6)
    assert sorted(stage.turn for stage in assign(sizes, room, None)) == [0, 1, 2, 3]


@given(chunks=st.integers(1, 512), group=st.sampled_from([1, 4, 8, 16]), rows=st.sampled_from([1, 4, 64]))
def test_nodes_are_merged_in_the_order_that_is_soonest(chunks: int, group: int, rows: int) -> None:
    kernel, chip = attention(chunks=chunks, group=group, head_dim=128), chip_spec("lp30")
    found, nodes = levels(kernel, chip, rows), chunks
    for size, fan in found:
        assert nodes == -(-chunks // size)
        assert fan in (FAN, FAN // 2, FAN // 4)
        assert not at_once(kernel, nodes, chip, rows)
        nodes = -(-nodes // fan)
    assert at_once(kernel, nodes, chip, rows)


def test_sixteen_blocks_of_one_row_are_merged_at_once_and_those_of_four_rows_are_not() -> None:
    """AOUT over 16 nodes of 512 columns: 28 + 20 cycles; in two, by 4 sooner than by 8."""
    kernel, chip = attention(chunks=16, group=4, head_dim=128), chip_spec("lp30")
    assert levels(kernel, chip, rows=1) == []
    assert levels(kernel, chip, rows=4) == [(1, FAN // 2)]
