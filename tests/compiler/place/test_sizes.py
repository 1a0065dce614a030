"""What blocks take of SRAM: the room beside their transients, and how often a block is lowered for it."""

from dataclasses import replace
from typing import Any

import pytest
from steps import llama

from compiler.errors import CapacityError
from compiler.latency import assign_sharing, fastest, some_tp_may_fit
from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock, kv_heads
from compiler.lower.rope_table import angle_words
from compiler.options import CompileOptions
from compiler.place import sizes as module
from compiler.place.assignment import deal_contexts
from compiler.place.sizes import Seen, block_sizes, way_to
from compiler.route import route
from compiler.route.route import Router
from compiler.schedule import list_schedule
from compiler.source import traced
from compiler.steps import quiet
from fabric.rack import load_rack

RACK = load_rack("lpx-tray")
MODEL = traced(llama(layers=2, context=1600))
PLAN = MODEL.plan(RACK, CompileOptions(tp=2))
GROUPS = tuple((2 * i, 2 * i + 1) for i in range(4))


def test_the_room_is_that_of_scheduling_every_block_though_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {block.kind: block for block in MODEL.blocks}
    every = {
        kind: module.allocated(PLAN, block, RACK, GROUPS[0], "column", GROUPS[1])
        for kind, block in kinds.items()
    }
    real, scheduled = module.allocated, list[str]()

    def counted(*args: object) -> int:
        scheduled.append(args[1].kind)  # pyright: ignore[reportAttributeAccessIssue]
        return real(*args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(module, "allocated", counted)
    estimates, rough = block_sizes(PLAN, MODEL.blocks, RACK, GROUPS, "column", 1)
    assert not scheduled
    sizes, room = block_sizes(PLAN, MODEL.blocks, RACK, GROUPS, "column", 1, exact=True)
    assert room.words == RACK.chip.sram_words - angle_words(PLAN.graph) - max(every.values())
    assert rough.words < room.words < room.most == RACK.chip.sram_words - angle_words(PLAN.graph)
    assert 0 < len(scheduled) < len(kinds)
    for block, size, estimate in zip(MODEL.blocks, sizes, estimates, strict=True):
        assert every[block.kind] <= size.transient <= estimate.transient


def test_what_is_not_dealt_by_rows_is_lowered_once_for_both_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    real, lowered = module.straight, list[tuple[str, bool]]()

    def counted(plan: Plan, block: ModelBlock, *args: Any) -> Any:
        lowered.append((block.kind, plan.by_rows))
        return real(plan, block, *args)

    monkeypatch.setattr(module, "straight", counted)
    full = replace(RACK, chip=RACK.chip.with_numbers("test", sram_bytes=320 * 400))
    plan = MODEL.plan(full, CompileOptions(tp=1))
    with pytest.raises(CapacityError, match=r"needs .* per chip, a chip has"):
        assign_sharing(plan, MODEL.blocks, full, CompileOptions(tp=1), None)
    assert lowered
    assert all(by_rows for _, by_rows in lowered)  # on one chip nothing can be dealt
    parted = MODEL.plan(full, CompileOptions(tp=4))
    lowered.clear()
    with pytest.raises(CapacityError):
        assign_sharing(parted, MODEL.blocks, full, CompileOptions(tp=4), None)
    again = {kind for kind, by_rows in lowered if not by_rows}
    assert again < {kind for kind, _ in lowered}


def test_a_model_that_fits_at_no_tp_is_refused_without_a_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    options = CompileOptions()
    fits: dict[int, bool] = {}
    for words in (3000, 4000, 5000):
        rack = replace(RACK, chip=RACK.chip.with_numbers("test", sram_bytes=320 * words))
        with monkeypatch.context() as patch:
            patch.setattr(list_schedule, "dispatch", None)  # nothing may be scheduled
            fits[words] = some_tp_may_fit(MODEL.plan(rack, options), MODEL.blocks, rack, options)
        about = MODEL.plan(rack, options), MODEL.blocks, rack, options, quiet
        if fits[words]:
            assert fastest(*about).best
        else:
            with pytest.raises(CapacityError):
                fastest(*about)
    assert not fits[3000]
    assert fits[5000]


@pytest.mark.parametrize("cp", [1, 2])
def test_what_weights_and_kv_take_is_known_of_a_lowering_for_one_token(cp: int) -> None:
    options = CompileOptions(tp=8, cp=cp)
    plan = deal_contexts(MODEL.plan(RACK, options), MODEL.blocks, RACK, options)
    group = tuple(range(8))
    for block in {block.kind: block for block in MODEL.blocks}.values():
        way = way_to(group, group, module.example(plan, block, RACK, group, "column"), 1)
        one, longest = (module.straight(plan, block, RACK, way, context, Seen()) for context in (1, 1600))
        assert one.weights.words.tolist() == longest.weights.words.tolist()
        assert one.kv_words.tolist() == longest.kv_words.tolist()
        assert (longest.kv_words.max() > 0) == bool(kv_heads(plan.demands, block))


def test_routers_of_one_rack_find_a_tree_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rack, asked = load_rack("torus-4x4"), list[int]()
    real = route.multicast_tree

    def counted(*args: object, **how: object) -> object:
        asked.append(1)
        return real(*args, **how)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(route, "multicast_tree", counted)
    chips = tuple(range(8))
    first, second = (Router(rack, chips).tree(0, (1, 5, 6)) for _ in range(2))
    assert first == second
    assert len(asked) == 1
    assert Router(load_rack("torus-4x4"), chips).tree(0, (1, 5, 6)) == first
    assert len(asked) == 2


def test_a_brief_refusal_spreads_no_embedding_where_the_layers_have_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, lowered = module.straight, list[str]()

    def counted(plan: Plan, block: ModelBlock, *args: Any) -> Any:
        lowered.append(block.kind)
        return real(plan, block, *args)

    monkeypatch.setattr(module, "straight", counted)
    full = replace(RACK, chip=RACK.chip.with_numbers("test", sram_bytes=320 * 3000))
    options = CompileOptions(tp=2)
    plan, found = MODEL.plan(full, options), list[int]()
    for brief in (False, True):
        lowered.clear()
        with pytest.raises(CapacityError):
            assign_sharing(plan, MODEL.blocks, full, options, None, brief=brief)
        found.append(len(lowered))
    assert 0 < found[1] < found[0]
