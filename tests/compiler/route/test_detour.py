"""Large transfers that go round by idle chips: the same bits, never slower; small ones stay as they were."""

from dataclasses import replace

import numpy as np
import pytest
from beside import assert_same, compiled
from shapes import SMALL

import compiler.lower.context as lowering
from compiler.program.isa import Columns, Op
from compiler.program.program import Program
from compiler.route.detour import Send, deal
from compiler.route.reuse import Reuse
from compiler.route.route import Router, Trees
from fabric.multicast import detour_trees, multicast_tree
from fabric.rack import load_rack
from lpu.check.check import check, check_columns, require
from lpu.link.link import LinkError, link

DEEP = replace(SMALL, layers=2, hidden=1280, heads=8, kv_heads=8, head_dim=32, ffn=640, vocab=160)


def detoured(program: Program, context: int = 80) -> np.ndarray:
    """Transfers that begin or end on a chip of no group."""
    c = program.expand(context)
    own = np.unique(np.concatenate([np.array(group) for group in program.manifest.groups]))
    moved = (c.op == Op.SEND) | (c.op == Op.FORWARD)
    return np.flatnonzero(moved & ~(np.isin(c.chip, own) & np.isin(c.peer, own)))


@pytest.fixture(scope="module")
def program() -> Program:
    return compiled(DEEP, "lpx", batch=64, tp=8, pp=2)[1]


@pytest.mark.slow
@pytest.mark.parametrize(("rack", "tp"), [("lpx", 8), ("lpx-16x16", 4), ("torus-4x4", 4)])
def test_the_bits_are_those_of_one_device(rack: str, tp: int) -> None:
    config = DEEP if rack != "torus-4x4" else replace(DEEP, heads=4, kv_heads=4, ffn=320, layers=1)
    step, program = compiled(config, rack, batch=64, tp=tp, pp=2)
    assert len(detoured(program)) > 0 or rack == "torus-4x4"  # there, round is no shorter
    require(check(program, 80))
    assert_same(step, program, [list(range(64)), list(range(1, 65))])


@pytest.mark.slow
@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_batches_have_the_same_bits(batch: int) -> None:
    step, program = compiled(DEEP, "lpx", batch=batch, tp=8, pp=2)
    require(check(program, 80))
    assert_same(step, program, [list(range(batch)), list(range(1, batch + 1))])


def test_a_single_token_goes_the_shortest_way() -> None:
    assert len(detoured(compiled(DEEP, "lpx", tp=8, pp=2)[1])) == 0


def test_a_detour_is_taken_only_if_the_block_is_shorter(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lowering, "deal", lambda *_: None)
    direct = compiled(DEEP, "lpx", batch=64, tp=8, pp=2)[1]
    assert program.manifest.cycles[80] < 0.95 * direct.manifest.cycles[80]


def test_a_detour_that_loses_a_line_is_found(program: Program) -> None:
    columns = program.expand(80)
    wrong = columns.take(np.arange(len(columns)) != detoured(program)[0])
    assert check_columns(program.manifest, program.loads(), wrong).counts[2] > 0
    with pytest.raises(LinkError, match="nothing has written yet"):
        link(program.manifest, program.loads(), wrong)


def test_a_detour_too_early_is_found(program: Program) -> None:
    c = program.expand(80)
    late = detoured(program)
    row = int(late[c.op[late] == Op.FORWARD][0])
    fields = {name: getattr(c, name).copy() for name in ("t0", "t1")}
    for values in fields.values():
        values[row] -= 1000
    wrong = Columns(**{name: fields.get(name, getattr(c, name)) for name in c.__dataclass_fields__})
    assert not check_columns(program.manifest, program.loads(), wrong).ok


def test_no_tree_meets_a_chip_twice_and_every_tree_reaches_all() -> None:
    rack = load_rack("lpx")
    for targets in ([1], [255], list(range(8, 16))):
        trees = detour_trees(rack, 0, targets)
        assert trees
        assert multicast_tree(rack, 0, targets) not in trees
        for tree in trees:
            children = [child for _, child in tree]
            assert len(set(children)) == len(children)
            assert set(targets) <= set(children)
            known = {0}
            for parent, child in tree:
                assert parent in known
                assert rack.link(parent, child) >= 0
                known.add(child)


def test_every_line_is_dealt_once_and_few_words_are_not_dealt() -> None:
    rack = load_rack("lpx")
    router = Router(rack, tuple(range(16)))
    sends = [Send(i, tuple(range(8, 16)), 7, 4) for i in range(8)]
    assert deal(router, sends, 1) is None
    dealt = deal(router, sends, 64)
    assert dealt is not None
    assert [len(trees) for trees in dealt] == [7] * 8
    assert dealt == deal(Router(rack, tuple(range(16))), sends, 64)


def test_what_was_made_for_chips_is_found_for_others_of_the_same_routes_only() -> None:
    rack = load_rack("lpx")
    reuse, targets = Reuse(rack), tuple(range(1, 8))
    router = reuse.router(tuple(range(8)))
    router.tree(0, targets)
    reuse.add("block", router, 7)
    assert reuse.find("block", tuple(range(8, 16))) == (7, tuple(range(8, 16)))
    assert reuse.find("another block", tuple(range(8, 16))) is None
    assert reuse.find("block", tuple(range(4, 12))) is None  # chips of two trays


def test_a_schedule_is_reused_only_where_the_detours_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rack, targets = load_rack("lpx"), tuple(range(8, 16))
    reuse = Reuse(rack)
    router = reuse.router(tuple(range(16)))
    router.tree(0, targets)
    found = router.detours(0, targets)
    reuse.add("block", router, 7)
    number, chips = reuse.find("block", tuple(range(16))) or (-1, ())
    assert (number, chips) == (7, tuple(router.chips))
    fewer = Reuse(rack)
    fewer.add("block", router, 7)
    monkeypatch.setattr(Trees, "answers", lambda self, *asked: trees(self, *asked)[: len(found) - 1])
    assert fewer.find("block", tuple(range(16))) is None


trees = Trees.answers
