"""Experts in DDR5: the bits of experts in SRAM, exact cycles, and every fault of the lanes is found."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from beside import Arrays, bits
from handmade import change
from mixtures import MIXTURE, OSS, assert_bits, drawn, mixture
from slow import slow_but

from compiler.analyse.early import cold_tables, lane_bytes
from compiler.errors import CompileError, OptionError
from compiler.moves.switch import compile_switch
from compiler.program.instructions.cold import ColdTileKernel
from compiler.program.isa import COLD, F32_LANES, WORD_BYTES, Columns, Op
from compiler.program.manifest import Switch
from compiler.program.program import Program
from compiler.program.store import load, save, sealed
from lpu.check.check import check
from lpu.check.follow.image import check_switch
from lpu.link.link import LinkError, link
from lpu.prove.prove import prove
from lpu.report.program import program_facts
from lpu.routing.worst_case import routing
from lpu.run.machine import prepare
from models.step import Step

SLOT = 38  # cycles of a word of lp30 over its lane: 320 bytes at 12.5 GB/s
Case = tuple[Any, str, int, dict[str, Any]]
WIDE = replace(MIXTURE, name="wide", hidden=640)
PAIR: Case = (WIDE, "pair", 1, {"tp": 2, "pp": 1, "cold": 0.5})
LAYERS = replace(MIXTURE, name="two-layers", layers=2, hidden=128, ffn=64)
CASES: dict[str, Case] = {
    "two chips": PAIR,
    "three rows": (MIXTURE, "pair", 3, {"tp": 2, "pp": 1, "cold": 0.5}),
    "five rows, a slot for each": (LAYERS, "quad", 5, {"tp": 4, "pp": 1, "cold": 0.75}),
    "gpt-oss": (OSS, "quad", 1, {"tp": 4, "pp": 1, "cold": 0.5}),
    "gpt-oss by rows, two rows": (OSS, "quad", 2, {"tp": 4, "pp": 1, "layout": "row", "cold": 0.25}),
}


def of(case: Case) -> Any:
    """(step, program) of a case."""
    config, rack, batch, options = case
    return mixture(config, rack, batch, tuple(options.items()))


@pytest.mark.parametrize("case", slow_but(("two chips",), CASES))
def test_bits_equal_the_model_and_the_program_is_proved(case: str) -> None:
    step, program = of(CASES[case])
    report = check(program, 80)
    assert report.ok, str(report)
    found = prove(program)
    assert found.ok, found.reason
    assert_bits(step, program, drawn(step))


def rows_of(program: Program) -> Columns:
    """The rows of its first block with fetched tiles."""
    return next(c for b in program.blocks for c in b.columns.values() if (c.op == Op.FETCHX).any())


def test_a_step_takes_what_the_lanes_take() -> None:
    """A word takes 38 cycles of a lane; what lies in DDR5 takes a word for each expert and tile in SRAM."""
    _, program = of(PAIR)
    rows = rows_of(program)
    mine = rows.take(rows.op == Op.FETCHX)
    held = [int((mine.t1 - mine.t0)[mine.chip == chip].sum()) for chip in range(2)]
    words = [int(mine.n[mine.chip == chip].sum()) * F32_LANES for chip in range(2)]
    assert held == [SLOT * one for one in words]
    assert lane_bytes(program) == max(words) * WORD_BYTES
    (table,) = cold_tables(program)
    assert (table.first, table.held, table.slots) == (4, 4, 2)
    assert program.manifest.cycles[80] >= max(held)
    whole = of((*PAIR[:3], {"tp": 2, "pp": 1}))[1]
    kept = [int(one.manifest.region_table()[:, 2, 1].sum()) for one in (program, whole)]
    loads = next(b.loads for b in program.blocks if (b.loads.kind == COLD).any())
    away = loads.words[loads.kind == COLD]
    lines = loads.lines[loads.kind == COLD]
    twice = 3  # lines of scales, which a second table of slots has again
    assert kept[1] - kept[0] == int((away * F32_LANES * lines).sum() - away.sum()) - twice


def test_it_is_read_from_a_folder_and_the_report_says_what_lies_where(tmp_path: Any) -> None:
    _, program = of(PAIR)
    save(sealed(program), tmp_path)
    assert load(tmp_path).manifest.options.cold == 0.5
    said = dict(program_facts(program))["cold"]
    assert said.startswith("experts 4-7 of 8 of each layer in DDR5; a step fetches 2 of them for any routing")


def test_the_mean_routing_fetches_less() -> None:
    """Of two experts one lies in DDR5 in the mean: its tiles are half of what the worst routing fetches."""
    _, program = of(PAIR)
    cost = routing(program)
    assert cost is not None
    saved = cost.cycles[80] - cost.mean_cycles[80]
    assert saved >= lane_bytes(program) // WORD_BYTES * SLOT // 2


def wanting(step: Step, sign: int, *experts: int) -> Arrays:
    """Weights of a router that prefers these experts where a lane has this sign, or else any others."""
    weights = {name: np.array(value) for name, value in drawn(step).items()}
    weights["layers.0.ffn.norm.gain"][:] = 0
    weights["layers.0.ffn.norm.gain"][0] = sign
    weights["layers.0.ffn.router.halves"][:] = 0
    weights["layers.0.ffn.router.halves"][0, list(experts)] = 1000
    return weights


def test_slots_follow_a_router_that_wants_cold_experts_alone_or_none() -> None:
    step, program = of(PAIR)
    for sign, experts in product((1, -1), ((6, 7), (0, 1), (3, 4))):
        assert_bits(step, program, wanting(step, sign, *experts), steps=1)


def fault(op: Op, number: int = 0, **fields: int) -> Callable[[Columns], Columns]:
    return lambda c: change(c, int(np.flatnonzero(c.op == op)[number]), **fields)


def dropped(c: Columns) -> Columns:
    return c.take(np.arange(len(c)) != np.flatnonzero(c.op == Op.FETCHX)[0])


def sooner(c: Columns) -> Columns:
    """A tile over a lane while the one before is still on it."""
    mine = np.flatnonzero(c.op == Op.FETCHX)
    row = int(mine[np.argmax(c.t0[mine])])
    return change(c, row, t0=int(c.t0[row]) - 100, t1=int(c.t1[row]) - 100)


def faster(c: Columns) -> Columns:
    row = int(np.flatnonzero(c.op == Op.FETCHX)[0])
    return change(c, row, t1=int(c.t1[row]) - 1)


def of_another(name: str) -> Callable[[Columns], Columns]:
    """A tile fetched for another slot, or from other places, than the product says."""

    def wrong(c: Columns) -> Columns:
        mine = np.flatnonzero(c.op == Op.FETCHX)
        row = int(mine[0])
        value, tags = getattr(c, name), getattr(c, f"{name}_tag")
        alike = (c.chip[mine] == c.chip[row]) & (c.n[mine] == c.n[row]) & (value[mine] != value[row])
        like = int(mine[alike][0])
        return change(c, row, **{name: int(value[like]), f"{name}_tag": int(tags[like])})

    return wrong


def all_of_one_slot(c: Columns) -> Columns:
    """Every tile is fetched for the slot that the first is for."""
    mine = np.flatnonzero(c.op == Op.FETCHX)
    chip, first = np.unique(c.chip[mine], return_index=True)
    own = mine[first][np.searchsorted(chip, c.chip[mine])]
    src, tags = c.src.copy(), c.src_tag.copy()
    src[mine], tags[mine] = c.src[own], c.src_tag[own]
    return replace(c, src=src, src_tag=tags)


def exchanged(c: Columns) -> Columns:
    """A product takes the copy of the next one."""
    mine = np.flatnonzero(c.op == Op.XMF)
    row = int(mine[0])
    other = next(r for r in mine[1:].tolist() if c.chip[r] == c.chip[row] and c.n[r] == c.n[row])
    return change(c, row, src2=int(c.src2[other]), src2_tag=int(c.src2_tag[other]))


FAULTS: dict[str, tuple[Callable[[Columns], Columns], int]] = {
    "a tile that is never fetched": (dropped, 2),
    "two tiles on one lane at once": (sooner, 1),
    "a lane that is faster than it is": (faster, 6),
    "a tile of another slot": (of_another("src"), 7),
    "a tile from other places": (of_another("src3"), 7),
    "a product with another copy": (exchanged, 2),
    "more lines than the tile has": (fault(Op.XMF, n=3), 0),
}


def changed(program: Program, change_of: Callable[[Columns], Columns]) -> Program:
    """The program with the rows of its first block with fetched tiles changed."""
    at = next(i for i, one in enumerate(program.blocks) if (one.columns[80].op == Op.FETCHX).any())
    block = program.blocks[at]
    columns = {**block.columns, 80: change_of(block.columns[80])}
    blocks = (*program.blocks[:at], replace(block, columns=columns), *program.blocks[at + 1 :])
    return replace(program, blocks=blocks)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_by_the_check(name: str) -> None:
    how, rule = FAULTS[name]
    assert check(changed(of(PAIR)[1], how), 80).counts[rule] > 0


@pytest.mark.parametrize("name", [name for name, (_, rule) in FAULTS.items() if rule not in (1, 6)])
def test_the_proof_refuses_what_is_not_the_model(name: str) -> None:
    assert not prove(changed(of(PAIR)[1], FAULTS[name][0])).ok


def kernels(program: Program, **fields: Any) -> Program:
    new = tuple(
        replace(k, **fields) if isinstance(k, ColdTileKernel) else k for k in program.manifest.kernels
    )
    return replace(program, manifest=replace(program.manifest, kernels=new))


def all_faster(c: Columns) -> Columns:
    mine = c.op == Op.FETCHX
    return replace(c, t1=np.where(mine, c.t0 + c.n * F32_LANES * (SLOT - 1), c.t1))


def test_the_checker_knows_the_lane() -> None:
    quick = changed(kernels(of(PAIR)[1], host_slot=SLOT - 1), all_faster)
    assert "a word takes 37 cycles, lane and DDR5 give one in 38" in str(check(quick, 80))


FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "a fixed expert": ({"expert": 1}, "its kernel takes a fixed expert, or halves"),
    "of other rows": ({"rows": 2}, "its kernel copies for 2 rows, the program has 1"),
    "of other experts": ({"experts": 3}, "needs"),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_checker_knows_lane_and_form(name: str) -> None:
    fields, text = FORMS[name]
    assert text in str(check(kernels(of(PAIR)[1], **fields), 80))


def test_ddr5_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    _, program = of(PAIR)
    small = type("Small", (), {"lane": 12_500_000_000, "ddr5": 204_800_000_000, "capacity": 1000})
    monkeypatch.setattr("lpu.check.follow.early.RESERVOIR", small)
    assert "bytes, their DDR5 1000" in str(check(program, 80))


def test_another_slot_gives_other_bits_and_no_tile_does_not_link() -> None:
    step, program = of(PAIR)
    wrong = changed(program, all_of_one_slot)
    differs = 0
    for sign in (1, -1):  # one of them chooses two experts in DDR5
        machines = [prepare(one, wanting(step, sign, 5, 6)) for one in (program, wrong)]
        good, bad = (m.step(m.start(), np.array([5]), np.array([0])).logits for m in machines)
        differs += bits(good) != bits(bad)
    assert differs
    with pytest.raises(LinkError, match=r"nothing has written yet|not one whole result|wrote"):
        link(program.manifest, program.loads(), changed(program, dropped).expand(80))


def test_a_switch_waits_for_lanes_that_steps_use() -> None:
    _, before = of(PAIR)
    _, after = of((*PAIR[:3], {"tp": 2, "pp": 1}))
    before, after = sealed(before), sealed(after)
    small = of((*PAIR[:3], {"tp": 1, "pp": 1}))[1]  # with no word where the other chip needs any
    for first, waits in ((before, True), (sealed(small), False)):
        brought = compile_switch(first, after)
        assert isinstance(brought.manifest.body, Switch)
        assert (brought.manifest.body.stop == 0) == waits
        assert check_switch(first, after, brought).ok


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "all of them": ({"cold": 1.0}, "--cold 1: must be above 0 and below 1"),
    "no number": ({"cold": float("nan")}, "--cold nan: must be above 0 and below 1"),
    "waves": ({"cold": 0.5, "objective": "throughput"}, "goes with --objective latency, not throughput"),
    "fewer slots": ({"cold": 0.5, "experts": "drop:2"}, "goes with --experts exact, not drop:2"),
    "less than one": ({"cold": 0.1}, "--cold 0.1: is none of"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_line(name: str) -> None:
    bad, text = BAD[name]
    with pytest.raises(OptionError) as refused:
        mixture(MIXTURE, "pair", 1, tuple({"tp": 2, "pp": 1, **bad}.items()))
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_step_that_is_too_long_is_refused_with_both_rates() -> None:
    text = r"the limit is 10; its \d+ bytes of experts would need .* gives 12.5"
    with pytest.raises(CompileError, match=text):
        mixture(MIXTURE, "pair", 1, (*PAIR[3].items(), ("step_limit", 10.0)))
