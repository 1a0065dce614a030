"""A KV head's context dealt over several chips: the same bits, and every fault of the exchange is found."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import shapes
from beside import assert_same, compiled, made_up
from handmade import change
from models_named import of_model
from slow import slow_but

from compiler.lower.kv_blocks import kv_capacity, run_of
from compiler.lower.layout import Deal
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.isa import Columns, Op
from compiler.program.program import Program
from lpu.check.check import check, check_columns, require
from lpu.link.link import LinkError, link
from lpu.prove.prove import prove
from lpu.run.machine import prepare

CONTEXT = 480
POSITIONS = [[0], [1], [79], [80], [81], [159], [160], [333], [399]]
SMALL = replace(shapes.SMALL, attention_block=80)
ONE_HEAD = replace(SMALL, heads=4, kv_heads=1)
EIGHT_HEADS = replace(SMALL, heads=8, kv_heads=8)


@pytest.fixture(scope="module")
def program() -> Program:
    return compiled(SMALL, "quad", contexts=(CONTEXT,), tp=4, pp=1, cp=2)[1]


CASES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "one chip per head": (SMALL, "quad", {"tp": 4, "pp": 1, "cp": 1}),
    "two chips per head": (SMALL, "quad", {"tp": 4, "pp": 1, "cp": 2}),
    "four chips for one head": (ONE_HEAD, "quad", {"tp": 4, "pp": 1, "cp": 4}),
    "three chips per head, anywhere": (
        SMALL,
        "torus-4x4",
        {"tp": 8, "pp": 1, "cp": 3, "placement": "random"},
    ),
    "five chips per head, of two trays": (SMALL, "lpx", {"tp": 16, "pp": 1, "cp": 5}),
    "four chips per head": (SMALL, "lpx-16x16", {"tp": 8, "pp": 1, "cp": 4}),
    "rows and columns": (SMALL, "quad", {"tp": 4, "pp": 1, "cp": 2, "layout": "2d"}),
    "a chip of another group": (SMALL, "quad", {"tp": 2, "pp": 2, "cp": 2}),
    "three chips of the tray": (SMALL, "lpx-tray", {"tp": 2, "pp": 1, "cp": 4}),
    "ranks of its own and one beside them": (SMALL, "lpx-tray", {"tp": 4, "pp": 1, "cp": 3}),
    "three chips of other trays": (EIGHT_HEADS, "lpx", {"tp": 8, "pp": 1, "cp": 4}),
    "two heads of one chip": (SMALL, "torus-4x4", {"tp": 1, "pp": 1, "cp": 3}),
}


@pytest.mark.parametrize("name", slow_but(["a chip of another group"], CASES))
def test_the_bits_are_those_of_one_device(name: str) -> None:
    config, rack, options = CASES[name]
    step, program = compiled(config, rack, contexts=(CONTEXT,), **options)
    assert program.manifest.options.cp == options["cp"]
    require(check(program, CONTEXT))
    assert_same(step, program, POSITIONS)


@pytest.mark.slow
def test_sixteen_blocks_merged_at_once_have_the_bits_too() -> None:
    step, program = compiled(SMALL, "quad", contexts=(1280,), tp=4, pp=1, cp=1)
    columns = program.expand(1280)
    assert not (columns.op == Op.NODE).any()
    assert (columns.n[columns.op == Op.AOUT] == 16).all()
    require(check(program, 1280))
    assert_same(step, program, [[0], [639], [640], [1279]])


@pytest.mark.slow
def test_an_owner_keeps_more_stripes_than_its_neighbours_with_the_same_bits() -> None:
    config = replace(SMALL, heads=32)
    step, program = compiled(config, "quad", contexts=(1280,), tp=2, pp=2, cp=2)
    kernel = next(k for k in program.manifest.kernels if isinstance(k, AttentionKernel))
    columns = program.expand(1280)
    appends = columns.take(np.flatnonzero(columns.op == Op.KVW))
    at_owners = np.isin(appends.chip[: 2 * kernel.stripes], program.calls[2].chips[:2])  # of the first layer
    assert np.bincount(at_owners).tolist() == [2, 2 * (kernel.stripes - 1)]
    assert kernel.stripes > 2
    require(check(program, 1280))
    assert_same(step, program, [[0], [639], [640], [1279]])
    assert prove(of_model(program, config)).ok


@pytest.mark.slow
def test_a_short_bucket_lies_with_the_owner_alone_and_one_map_serves_both() -> None:
    config = replace(SMALL, heads=32)
    step, program = compiled(config, "quad", contexts=(160, 1280), tp=2, pp=2, cp=2)
    regions: list[list[tuple[int, ...]]] = []
    readers: list[set[int]] = []
    for context in (160, 1280):
        columns = program.expand(context)
        appends = columns.take(np.flatnonzero(columns.op == Op.KVW))
        regions.append(
            sorted(zip(*(c.tolist() for c in (appends.chip, appends.dst, appends.src3)), strict=True))
        )
        blocks = [block.columns[context] for block in program.blocks]
        readers.append({len({*rows.chip[rows.op == Op.QK].tolist()}) for rows in blocks})
        require(check(program, context))
    assert regions[0] == regions[1]
    assert readers == [{0, 2}, {0, 4}]
    assert_same(step, program, [[0], [159], [160], [1279]])
    assert prove(of_model(program, config)).ok


@pytest.mark.slow
def test_buckets_batches_and_fp8_have_the_bits_too() -> None:
    step, program = compiled(SMALL, "quad", contexts=(60, 400), batch=3, kv="fp8", tp=4, pp=1, cp=2)
    for context in (60, 400):
        require(check(program, context))
    assert_same(step, program, [[0, 20, 59], [1, 81, 399], [2, 160, 240], [79, 80, 241]])


@pytest.mark.slow
def test_a_chip_holds_its_share_of_the_context() -> None:
    whole, shared = (
        compiled(ONE_HEAD, "quad", contexts=(1280,), tp=4, pp=1, cp=cp)[1].manifest.regions for cp in (1, 4)
    )
    words = [[chip[1][1] for chip in regions] for regions in (whole, shared)]
    assert words[0] == [max(words[0]), 0, 0, 0]
    assert words[1] == [max(words[0]) // 4] * 4


def test_an_append_lies_only_in_the_stripe_of_its_position(program: Program) -> None:
    step, _ = compiled(SMALL, "quad", contexts=(CONTEXT,), tp=4, pp=1, cp=2)
    machine = prepare(program, made_up(step))
    after = machine.step(
        machine.start(), np.array([5]), np.array([165])
    )  # third run of 80: stripe 0, place 85
    keys = np.asarray(jnp.abs(after.state.keys[0]).sum(axis=-1))[:, 0]
    found = [np.flatnonzero(region).tolist() for region in keys]
    assert sorted(found) == [[]] * (len(found) // 2) + [[85]] * (len(found) // 2)


def fault(op: Op, number: int = 0, **fields: int) -> Callable[[Columns], Columns]:
    return lambda c: change(c, int(np.flatnonzero(c.op == op)[number]), **fields)


def without(c: Columns, rows: np.ndarray, which: int = 0) -> Columns:
    return c.take(np.arange(len(c)) != rows[which])


def nodes_sent(c: Columns) -> np.ndarray:
    made = np.unique(c.dst_tag[c.op == Op.PV])
    return np.flatnonzero((c.op == Op.SEND) & np.isin(c.src_tag, made))


def block_left_out(c: Columns) -> Columns:
    """The context without its last block."""
    rows = np.flatnonzero(c.op == Op.AOUT)
    return change(c, int(rows[0]), n=int(c.n[rows[0]]) - 1)


def other_head(c: Columns) -> Columns:
    """The owner of a head takes the nodes of another head."""
    ends = np.flatnonzero(c.op == Op.AOUT)
    return change(c, int(ends[0]), src_tag=int(c.src_tag[ends[1]]))


FAULTS: dict[str, Callable[[Columns], Columns]] = {
    "a stripe appended to twice, another never": fault(Op.KVW, src3=1),
    "no stripe named": fault(Op.KVW, src3=-1),
    "a stripe that is none": fault(Op.KVW, src3=2),
    "a node not sent": lambda c: without(c, nodes_sent(c)),
    "a node left out": fault(Op.AOUT, n=1),
    "a block left out": block_left_out,
    "nodes of another head": other_head,
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_of_the_exchange_is_found(program: Program, name: str) -> None:
    columns = program.expand(CONTEXT)
    assert check_columns(program.manifest, program.loads(), columns).ok
    assert not check_columns(program.manifest, program.loads(), FAULTS[name](columns)).ok


def test_an_exchanged_stripe_links_and_is_found_by_what_rows_mean(program: Program) -> None:
    """Cycles, addresses and kinds are all right: only the tags of K tell that tokens are held twice."""
    wrong = FAULTS["a stripe appended to twice, another never"](program.expand(CONTEXT))
    link(program.manifest, program.loads(), wrong)
    report = check_columns(program.manifest, program.loads(), wrong)
    assert report.counts[7] == report.total > 0
    assert "not all 6 once" in str(report)


def test_the_linker_refuses_a_stripe_that_does_not_exist(program: Program) -> None:
    with pytest.raises(LinkError, match="stripe 2 of a context is not one of 2"):
        link(program.manifest, program.loads(), FAULTS["a stripe that is none"](program.expand(CONTEXT)))


def test_the_linker_misses_a_node_that_never_came(program: Program) -> None:
    with pytest.raises(LinkError, match="nothing has written yet"):
        link(program.manifest, program.loads(), FAULTS["a node not sent"](program.expand(CONTEXT)))


@pytest.mark.parametrize("stripes", [1, 2, 3, 8])
def test_stripes_hold_every_token_of_every_bucket(stripes: int) -> None:
    for context in (1, 80, 81, 399, 2048):
        run = run_of((context, 80), 80, stripes)
        turn = np.arange(context) // (80 * run)
        held = np.bincount(turn % stripes, minlength=stripes)
        assert kv_capacity((context, 80), 80, Deal.evenly(stripes, run)) >= held.max()
