"""Run: the bits of a scheduled program are those of the model on one device, and follow the schedule."""

import contextlib
from dataclasses import replace
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from beside import Arrays, assert_same, bits, compiled, made_up
from handmade import matmul
from shapes import BIASED, HEADS, SCALED, SMALL
from slow import slow_but

from compiler.program.isa import Op
from compiler.program.program import Block, Program
from lpu.link.link import LinkError
from lpu.run import host_memory
from lpu.run.error import MachineError
from lpu.run.execute import execute
from lpu.run.machine import prepare
from lpu.run.ops.matmul import decode, total_of
from models.config import TransformerConfig
from models.contract.formats import decode_small
from models.step import Step

CASES: dict[str, tuple[TransformerConfig, str, dict[str, Any], list[list[int]]]] = {
    "one chip": (SMALL, "pair", {"tp": 1, "pp": 1}, [[0], [1], [2]]),
    "columns on two chips": (SMALL, "pair", {"tp": 2, "pp": 1}, [[0], [1], [79]]),
    "rows on four chips, anywhere": (
        SMALL,
        "quad",
        {"tp": 4, "pp": 1, "layout": "row", "placement": "random"},
        [[0], [1]],
    ),
    "2d, pipelined, a batch of three at its own positions": (
        SMALL,
        "lpx-tray",
        {"tp": 4, "pp": 2, "layout": "2d", "batch": 3},
        [[0, 40, 7], [1, 41, 8], [2, 0, 79]],
    ),
    "e4m3 cache, two context buckets": (
        SMALL,
        "pair",
        {"tp": 2, "pp": 1, "kv": "fp8", "contexts": (80, 240), "batch": 2},
        [[0, 78], [1, 79], [2, 80], [200, 81], [201, 82]],
    ),
    "biases, exact gelu, RoPE of part of each head by LongRoPE, on one chip": (
        BIASED,
        "pair",
        {"tp": 1, "pp": 1},
        [[0], [1], [2]],
    ),
    "biases over rows and columns of four chips": (
        BIASED,
        "quad",
        {"tp": 4, "pp": 1, "layout": "2d"},
        [[0], [79]],
    ),
    "any f32 scale per column, rows on four chips": (
        SCALED,
        "quad",
        {"tp": 4, "pp": 1, "layout": "row", "batch": 2},
        [[0, 3], [79, 4]],
    ),
    "head norms, gelu, heads across lines": (HEADS, "pair", {"tp": 2, "pp": 1}, [[0], [1], [2]]),
}

QUICK = (
    "biases, exact gelu, RoPE of part of each head by LongRoPE, on one chip",
    "rows on four chips, anywhere",
)


@pytest.mark.parametrize("case", slow_but(QUICK, CASES))
def test_bits_equal_the_model_on_one_device(case: str) -> None:
    config, rack, options, positions = CASES[case]
    step, program = compiled(config, rack, **options)
    machine = assert_same(step, program, positions)
    for context in program.manifest.contexts:
        counts = machine.counts(context)
        assert counts["steps"] >= counts["levels"] > 20
        assert counts["mm"] > 0


@pytest.fixture(scope="module")
def pair() -> tuple[Step, Program, Arrays]:
    step, program = compiled(SMALL, "pair", tp=2, pp=1)
    return step, program, made_up(step)


def logits(program: Program, weights: Arrays, tokens: tuple[int, ...] = (5, 9)) -> list[int]:
    """Bits of the last of a few steps."""
    machine = prepare(program, weights)
    state, out = machine.start(), None
    for position, token in enumerate(tokens):
        out = machine.step(state, np.array([token]), np.array([position]))
        state = out.state
    assert out is not None
    return bits(out.logits)


def edited(program: Program, block: int, rows: list[int], **fields: list[int]) -> Program:
    """The program with some fields of some rows of one block replaced."""
    columns = program.blocks[block].columns[80]
    new = {name: getattr(columns, name).copy() for name in fields}
    for name, values in fields.items():
        new[name][rows] = values
    changed: Block = replace(program.blocks[block], columns={80: replace(columns, **new)})
    blocks = [*program.blocks[:block], changed, *program.blocks[block + 1 :]]
    return replace(program, blocks=tuple(blocks))


def block_with(program: Program, op: Op) -> tuple[int, np.ndarray]:
    """The first block that has rows of an opcode, and those rows."""
    for index, block in enumerate(program.blocks):
        rows = np.flatnonzero(block.columns[80].op == op)
        if len(rows):
            return index, rows
    raise AssertionError(op)


def test_two_swapped_tiles_change_the_bits(pair: tuple[Step, Program, Arrays]) -> None:
    _, program, weights = pair
    block, rows = block_with(program, Op.MM)
    columns = program.blocks[block].columns[80]
    first = rows[0]
    alike = rows[(columns.chip[rows] == columns.chip[first]) & (columns.n[rows] == columns.n[first])]
    pair_of = [int(first), int(alike[1])]
    tiles = columns.src2[pair_of].tolist()
    swapped = edited(program, block, pair_of, src2=tiles[::-1])
    assert logits(swapped, weights) != logits(program, weights)


def test_a_product_of_another_line_changes_the_bits(pair: tuple[Step, Program, Arrays]) -> None:
    _, program, weights = pair
    block, rows = block_with(program, Op.MM)
    columns = program.blocks[block].columns[80]
    here = rows[columns.chip[rows] == columns.chip[rows[0]]]
    other = here[columns.src[here] != columns.src[here[0]]]
    assert len(other), "the program needs two k tiles for this"
    moved = edited(program, block, [int(here[0])], src=[int(columns.src[other[0]])])
    with contextlib.suppress(LinkError):
        assert logits(moved, weights) != logits(program, weights)


def test_a_dropped_transfer_stops_the_run(pair: tuple[Step, Program, Arrays]) -> None:
    _, program, weights = pair
    block, rows = block_with(program, Op.SEND)
    columns = program.blocks[block].columns[80]
    keep = np.delete(np.arange(len(columns)), rows[0])
    cut = replace(program.blocks[block], columns={80: columns.take(keep)})
    blocks = (*program.blocks[:block], cut, *program.blocks[block + 1 :])
    with pytest.raises(LinkError):
        prepare(replace(program, blocks=blocks), weights)


def test_an_equal_shaped_program_needs_no_second_compile(pair: tuple[Step, Program, Arrays]) -> None:
    jitted: Any = execute
    step, program, weights = pair
    logits(program, weights)
    before = jitted._cache_size()
    other = compiled(SMALL, "pair", tp=2, pp=1, placement="random", seed=3)[1]
    assert logits(other, made_up(step, 1)) != logits(program, weights)
    assert jitted._cache_size() == before


def test_other_layouts_and_counts_of_chips_need_no_second_compile() -> None:
    ways: list[dict[str, Any]] = [
        {"tp": 1},
        {"tp": 2, "placement": "random"},
        {"tp": 4, "layout": "row"},
        {"tp": 4, "layout": "2d"},
    ]
    found = [compiled(SMALL, "quad", **way) for way in ways]
    layouts = [
        entry.layout for step, program in found for entry in prepare(program, made_up(step)).entries.values()
    ]
    assert all(layout == layouts[0] for layout in layouts)


def test_a_handmade_program_multiplies_as_integers_do() -> None:
    """No compiler: cast to fp16, two k tiles, columns on two chips, against Python-exact int64 sums."""
    random = np.random.default_rng(0)
    table = random.integers(-40, 41, (16, 640)).astype(np.float16)
    values = random.integers(-7, 8, (640, 320))
    codes = np.array([0, 56, 64, 68, 72, 74, 76, 78], np.uint8)[np.abs(values)]  # e4m3 codes of 0 .. 7
    weights = {
        "embedding": table,
        "head": codes | np.where(values < 0, 0x80, 0).astype(np.uint8),
        "head_scale": np.zeros(320, np.int32),
    }
    program = matmul()
    program = replace(program, manifest=replace(program.manifest, vocab=320))
    machine = prepare(program, weights)
    for token in (0, 7):
        want = table[token].astype(np.int64) @ values
        result = machine.step(machine.start(), [token], [0])
        assert np.asarray(result.logits)[0].tolist() == want.tolist()
        assert np.asarray(result.token).tolist() == [int(np.argmax(want))]


def test_the_fast_decoder_knows_every_code() -> None:
    codes = np.delete(np.arange(256, dtype=np.uint8), [0x7F, 0xFF])
    fast, slow = decode(jnp.asarray(codes)), decode_small(jnp.asarray(codes))
    assert np.array_equal(np.asarray(fast).view(np.int64), np.asarray(slow).view(np.int64))


def test_parts_of_any_depth_of_k_add_exactly() -> None:
    """Parts as large as K = 37,449 makes them; without carries five of them no longer fit f64."""
    random = np.random.default_rng(0)
    high, low = random.integers(2**53 - 64, 2**53, 5), random.integers(2**52 - 64, 2**52, 5)
    parts = np.stack([high * 2.0**-13, low * 2.0**-33], axis=-1).reshape(1, 5, 2, 1, 1)
    total = total_of(jnp.asarray(parts))
    got = Fraction(float(total.high[0, 0, 0])) + Fraction(float(total.low[0, 0, 0]))
    assert got == Fraction(sum(map(int, high)), 2**13) + Fraction(sum(map(int, low)), 2**33)


def test_what_does_not_fit_is_one_line(pair: tuple[Step, Program, Arrays]) -> None:
    _, program, weights = pair
    name = "layers.0.attention.q.codes"

    def message(change: dict[str, Any]) -> str:
        with pytest.raises(MachineError) as error:
            prepare(program, {k: v for k, v in (weights | change).items() if v is not None})
        return str(error.value)

    assert message({name: None}) == f"run: weights lack {name}. They have {len(weights) - 1} tensors."
    assert "0x7F" in message({name: np.full_like(weights[name], 0x7F)})
    assert "must be uint8" in message({name: weights[name].astype(np.float32)})
    assert "has 10" in message({name: weights[name][:10]})
    assert "must be float16" in message({"embed.table": weights["embed.table"].astype(np.float32)})

    machine = prepare(program, weights)
    for tokens, positions, match in (
        ([0], [80], "position 80 is beyond the largest context, 80"),
        ([0], [-1], "position -1"),
        ([240], [0], "token 240"),
        ([0, 1], [0, 1], "have shape"),
    ):
        with pytest.raises(MachineError, match=match):
            machine.step(machine.start(), tokens, positions)
    infinite = weights | {"norm.gain": np.full_like(weights["norm.gain"], np.nan)}
    broken = prepare(program, infinite)
    with pytest.raises(MachineError, match="NaN or Inf"):
        broken.step(broken.start(), [0], [0])


def test_a_program_larger_than_memory_is_refused_before_it_is_loaded(
    pair: tuple[Step, Program, Arrays], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, program, weights = pair
    monkeypatch.setattr(host_memory, "free_bytes", lambda: 1000)
    with pytest.raises(MachineError, match=r"GB of host memory, 0\.0 GB are free"):
        prepare(program, weights)
