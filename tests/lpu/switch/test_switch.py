"""Switches: what comes when over which lane, never over words in use, and every rule has its breach."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handmade import change

from compiler.errors import CapacityError, OptionError
from compiler.moves.switch import compile_switch
from compiler.program.isa import Op
from compiler.program.manifest import Region, Regions, Switch
from compiler.program.program import Program
from compiler.program.store import sealed
from fabric.host import RESERVOIR, Reservoir, hubs
from lpu import api
from lpu.check.check import check, require
from lpu.check.follow.image import check_switch
from lpu.cli.app import main
from lpu.decode.decoders import machine_of, reference_params
from lpu.folder import load_program, save_into
from lpu.inputs.document import FileError
from lpu.run.machine import Machine
from models.kv import empty_cache

MODEL = api.open_model("llama-tiny", context=64)
NOTHING = Regions(Region(0, 0), Region(0, 0), Region(0, 0))
Change = Callable[[Program], Program]


def made(tp: int, rack: str = "quad", **options: Any) -> Program:
    return api.compile(MODEL, rack=rack, tp=tp, pp=1, prove=False, **options).program


@pytest.fixture(scope="module")
def before() -> Program:
    """On chip 0."""
    return made(1)


@pytest.fixture(scope="module")
def after() -> Program:
    """On chips 0 and 1."""
    return made(2)


@pytest.fixture(scope="module")
def brought(before: Program, after: Program) -> Program:
    return compile_switch(before, after)


def body_of(program: Program) -> Switch:
    assert isinstance(program.manifest.body, Switch)
    return program.manifest.body


def saying(**fields: Any) -> Change:
    """The program with other claims about the switch."""
    return lambda p: replace(p, manifest=replace(p.manifest, body=replace(body_of(p), **fields)))


def row(call: int, which: int = 0, **fields: int) -> Change:
    """The program with another row in the block of a call."""

    def edit(program: Program) -> Program:
        blocks = list(program.blocks)
        block = blocks[at := program.calls[call].block]
        ((context, rows),) = block.columns.items()
        blocks[at] = replace(block, columns={context: change(rows, which, **fields)})
        return replace(program, blocks=tuple(blocks))

    return edit


def call(which: int, **fields: Any) -> Change:
    def edit(program: Program) -> Program:
        calls = list(program.calls)
        calls[which] = replace(calls[which], **fields)
        return replace(program, calls=tuple(calls))

    return edit


def found(program: Program, rule: int) -> list[str]:
    report = check(program, program.manifest.longest)
    return [one.message for one in report.violations if one.rule == rule]


def test_words_that_are_in_use_come_when_the_program_before_has_stopped(
    before: Program, after: Program, brought: Program
) -> None:
    require(check(brought, 64))
    require(check_switch(before, after, brought))
    rows, stop = brought.expand(64), body_of(brought).stop
    assert stop % before.manifest.cycles[64] == 0
    held = body_of(brought).held
    assert held == before.manifest.regions
    assert held[0].weights.words > 0
    assert held[1].weights.words == 0
    late = rows.chip[rows.t0 >= stop]
    assert set(late.tolist()) == {0}
    assert (rows.chip[rows.t0 < stop] == 1).any()
    words = after.manifest.region_table()[:, 2, 1].sum()
    assert rows.n.sum() == words


def test_one_that_stops_first_has_all_lanes_at_once(before: Program, after: Program) -> None:
    stopped = compile_switch(before, after, serving=False)
    require(check(stopped, 64))
    require(check_switch(before, after, stopped))
    assert body_of(stopped).stop == 0
    lane = after.manifest.region_table()[:, 2, 1].max()
    assert stopped.manifest.cycles[64] == lane * RESERVOIR.slot_cycles(after.manifest.clock_hz)


def test_waves_run_out_before_anything_comes(after: Program) -> None:
    waves = made(2, objective="throughput", users=2)
    switched = compile_switch(waves, after)
    require(check(switched, 64))
    require(check_switch(waves, after, switched))
    assert int(switched.expand(64).t0.min()) == body_of(switched).stop == waves.manifest.cycles[64]


def test_a_chip_without_room_at_its_ports_takes_nothing_beside(before: Program, after: Program) -> None:
    fast = Reservoir(lane=10**15, ddr5=10**16)
    assert fast.slot_cycles(after.manifest.clock_hz) == 1

    def with_ports(count: int, one: Program) -> Program:
        return replace(
            one, manifest=replace(one.manifest, chip=replace(one.manifest.chip, activation_ports=count))
        )

    least = next(count for count in range(1, 99) if check(with_ports(count, before), 64).ok)
    narrow = [with_ports(least, one) for one in (before, after)]
    switched = compile_switch(narrow[0], narrow[1], fast)
    require(check(switched, 64))
    require(check_switch(narrow[0], narrow[1], switched))
    rows, stop = switched.expand(64), body_of(switched).stop
    assert set(rows.chip[rows.t0 < stop].tolist()) == {1}
    forged = saying(stop=switched.manifest.cycles[64] * 2, held=(NOTHING,) * 4)(switched)
    report = check_switch(narrow[0], narrow[1], forged)
    assert any(one.rule == 3 and "beside the program before" in one.message for one in report.violations)


BROKEN: dict[str, tuple[Change, int, str]] = {
    "two words on a lane at once": (call(1, base={64: 0}), 1, "needs unit 12, held until cycle"),
    "the lane out": (row(0, unit=13), 1, "on unit 13, units 12 .. 12 do this"),
    "over words in use": (lambda p: saying(stop=body_of(p).stop * 2)(p), 2, "the program before has words"),
    "a word twice": (row(0, dst=(1 << 40) + 4), 3, "which another row writes too"),
    "outside the weights": (row(0, dst=(1 << 40) + (1 << 30)), 5, "has its weights region"),
    "too fast": (row(0, t1=5), 6, "takes 5 cycles, must take"),
    "another word of the DDR5": (row(0, src3=7), 7, "brings word 7 of the DDR5"),
    "a DDR5 that is too small": (saying(reservoir=Reservoir(capacity=10**6)), 5, "their DDR5 1000000"),
    "a slower lane": (saying(reservoir=Reservoir(lane=10**9)), 6, "lane and DDR5 give one in"),
    "claims about other chips": (saying(held=()), 0, "held is of 0 chips, there are 4"),
    "a row of a step": (row(0, op=int(Op.CAST)), 0, "is no row of a program of kind 'switch'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_switch_that_breaks_a_rule_is_found(brought: Program, name: str) -> None:
    edit, rule, words = BROKEN[name]
    assert any(words in message for message in found(edit(brought), rule)), name


BETWEEN: dict[str, tuple[Change, int, str]] = {
    "a call left out": (lambda p: replace(p, calls=p.calls[:-1]), 2, "some is not brought"),
    "words that nobody needs": (row(2, n=10**5), 2, "some is not needed"),
    "another program before": (saying(before="0" * 64), 0, "the program before is 0000"),
    "another program after": (saying(after="0" * 64), 0, "the program after is 0000"),
    "a stop within a step": (lambda p: saying(stop=body_of(p).stop + 1)(p), 2, "ends steps every"),
    "less held than there is": (saying(held=(NOTHING,) * 4), 2, "held are no words, the program before has"),
    "KV that is another one": (saying(keeps=True), 7, "in order: (0,"),
    "of another kind": (lambda p: replace(p, manifest=replace(p.manifest, body=api.compile(
        MODEL, rack="quad", tp=1, pp=1, prove=False).program.manifest.body)), 0, "must be 'switch'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BETWEEN)
def test_a_switch_between_other_programs_is_found(
    before: Program, after: Program, brought: Program, name: str
) -> None:
    edit, rule, words = BETWEEN[name]
    report = check_switch(before, after, edit(brought))
    assert any(one.rule == rule and words in one.message for one in report.violations), str(report)


def test_a_step_has_no_rows_that_bring_weights(after: Program) -> None:
    block = after.blocks[1]
    step = replace(
        after,
        blocks=(after.blocks[0], replace(block, columns={64: change(block.columns[64], 0, op=int(Op.LOAD))}),
                *after.blocks[2:]),
    )  # fmt: skip
    assert any("is no row of a program of kind 'step'" in one for one in found(step, 0))


def test_the_model_after_takes_free_chips_where_it_fits() -> None:
    aside = api.switch(MODEL, MODEL, rack="quad", tp=2, pp=1)
    chips = [{chip for group in one.manifest.groups for chip in group} for one in (aside.before, aside.after)]
    assert not chips[0] & chips[1]
    assert aside.phases()[1].total == 0
    assert api.check(aside.after).proved
    alone = api.switch(MODEL, MODEL, rack="quad", tp=2, pp=1, how=api.SwitchOptions(free=False))
    assert alone.before.manifest.groups == alone.after.manifest.groups
    assert alone.phases()[1].total > 0
    assert alone.silent_cycles > aside.silent_cycles
    for one in (aside, alone):
        assert one.least_seconds <= one.moved_seconds <= 1.02 * one.least_seconds
        assert str(one).count("stage") == 5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tp"), [("llama-tiny", 2), ("smollm-135m", 4)])
def test_users_go_on_with_new_weights_each_token_with_the_bits_of_one_of_the_two(name: str, tp: int) -> None:
    old, new = (api.open_model(name, context=64, weights=weights) for weights in ("seed:0", "seed:1"))
    before = api.compile(old, rack="quad", tp=tp, pp=1, prove=False).program
    found = api.switch(before, new, rack="quad", how=api.SwitchOptions(keep_kv=True))
    after = found.after
    assert body_of(found.program).keeps
    assert found.phases()[1].total == 0  # room for both, so none comes when A has stopped
    assert after.manifest.cycles == before.manifest.cycles
    assert api.prove(after).ok
    machines = [machine_of(one, model) for one, model in ((before, old), (after, new))]
    params = [reference_params(model) for model in (old, new)]
    step, cache = jax.jit(old.step.fn), empty_cache(old.step.cache)
    assert isinstance(machines[0], Machine)
    state, tokens, differs = machines[0].start(), [3], 0
    for at in range(12):
        now = int(at >= 6)
        machine = machines[now]
        assert isinstance(machine, Machine)
        given = jnp.array([tokens[at]], jnp.int32), jnp.array([at], jnp.int32)
        other = step(params[1 - now], *given, cache)[0]
        truth, _, cache = step(params[now], *given, cache)
        logits, chosen, state = machine.step(state, [tokens[at]], [at])
        assert np.array_equal(np.asarray(logits).view(np.uint32), np.asarray(truth).view(np.uint32))
        differs += not np.array_equal(np.asarray(logits), np.asarray(other))
        tokens.append(int(chosen[0]))
    assert differs == 12
    again = api.switch(after, old, rack="quad", how=api.SwitchOptions(keep_kv=True)).after
    assert again.manifest.regions != after.manifest.regions
    assert again.calls == before.calls


def test_new_weights_take_the_place_of_the_old_ones_where_no_room_is(before: Program) -> None:
    new = api.open_model("llama-tiny", context=64, weights="seed:1")
    small = replace(before.manifest.chip, sram_bytes=320 * 30_000)
    tight = replace(before, manifest=replace(before.manifest, chip=small))
    found = api.switch(tight, new, rack="quad", how=api.SwitchOptions(keep_kv=True))
    assert found.after.manifest.regions == before.manifest.regions
    beside, rest = found.phases()
    assert beside.total == 0
    assert rest.total == int(before.manifest.region_table()[:, 2, 1].sum()) * 320
    with pytest.raises(FileError, match="its config differs from that of A, llama-tiny"):
        api.switch(before, "smollm-135m", rack="quad", how=api.SwitchOptions(keep_kv=True))
    with pytest.raises(FileError, match="B is a program"):
        api.switch(before, before, rack="quad", how=api.SwitchOptions(keep_kv=True))


def test_hubs_are_eights_of_a_tray() -> None:
    assert hubs([range(16)], 16) == (tuple(range(8)), tuple(range(8, 16)))
    assert hubs([], 3) == ((0, 1, 2),)


@pytest.mark.slow
def test_a_model_that_never_fits_is_refused_with_both_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--rack", "quad", "--tp", "4", "--pp", "1", "--context", "64"]
    assert main(["switch", "llama-tiny", "llama-3.1-8b", *asked]) == 3
    assert "needs 2,367.0 MB per chip, a chip has 500.0 MB" in capsys.readouterr().err


def test_programs_of_two_racks_and_a_small_ddr5_are_refused(before: Program) -> None:
    with pytest.raises(OptionError, match=r"is for quad, the other for pair, with another rack"):
        compile_switch(before, made(2, "pair"))
    with pytest.raises(CapacityError, match=r"needs \d+ bytes, its DDR5 has 1000"):
        compile_switch(before, before, Reservoir(capacity=1000))


def test_the_verb_saves_what_the_checker_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--rack", "quad", "--tp", "1", "--pp", "1", "--context", "64"]
    assert main(["switch", "llama-tiny", "llama-tiny", *asked, "-o", str(tmp_path / "b"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == "lpu-switch/1"
    assert said["closed_form_seconds"] <= said["moved_seconds"]
    assert main(["check", str(tmp_path / "b" / "switch")]) == 0
    assert "it brings weights in and computes nothing" in capsys.readouterr().out
    program = load_program(tmp_path / "b" / "switch")
    assert program.manifest.digest == said["program_sha256"]
    assert np.array_equal(program.expand(64).op, np.full(len(program.expand(64)), int(Op.LOAD)))
    assert main(["report", str(tmp_path / "b" / "switch")]) == 2
    assert "moves weights (switch) and computes no step" in capsys.readouterr().err


def test_a_folder_is_checked_with_what_brings_its_weights_in(
    after: Program, brought: Program, tmp_path: Path
) -> None:
    for name, switch in (("whole", brought), ("short", replace(brought, calls=brought.calls[:-1]))):
        (tmp_path / name).mkdir()
        save_into(tmp_path / name, after, switch=sealed(switch))
    whole, short = (api.check(tmp_path / name, prove=False) for name in ("whole", "short"))
    assert whole.ok
    assert len(whole.brought) == 2
    assert str(whole).count("(switch)") == 2
    assert not short.ok
    assert "is not brought" in str(short)
