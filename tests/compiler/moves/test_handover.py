"""Hand-over programs: as short as the lanes allow, in fixed slots, the same every time."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from steps import llama

from compiler.errors import CompileError, OptionError
from compiler.moves.handover import compile_egress, compile_ingest, layer_slots
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.instructions.attention import stripe_tokens
from compiler.program.instructions.host import HandoverKernel
from compiler.program.isa import Op
from compiler.program.manifest import Move, Slot
from compiler.program.program import Program
from compiler.program.store import load, save
from fabric.bridge import BridgeSpec
from fabric.catalog import bridge_names, bridge_spec
from fabric.rack import load_rack

BRIDGE = bridge_spec("spectrum-x")


def program(layers: int = 2, kv_heads: int = 4, **options: Any) -> Program:
    source = llama(layers=layers, kv_heads=kv_heads)
    return compile_program(source, load_rack("quad"), CompileOptions(**options))


@pytest.fixture(scope="module")
def groups() -> Program:
    """Four layers on two groups of two chips, two heads a chip."""
    return program(layers=4, tp=2, pp=2)


def slots(made: Program) -> tuple[Slot, ...]:
    assert isinstance(made.manifest.body, Move)
    return made.manifest.body.slots


def kv_words_of(made: Program) -> int:
    kernel = made.manifest.kernels[0]
    assert isinstance(kernel, HandoverKernel)
    return kernel.kv_words


def starts(made: Program) -> list[int]:
    return [base for _, base, _ in slots(made)]


@pytest.mark.parametrize("name", bridge_names())
@pytest.mark.parametrize("cp", [1, 2])
def test_a_layer_takes_what_its_busiest_lane_takes(name: str, cp: int) -> None:
    decode, bridge = program(kv_heads=4 // cp, tp=4, pp=1, cp=cp), bridge_spec(name)
    made = compile_ingest(decode, 130, bridge)
    slot = bridge.slot_cycles(decode.manifest.clock_hz)
    columns = decode.expand(160)
    appends = columns.take(np.flatnonzero(columns.op == Op.KVW))
    busiest = int(np.bincount(appends.chip).max()) // 2
    tokens = 130 if cp == 1 else 80
    assert [cycles for *_, cycles in slots(made)] == [busiest * tokens * slot] * 2
    assert starts(made) == [0, slots(made)[0][2]]
    assert made.manifest.cycles[160] == 2 * slots(made)[0][2]


@pytest.mark.parametrize("tokens", [1, 81, 130])
def test_the_slots_of_layers_are_those_of_the_whole_hand_over(tokens: int) -> None:
    decode = program(kv_heads=2, tp=4, pp=1, cp=2)
    whole = compile_ingest(decode, tokens, BRIDGE)
    assert list(layer_slots(decode, tokens, BRIDGE)) == [cycles for *_, cycles in slots(whole)]
    with pytest.raises(OptionError, match="the longest context is 160"):
        layer_slots(decode, 161, BRIDGE)


def test_a_lane_never_beats_the_wire() -> None:
    made = compile_ingest(program(tp=4, pp=1), 100, BRIDGE)
    rows = made.expand(160)
    seconds = Fraction(int((rows.t1 - rows.t0).sum()), made.manifest.clock_hz)
    words = int(rows.n.sum()) * kv_words_of(made)
    assert words * 320 / seconds <= BRIDGE.lpu_bytes_per_second


def test_layers_that_arrive_together_overlap_on_other_chips_only(groups: Program) -> None:
    apart = compile_ingest(groups, 40, BRIDGE)
    cycles = slots(apart)[0][2]
    latency = -(-BRIDGE.latency_ns * groups.manifest.clock_hz // 10**9)
    together = compile_ingest(groups, 40, BRIDGE, arrivals=[0] * 4)
    assert starts(apart) == [0, cycles, 2 * cycles, 3 * cycles]
    chips = [call.chips[:2] for call in together.calls]
    assert chips[0] == chips[1] != chips[2] == chips[3]
    assert starts(together) == [latency, latency + cycles, latency, latency + cycles]
    assert together.manifest.cycles[160] == latency + 2 * cycles
    assert starts(compile_egress(groups, 40, BRIDGE)) == starts(apart)
    assert starts(compile_egress(groups, 40, BRIDGE, overlap=True)) == [0, cycles, 0, cycles]


def test_a_slot_waits_for_its_layer(groups: Program) -> None:
    cycles = slots(compile_ingest(groups, 40, BRIDGE))[0][2]
    latency = -(-BRIDGE.latency_ns * groups.manifest.clock_hz // 10**9)
    made = compile_ingest(groups, 40, BRIDGE, arrivals=[10, 20, 9 * cycles, 9 * cycles + 5])
    late = 9 * cycles + latency
    assert starts(made) == [10 + latency, 10 + latency + cycles, late, late + cycles]


@pytest.mark.parametrize("run", [80, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_no_stripe_gets_more_tokens_than_its_row_moves(count: int, run: int) -> None:
    for tokens in (1, 79, 80, 81, 160, 333, 800):
        most = 0
        for first in range(run * count):
            stripe = np.arange(first, first + tokens) // run % count
            most = max(most, int(np.bincount(stripe, minlength=count).max()))
        assert stripe_tokens(tokens, count, run) == most


def test_equal_inputs_give_equal_bytes_and_others_another_digest(groups: Program, tmp_path: Path) -> None:
    made = [compile_ingest(groups, 40, BRIDGE) for _ in range(2)]
    for name, one in zip("ab", made, strict=True):
        (tmp_path / name).mkdir()
        save(one, tmp_path / name)
    for file in ("manifest.json", "columns.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert load(tmp_path / "a").manifest == made[0].manifest
    others = [
        compile_ingest(groups, 41, BRIDGE),
        compile_ingest(groups, 40, bridge_spec("fpga-400g")),
        compile_ingest(groups, 40, replace(BRIDGE, latency_ns=5000)),
        compile_ingest(groups, 40, BRIDGE, arrivals=[0] * 4),
        compile_egress(groups, 40, BRIDGE),
        compile_egress(groups, 40, BRIDGE, overlap=True),
    ]
    digests = {one.manifest.digest for one in (*made, *others, groups)}
    assert len(digests) == len(others) + 2


def test_its_manifest_says_what_it_is(groups: Program) -> None:
    made = compile_ingest(groups, 40, BRIDGE)
    body = made.manifest.body
    assert isinstance(body, Move)
    assert (body.kind, body.tokens, body.layers) == ("ingest", 40, 4)
    assert body.bridge == replace(BRIDGE, sources=())
    assert body.program == groups.manifest.digest
    assert made.manifest.regions == groups.manifest.regions
    assert ("bridge.latency_ns", "assumed") in [(s.field, s.confidence) for s in made.manifest.sources]
    assert len(made.blocks) == 1  # equal layers share their rows
    assert compile_egress(groups, 40, BRIDGE).manifest.kind == "egress"


def without_cache(decode: Program) -> Program:
    """The program with blocks that append to no KV."""
    blocks = [
        replace(b, columns={c: rows.take(rows.op != Op.KVW) for c, rows in b.columns.items()})
        for b in decode.blocks
    ]
    return replace(decode, blocks=tuple(blocks))


def two_attentions(decode: Program) -> Program:
    """The program with an append that another attention makes, too."""

    def twice(block: Any) -> Any:
        rows = block.columns[160]
        again = np.concatenate([np.arange(len(rows)), np.flatnonzero(rows.op == Op.KVW)])
        return replace(block, columns={160: rows.take(again)})

    return replace(decode, blocks=tuple(twice(block) for block in decode.blocks))


REFUSED: dict[str, tuple[Callable[[Program, BridgeSpec], Any], type[CompileError], str]] = {
    "no tokens": (lambda p, b: compile_ingest(p, 0, b), OptionError, "tokens: are 0, the longest .* 160"),
    "too many": (lambda p, b: compile_egress(p, 161, b), OptionError, "egress: tokens: are 161.*1 to 160"),
    "an arrival too few": (
        lambda p, b: compile_ingest(p, 8, b, arrivals=[0]),
        OptionError,
        "are 1, the program has 4 layers",
    ),
    "an arrival before the start": (
        lambda p, b: compile_ingest(p, 8, b, arrivals=[0, -5, 0, 0]),
        OptionError,
        "begin at -5, must be at least 0",
    ),
    "no KV": (lambda p, b: compile_ingest(without_cache(p), 8, b), OptionError, "keeps nothing of 0 layers"),
    "two attentions in a block": (
        lambda p, b: compile_ingest(two_attentions(p), 8, b),
        CompileError,
        "its 8 KV regions are not those of 1 attention",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_handed_over_is_refused_in_one_line(groups: Program, name: str) -> None:
    compiled, error, message = REFUSED[name]
    with pytest.raises(error, match=message) as caught:
        compiled(groups, BRIDGE)
    assert "\n" not in str(caught.value)


def test_streams_of_several_users_have_no_hand_over_yet() -> None:
    waves = program(tp=2, objective="throughput", users=2)
    with pytest.raises(OptionError, match="keeps KV of 2 groups of users, a hand-over knows 1"):
        compile_ingest(waves, 8, BRIDGE)
