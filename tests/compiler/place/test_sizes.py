"""What blocks take of SRAM: the room beside their transients, and how often a block is lowered for it."""

import pytest
from steps import llama

from compiler.lower.rope_table import angle_words
from compiler.options import CompileOptions
from compiler.place import sizes as module
from compiler.place.sizes import block_sizes
from compiler.route import route
from compiler.route.route import Router
from compiler.source import traced
from fabric.rack import load_rack

RACK = load_rack("lpx-tray")
MODEL = traced(llama(layers=2, context=1600))
PLAN = MODEL.plan(RACK, CompileOptions(tp=2))
GROUPS = tuple((2 * i, 2 * i + 1) for i in range(4))


def test_the_room_is_that_of_scheduling_every_block_though_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {block.kind: block for block in MODEL.blocks}
    every = {
        kind: module._allocated(PLAN, block, RACK, GROUPS[0], "column", GROUPS[1])
        for kind, block in kinds.items()
    }
    real, scheduled = module._allocated, list[str]()

    def counted(*args: object) -> int:
        scheduled.append(args[1].kind)  # pyright: ignore[reportAttributeAccessIssue]
        return real(*args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(module, "_allocated", counted)
    estimates, rough = block_sizes(PLAN, MODEL.blocks, RACK, GROUPS, "column", 1)
    assert not scheduled
    sizes, room = block_sizes(PLAN, MODEL.blocks, RACK, GROUPS, "column", 1, exact=True)
    assert room.words == RACK.chip.sram_words - angle_words(PLAN.graph) - max(every.values())
    assert rough.words < room.words < room.most == RACK.chip.sram_words - angle_words(PLAN.graph)
    assert 0 < len(scheduled) < len(kinds)
    for block, size, estimate in zip(MODEL.blocks, sizes, estimates, strict=True):
        assert every[block.kind] <= size.transient <= estimate.transient


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
