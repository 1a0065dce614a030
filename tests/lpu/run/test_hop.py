"""Hops: their answers are bit by bit what the FFN of the model makes, and follow the schedule."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from beside import made_up
from handmade import change
from hopped import contract_ffn, hopped
from shapes import SMALL
from slow import slow_but

from compiler.program.isa import Columns, Op
from compiler.program.manifest import HOPS
from compiler.program.program import Program
from compiler.program.store import hop_alone
from lpu.link.link import LinkError, link
from lpu.run.error import MachineError
from lpu.run.hop import execute_hop, prepare_hops
from models.config import TransformerConfig
from models.contract import ops
from models.contract.formats import rn8

WIDE = replace(SMALL, name="wide", hidden=640, ffn=960)
EIGHT = replace(SMALL, name="eight", hidden=400, ffn=720, ffn_down="fp8", ffn_up="fp16", activation="gelu")


def message(config: TransformerConfig, rows: int, seed: int = 1) -> Any:
    x = np.random.default_rng(seed).standard_normal((rows, config.hidden)).astype(np.float16)
    return ops.round8(jnp.asarray(x)) if config.ffn_down == "fp8" else jnp.asarray(x)


def assert_same(config: TransformerConfig, rack: str, rows: int, **options: Any) -> None:
    step, program, _ = hopped(config, rack, rows, **options)
    weights = made_up(step)
    machine = prepare_hops(program, weights)
    for layer in range(config.layers):
        x = message(config, rows, layer)
        got, want = machine.step(layer, x), contract_ffn(config, weights, layer, x)
        assert got.dtype == want.dtype
        assert np.asarray(got).tobytes() == np.asarray(want).tobytes()


CASES: dict[str, tuple[TransformerConfig, str, int, dict[str, Any]]] = {
    "one chip": (SMALL, "pair", 1, {"tp": 1}),
    "one chip, four rows": (SMALL, "pair", 4, {"tp": 1}),
    "columns on four chips": (WIDE, "quad", 1, {"tp": 4}),
    "columns on eight chips, two rows": (WIDE, "lpx-tray", 2, {"tp": 8}),
    "rows on four chips, anywhere": (WIDE, "quad", 2, {"tp": 4, "layout": "row", "placement": "random"}),
    "rows on eight chips": (WIDE, "lpx-tray", 4, {"tp": 8, "layout": "row"}),
    "2d on four chips": (WIDE, "quad", 1, {"tp": 4, "layout": "2d"}),
    "2d on eight chips, anywhere": (
        WIDE,
        "lpx-tray",
        4,
        {"tp": 8, "layout": "2d", "placement": "random", "seed": 3},
    ),
    "two groups of two": (WIDE, "quad", 4, {"tp": 2, "pp": 2}),
    "fp8 down and fp16 up": (EIGHT, "quad", 1, {"tp": 1}),
    "fp8 down and fp16 up, 2d on four chips": (EIGHT, "quad", 2, {"tp": 4, "layout": "2d"}),
    "fp8 down and fp16 up, rows on eight chips": (EIGHT, "lpx-tray", 4, {"tp": 8, "layout": "row"}),
    "many rows": (SMALL, "quad", 40, {"tp": 4}),
}


@pytest.mark.parametrize("case", slow_but(["one chip", "columns on four chips", "2d on four chips"], CASES))
def test_every_hop_gives_the_bits_of_the_ffn(case: str) -> None:
    config, rack, rows, options = CASES[case]
    assert_same(config, rack, rows, **options)


def test_hops_that_are_equal_but_for_their_weights_share_one_executable() -> None:
    config = replace(WIDE, layers=4, ffn=880)
    step, program, _ = hopped(config, "quad", 3, tp=2, pp=2)
    assert len(program.blocks) == 1
    machine = prepare_hops(program, made_up(step))
    before = execute_hop._cache_size()  # pyright: ignore[reportAttributeAccessIssue]
    for layer in range(4):
        machine.step(layer, message(config, 3))
    assert execute_hop._cache_size() == before + 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
def test_a_message_crosses_as_e4m3_codes_where_the_wire_is_fp8() -> None:
    step, program, _ = hopped(EIGHT, "pair", 2, tp=2)
    machine = prepare_hops(program, made_up(step))
    x = message(EIGHT, 2)
    codes = rn8(x.astype(jnp.float32))
    assert codes.dtype == np.uint8
    assert np.asarray(machine.step(0, codes)).tobytes() == np.asarray(machine.step(0, x)).tobytes()
    with pytest.raises(MachineError, match=r"of 800 values of the message to layers.0.ffn are not e4m3"):
        machine.step(0, jnp.full((2, 400), 1 + 2**-9, jnp.float16))


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 160), np.float16), np.zeros((1, 160), np.float32), np.zeros((1, 160), np.uint8)]
)
def test_a_message_of_another_shape_or_format_is_refused(wrong: np.ndarray) -> None:
    step, program, _ = hopped(SMALL, "pair", tp=2)
    with pytest.raises(MachineError, match=r"it takes float16 \(1, 160\)"):
        prepare_hops(program, made_up(step)).step(0, wrong)


def test_an_answer_that_is_not_finite_is_refused() -> None:
    step, program, _ = hopped(SMALL, "pair", tp=2)
    weights = made_up(step)
    weights["layers.1.ffn.down.exponent"] = np.full(160, 127, np.int32)
    machine = prepare_hops(program, weights)
    machine.step(0, message(SMALL, 1))
    with pytest.raises(MachineError, match=r"layers.1.ffn holds NaN or Inf"):
        machine.step(1, message(SMALL, 1))


@pytest.fixture(scope="module")
def alone() -> Program:
    """The second hop of WIDE on four chips."""
    return hop_alone(hopped(WIDE, "quad", tp=4)[1], 1)


def relinked(program: Program, columns: Columns) -> None:
    link(program.manifest, program.loads(), columns)


def test_a_line_that_is_not_taken_or_taken_late_is_not_found(alone: Program) -> None:
    columns = alone.expand(HOPS)
    row = int(np.flatnonzero(columns.op == Op.TAKE)[-1])
    with pytest.raises(LinkError, match="nothing has written yet"):
        relinked(alone, columns.take(np.arange(len(columns)) != row))
    reader = int(columns.t0[columns.src_tag == columns.dst_tag[row]].min())
    late = reader + 1 - int(columns.t1[row])
    with pytest.raises(LinkError, match="nothing has written yet"):
        relinked(alone, change(columns, row, t0=columns.t0[row] + late, t1=columns.t1[row] + late))


def test_a_transfer_that_is_dropped_is_not_found(alone: Program) -> None:
    columns = alone.expand(HOPS)
    row = int(np.flatnonzero(columns.op == Op.SEND)[0])
    with pytest.raises(LinkError, match="nothing has written yet"):
        relinked(alone, columns.take(np.arange(len(columns)) != row))


def test_every_line_of_an_answer_is_given_once(alone: Program) -> None:
    columns = alone.expand(HOPS)
    gives = np.flatnonzero(columns.op == Op.GIVE)
    with pytest.raises(LinkError, match="of the answer is never given"):
        relinked(alone, columns.take(np.arange(len(columns)) != gives[0]))
    with pytest.raises(LinkError, match="of the answer is given twice"):
        relinked(alone, change(columns, gives[1], src3=int(columns.src3[gives[0]])))
    with pytest.raises(LinkError, match=r"lines 8 .. 8 of 8"):
        relinked(alone, change(columns, gives[-1], src3=8))


def test_a_line_taken_for_another_changes_the_bits(alone: Program) -> None:
    """Lines are names on the wire: the linker believes them, so the answer differs."""
    step, program, _ = hopped(WIDE, "quad", tp=4)
    weights, x = made_up(step), message(WIDE, 1)
    block = program.blocks[0]
    columns = block.columns[HOPS]
    one, other = np.flatnonzero(columns.op == Op.TAKE)[:2]
    swapped = change(columns, int(one), src3=int(columns.src3[other]))
    swapped = change(swapped, int(other), src3=int(columns.src3[one]))
    faulty = replace(program, blocks=(replace(block, columns={HOPS: swapped}),))
    right, wrong = (prepare_hops(each, weights).step(0, x) for each in (program, faulty))
    assert np.asarray(right).tobytes() != np.asarray(wrong).tobytes()


def test_a_step_has_the_host_lanes_for_one_hop() -> None:
    _, program, _ = hopped(SMALL, "pair", tp=2)
    with pytest.raises(LinkError, match="names 2 hops"):
        relinked(program, program.expand(HOPS))
