"""Latent attention on chips: the bits of one device on any number of them; every fault of it is found."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from beside import assert_same, compiled, made_up
from handmade import change
from models_named import of_model
from slow import slow_but

from compiler.errors import CompileError, OptionError
from compiler.lower.layout import evenly
from compiler.moves.handover import compile_ingest
from compiler.program.instructions.attention import LatentAttentionKernel
from compiler.program.isa import Columns, Op
from compiler.program.program import Block, Loads, Program
from compiler.timing import timing
from fabric.catalog import bridge_spec
from fabric.rack import load_rack
from lpu.check.check import check, check_columns, require
from lpu.prove.prove import prove
from lpu.run.machine import prepare
from models.catalog import catalog
from models.configs.latent import LatentConfig


def latent(name: str) -> LatentConfig:
    """A model of the catalog that has latent attention."""
    found = catalog(name)
    assert isinstance(found, LatentConfig)
    return found


TINY = latent("mla-tiny")
ONE_Q = replace(TINY, name="no-q-lora", q_lora=None, layers=1)
WIDE = replace(  # heads on two and three lines, so that tiles of a head and its neighbour meet
    TINY, name="wide", layers=1, heads=6, kv_lora=400, nope=176, rope=24, value=168, head_dim=200
)
CONTEXT = 80
POSITIONS = [[0], [1], [2], [78], [79]]


@pytest.fixture(scope="module")
def program() -> Program:
    return compiled(TINY, "quad", contexts=(CONTEXT,), tp=2, pp=1)[1]


CASES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "one chip": (TINY, "quad", {"tp": 1}),
    "one head": (replace(TINY, heads=1, layers=1), "pair", {"tp": 2}),
    "two chips": (TINY, "quad", {"tp": 2}),
    "four chips, a head each": (TINY, "quad", {"tp": 4}),
    "three chips, two of them with heads": (TINY, "quad", {"tp": 3}),
    "more chips than heads": (TINY, "lpx", {"tp": 8}),
    "rows and columns": (TINY, "quad", {"tp": 4, "layout": "2d"}),
    "rows": (TINY, "quad", {"tp": 4, "layout": "row"}),
    "one matrix for the queries": (ONE_Q, "quad", {"tp": 2}),
    "latents on every chip": (replace(TINY, q_lora=320, layers=1), "quad", {"tp": 4}),
    "wide heads": (WIDE, "quad", {"tp": 2}),
    "wide heads, any scales": (replace(WIDE, column_scales="f32"), "quad", {"tp": 3}),
}


@pytest.mark.parametrize("name", slow_but(["two chips"], CASES))
def test_the_bits_are_those_of_one_device(name: str) -> None:
    config, rack, options = CASES[name]
    step, program = compiled(config, rack, contexts=(CONTEXT,), pp=1, **options)
    require(check(program, CONTEXT))
    assert_same(step, program, POSITIONS)


def test_heads_of_a_chip_are_cut_in_runs_where_that_keeps_planes_no_longer(program: Program) -> None:
    """Of 80 tokens two heads stream longer than keys take to be installed; of 512 they do not."""

    def group(of: Program) -> set[int]:
        return {k.group for k in of.manifest.kernels if isinstance(k, LatentAttentionKernel)}

    assert group(program) == {1}
    assert group(compiled(TINY, "pair", contexts=(512,), tp=2, pp=1)[1]) == {2}


@pytest.mark.slow
def test_buckets_batches_and_fp8_have_the_bits_too() -> None:
    config = replace(TINY, attention_block=80)
    step, program = compiled(config, "quad", contexts=(60, 250), batch=5, kv="fp8", tp=4, pp=1)
    for context in (60, 250):
        require(check(program, context))
    assert_same(step, program, [[0, 20, 59, 3, 7], [1, 81, 249, 4, 8], [2, 160, 240, 5, 9]])


def test_one_head_is_proved_too() -> None:
    """Its product by heads is a product."""
    config, rack, options = CASES["one head"]
    _, made = compiled(config, rack, contexts=(CONTEXT,), pp=1, **options)
    found = prove(of_model(made, replace(config, max_context=CONTEXT)))
    assert found.ok, found.reason


def test_every_chip_with_heads_keeps_all_latents(program: Program) -> None:
    step, _ = compiled(TINY, "quad", contexts=(CONTEXT,), tp=2, pp=1)
    machine = prepare(program, made_up(step))
    state = machine.step(machine.start(), np.array([5]), np.array([0])).state
    (keys,), (values,) = (tuple(map(np.asarray, one)) for one in (state.keys, state.values))
    assert keys.shape == (2 * TINY.layers, 1, CONTEXT, TINY.rope)
    assert values.shape == (2 * TINY.layers, 1, CONTEXT, TINY.kv_lora)
    for copies in (keys, values):
        assert np.array_equal(copies[: TINY.layers], copies[TINY.layers :])
        assert np.abs(copies[:, 0, 0]).sum() > 0 == np.abs(copies[:, 0, 1:]).sum()
    words = [chip[1][1] for chip in program.manifest.regions]
    tokens = TINY.layers * CONTEXT
    assert words == [tokens, tokens, 0, 0]  # 128 fp16 numbers in one word of 320 bytes


def test_the_token_bytes_of_every_region_are_those_of_a_latent_and_its_turned_key(program: Program) -> None:
    (kernel,) = [one for one in program.manifest.kernels if isinstance(one, LatentAttentionKernel)]
    assert kernel.head_dim + kernel.key_lanes == TINY.kv_lora + TINY.rope
    assert kernel.token_words == -(-2 * (TINY.kv_lora + TINY.rope) // 320)
    v3 = replace(kernel, head_dim=512, turned=64, kv="fp8")
    assert (v3.token_words, replace(v3, kv="fp16").token_words) == (2, 4)


def test_planes_take_a_key_of_576_lanes_in_two_tiles_as_they_do_a_value_of_512() -> None:
    chip = load_rack("lpx").chip
    kernel = LatentAttentionKernel(
        head_dim=512, turned=64, sigma=0.1, group=16, block=512, chunk=512, chunks=16, kv="fp8",
        kv_words=2, kv_stride=16384, capacity=8192, rows=1, sequences=1, cached=1, run=8192,
    )  # fmt: skip
    scores, values = (int(timing(op, 1, kernel, chip, 1)[0]) for op in (Op.QK, Op.PV))
    rate = chip.plane_bytes_per_cycle
    streamed = 2 * 2 * 16  # two tiles of tokens, two of lanes, sixteen heads
    assert scores == max(-(-512 * 576 // rate), streamed)
    assert values == max(-(-512 * 513 // rate), streamed)
    narrow = replace(kernel, head_dim=256, turned=64)
    many = replace(kernel, group=64)
    assert int(timing(Op.QK, 1, replace(many, head_dim=256, turned=64), chip, 1)[0]) == 2 * 64
    assert int(timing(Op.QK, 1, many, chip, 1)[0]) == 2 * 2 * 64
    assert int(timing(Op.QK, 1, narrow, chip, 1)[0]) < scores


@pytest.mark.parametrize(
    ("segments", "ranks", "wanted"),
    [(4, 2, [0, 0, 1, 1]), (4, 3, [0, 0, 1, 1]), (6, 4, [0, 0, 1, 1, 2, 2]), (2, 8, [0, 4]), (5, 4, [0] * 5)],
)
def test_heads_are_dealt_evenly(segments: int, ranks: int, wanted: list[int]) -> None:
    assert evenly(segments, ranks).tolist() == wanted


def fault(op: Op, number: int = 0, **fields: int) -> Callable[[Columns], Columns]:
    return lambda c: change(c, int(np.flatnonzero(c.op == op)[number]), **fields)


def without_copy(c: Columns) -> Columns:
    """One chip appends nothing."""
    return c.take(np.arange(len(c)) != np.flatnonzero(c.op == Op.KVW)[0])


FAULTS: dict[str, Callable[[Columns], Columns]] = {
    "a copy not appended to": without_copy,
    "queries of one line too few": fault(Op.QK, src=0),
    "a block left out": fault(Op.AOUT, n=2),
    "another stripe": fault(Op.KVW, src3=1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found(program: Program, name: str) -> None:
    columns = program.expand(CONTEXT)
    assert check_columns(program.manifest, program.loads(), columns).ok
    assert not check_columns(program.manifest, program.loads(), FAULTS[name](columns)).ok


def attention_block(program: Program) -> int:
    return next(i for i, b in enumerate(program.blocks) if (b.columns[CONTEXT].op == Op.KVW).any())


def with_block(program: Program, make: Callable[[Block], Block]) -> Program:
    blocks = list(program.blocks)
    at = attention_block(program)
    blocks[at] = make(blocks[at])
    return replace(program, blocks=tuple(blocks))


def with_rows(make: Callable[[Columns], Columns]) -> Callable[[Block], Block]:
    return lambda block: replace(block, columns={CONTEXT: make(block.columns[CONTEXT])})


def key_for_latent(c: Columns) -> Columns:
    """Both operands of the appends exchanged: a latent where turned keys are kept."""
    rows = c.op == Op.KVW
    changed = {}
    for one, other in (("src", "src2"), ("src2", "src"), ("src_tag", "src2_tag"), ("src2_tag", "src_tag")):
        changed[one] = np.where(rows, getattr(c, other), getattr(c, one))
    return replace(c, **changed)


def of_another_head(name: str, field: str, by: int) -> Callable[[Program], Callable[[Block], Block]]:
    """The first tile, or scales, of a matrix of heads taken from elsewhere."""

    def make(program: Program) -> Callable[[Block], Block]:
        call = next(call for call in program.calls if call.block == attention_block(program))
        slot = next(i for i, tensor in enumerate(call.tensors) if tensor.endswith(name))

        def changed(loads: Loads) -> Loads:
            values = getattr(loads, field).copy()
            values[np.flatnonzero(loads.tensor == slot)[0]] += by
            return replace(loads, **{field: values})

        return lambda block: replace(block, loads=changed(block.loads))

    return make


MUTANTS: dict[str, Callable[[Program], Callable[[Block], Block]]] = {
    "keys for latents": lambda program: with_rows(key_for_latent),
    "queries one line further": lambda program: with_rows(
        lambda c: change(c, int(np.flatnonzero(c.op == Op.QK)[0]), src=int(c.src[c.op == Op.QK][0]) + 1)
    ),
    "columns of another head": of_another_head("absorb.codes", "n0", 160),
    "rows of another head": of_another_head("absorb.codes", "k0", 160),
    "scales of another head": of_another_head("expand.exponent", "n0", 80),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_no_mutant_is_proved(program: Program, name: str) -> None:
    named = of_model(program, TINY)
    assert prove(named).ok
    found = prove(with_block(named, MUTANTS[name](named)))
    assert not found.ok
    assert "layers.0" in found.reason or "KV" in found.reason


def test_a_context_cannot_be_dealt_over_chips() -> None:
    with pytest.raises(OptionError, match="every chip with heads keeps all latents"):
        compiled(TINY, "quad", contexts=(CONTEXT,), tp=4, pp=1, cp=2)


@pytest.mark.slow
def test_every_chip_computes_all_latents_itself() -> None:
    """So nothing crosses a link between a layer's input and the product with its heads' results."""
    _, program = compiled(replace(TINY, q_lora=320, layers=1), "quad", contexts=(CONTEXT,), tp=4, pp=1)
    require(check(program, CONTEXT))
    block = program.blocks[attention_block(program)]
    call = next(call for call in program.calls if call.block == attention_block(program))
    for matrix in ("q_a", "kv_a", "k_rope"):
        slot = next(i for i, tensor in enumerate(call.tensors) if tensor.endswith(f"{matrix}.codes"))
        chips, tiles = np.unique(block.loads.chip[block.loads.tensor == slot], return_counts=True)
        assert chips.tolist() == [0, 1, 2, 3]
        assert len(set(tiles.tolist())) == 1
    rows = block.columns[CONTEXT]
    scores = rows.t0[rows.op == Op.QK].max()
    assert not ((rows.op == Op.SEND) & (rows.t0 > 0) & (rows.t1 <= scores)).any()
    named = of_model(program, replace(TINY, q_lora=320, layers=1, max_context=CONTEXT))
    assert prove(named).ok


def test_latents_are_not_handed_over_as_heads(program: Program) -> None:
    with pytest.raises(CompileError, match="2 chips keep copies of a latent of 96 lanes"):
        compile_ingest(program, 8, bridge_spec("fpga-400g"))
