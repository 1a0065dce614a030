"""Remaps: what is placed where, what moves, who loses what, and that bits stay those of the model."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from slow import slow_but

from compiler.errors import CapacityError, CompileError
from compiler.options import CompileOptions
from compiler.program.isa import WORD_BYTES
from compiler.program.program import Program
from compiler.program.store import load, save
from fabric.rack import Rack, load_rack
from lpu import api
from lpu.decode.decoders import machine_of
from lpu.inputs.document import FileError
from lpu.remap.carry import carry
from lpu.remap.moves import RemapMoves, Transfer
from lpu.remap.pieces import kv_of, weights_of
from lpu.run.machine import Machine

MODEL = api.open_model("llama-tiny", context=64)


def made(tp: int, rack: str = "torus-4x4", **options: object) -> Program:
    asked = CompileOptions(tp=tp, **options)  # pyright: ignore[reportArgumentType]
    return api.compile(MODEL, rack=rack, options=asked, prove=False).program


@pytest.mark.parametrize(
    ("faults", "way"),
    [
        (["chip:5"], "stay"),
        (["chip:1"], "groups"),
        (["link:0-1"], "groups"),
        (["lane:0-1/0"], "stay"),
        (["sram:0/0x4000+64"], "groups"),
        (["chip:0", "chip:3"], "groups"),
    ],
)
def test_a_remap_is_an_ordinary_program_of_the_same_model(
    faults: list[str], way: str, tmp_path: object
) -> None:
    parent = made(2, "lpx-tray", pp=2)
    found = api.remap(parent, faults)
    assert found.way in (way, "stay")
    assert found.program.manifest.broken
    assert found.program.manifest.broken.parent == parent.manifest.digest
    assert found.program.manifest.model == parent.manifest.model
    checked = api.check(found.compiled())
    assert checked.ok
    assert checked.proved
    assert isinstance(checked.machine, str)
    again = api.remap(found.program, ["chip:7"])
    assert again.program.manifest.broken
    assert again.program.manifest.broken.faults[-1] == "chip:7"


def test_a_spare_group_takes_the_place_and_nothing_else_moves() -> None:
    parent = made(2, "lpx-tray", pp=2)
    used = sorted(chip for group in parent.manifest.groups for chip in group)
    found = api.remap(parent, [f"chip:{used[1]}"], how=api.RemapOptions(prefer="latency"))
    assert found.way == "groups"
    before, after = parent.manifest.groups, found.program.manifest.groups
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True]
    into = {one.b for one in found.moves.transfers if one.source == "DDR5"}
    assert into == set(after[0])
    words = sum(one.words for one in weights_of(found.program) if one.chip in into)
    assert found.moves.bytes_from("DDR5") == words * WORD_BYTES
    lost = list(found.moves.lost)
    gone = [one.name for one in kv_of(parent).values() if one.chip == used[1]]
    assert sorted(lost) == sorted(gone)
    assert found.users.users == found.users.all_users == 1


def test_the_fewest_bytes_move_where_that_is_preferred() -> None:
    parent = made(2, "lpx-tray", pp=2)
    chip = parent.manifest.groups[0][1]
    few = api.remap(parent, [f"chip:{chip}"], how=api.RemapOptions(prefer="moves"))
    many = api.remap(parent, [f"chip:{chip}"])
    assert few.way == "chips"
    assert few.moves.bytes_from("DDR5") < many.moves.bytes_from("DDR5")
    kept = {c for group in parent.manifest.groups for c in group} - {chip}
    assert kept <= {c for group in few.program.manifest.groups for c in group}


def test_nothing_moves_where_nothing_that_is_used_is_broken() -> None:
    found = api.remap(made(1, "lpx-tray"), ["chip:6"])
    assert (found.way, found.moves.transfers, found.delta_cycles) == ("stay", (), 0)
    assert found.users.users == 0
    assert "none of 1 loses KV" in str(found)


def test_moves_have_one_lane_each_and_begin_when_their_words_are_there() -> None:
    found = api.remap(made(2, "torus-4x4", pp=4), ["link:0-1"])
    transfers = found.moves.transfers
    assert any(one.source == "link" for one in transfers)
    links = found.rack.links
    for lane in {(one.source, one.a, one.b) for one in transfers}:
        mine = sorted((one for one in transfers if (one.source, one.a, one.b) == lane), key=lambda t: t.t0)
        hop = int(links.hop_cycles[found.rack.link(lane[1], lane[2])]) if lane[0] == "link" else 0
        assert all(a.t1 - hop <= b.t0 for a, b in itertools.pairwise(mine))
    assert found.moves.cycles == max(one.t1 for one in transfers)
    assert found.cycles == sum(one.cycles for one in found.stages)


def test_moves_that_share_a_lane_are_a_bug() -> None:
    one = Transfer(what="a", source="DDR5", a=-1, b=1, words=4, t0=0, t1=10)
    some = RemapMoves(transfers=(one, replace(one, what="b", t0=9)), kept_bytes=0, lost=(), lost_bytes=0)
    with pytest.raises(CompileError, match="bug"):
        some.verify(load_rack("quad"))


def test_a_remap_is_saved_and_read_again(tmp_path: "object") -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    found = api.remap(made(2, "lpx-tray"), ["chip:0"])
    save(found.program, folder)
    assert load(folder).manifest == found.program.manifest


def test_the_same_fault_gives_the_same_bytes() -> None:
    parent = made(2, "lpx-tray")
    digests = {api.remap(parent, ["chip:0"]).program.manifest.digest for _ in range(2)}
    assert len(digests) == 1


@pytest.mark.slow
def test_waves_keep_their_users_where_they_fit() -> None:
    parent = made(1, "quad", objective="throughput", users=2)
    found = api.remap(parent, ["chip:3"])
    waves = found.program.manifest.waves
    assert waves
    assert waves.users == 2
    assert api.check(found.compiled()).ok


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ([], "no --fault is given"),
        (["chip:99"], "has chips 0 to 7"),
        (["chip:1", "chip:1"], "given twice"),
        (["tray:0"], "leave 0 of the 8 chips"),
    ],
)
def test_what_cannot_be_remapped_is_said_in_one_line(faults: list[str], said: str) -> None:
    with pytest.raises(FileError) as error:
        api.remap(made(1, "lpx-tray"), faults)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_fault_that_a_program_knows_is_no_news() -> None:
    once = api.remap(made(1, "lpx-tray"), ["chip:3"])
    with pytest.raises(FileError, match="chip:3: is broken already"):
        api.remap(once.program, ["chip:3"])


@pytest.mark.parametrize("degrade", ["users,users", "speed", "users,,speed"])
def test_what_may_be_given_up_is_named_once(degrade: str) -> None:
    with pytest.raises(FileError, match="--degrade"):
        api.remap(made(1, "lpx-tray"), ["chip:3"], how=api.RemapOptions(degrade=degrade))


def full_rack(megabytes: float) -> Rack:
    """Four chips with so little SRAM that llama-tiny fills them."""
    rack = load_rack("quad")
    return replace(rack, chip=rack.chip.with_numbers("a test", sram_bytes=int(megabytes * 1e6) // 320 * 320))


@pytest.mark.parametrize(
    ("megabytes", "options", "degrade", "given_up"),
    [
        (2.8, {"tp": 1}, "users,context,tp", "context 64 instead of 256"),
        (3.2, {"tp": 2}, "users,context,tp", "tp 1 instead of 2"),
        (3.2, {"tp": 4}, "tp", "tp 1 instead of 4"),
        (3.2, {"tp": 1, "objective": "throughput"}, "users,context,tp", "1 instead of 3 groups of users"),
        (3.2, {"tp": 1, "objective": "throughput"}, "tp,users", "1 instead of 3 groups of users"),
    ],
)
def test_what_is_given_up_where_nothing_is_free_is_said(
    megabytes: float, options: dict[str, Any], degrade: str, given_up: str
) -> None:
    rack = full_rack(megabytes)
    parent = api.compile("llama-tiny", rack=rack, options=CompileOptions(**options), prove=False).program
    found = api.remap(parent, ["chip:3"], rack=rack, how=api.RemapOptions(degrade=degrade))
    assert found.rung
    assert found.rung.what == given_up
    assert given_up in str(found)
    checked = api.check(found.compiled())
    assert checked.ok
    assert checked.proved


def test_a_batch_is_halved_until_it_fits() -> None:
    rack = full_rack(6)
    parent = api.compile("llama-tiny", rack=rack, batch=8, options=CompileOptions(tp=2), prove=False).program
    found = api.remap(parent, ["chip:0"], rack=rack)
    assert found.rung
    assert found.rung.what.startswith("a batch of ")
    assert api.check(found.compiled()).ok


@pytest.mark.parametrize("degrade", ["none", "users"])
def test_a_model_that_no_rung_makes_fit_is_refused_with_both_numbers(degrade: str) -> None:
    rack = full_rack(2.2)
    parent = api.compile("llama-tiny", rack=rack, options=CompileOptions(tp=1), prove=False).program
    with pytest.raises(CapacityError) as error:
        api.remap(parent, ["chip:3"], rack=rack, how=api.RemapOptions(degrade=degrade))
    said = str(error.value)
    assert "the model needs 4 chips" in said
    assert "the rack has 3" in said
    assert ("Nothing may be given up" in said) == (degrade == "none")
    assert "\n" not in said


PROMPT, MORE = [3, 1, 4, 1, 5], 5


@pytest.mark.parametrize(
    ("fault", "kept"),
    slow_but(
        [("chip:0", False), ("link:0-1", True)],
        [
            ("chip:0", False),
            ("link:0-1", True),
            ("lane:0-1/2", True),
            ("sram:1/0x4000+32", None),
            ("tray:1", None),
        ],
    ),
)
@pytest.mark.parametrize("prefer", slow_but(["latency"], ["latency", "moves", "anew"]))
def test_a_conversation_goes_on_with_the_same_bits(fault: str, kept: bool | None, prefer: str) -> None:
    rack = "lpx" if fault.startswith("tray") else "lpx-tray"
    parent = made(2, rack, pp=2)
    whole = machine_of(parent, MODEL)
    assert isinstance(whole, Machine)
    state, truth, tokens = whole.start(), list[np.ndarray](), [*PROMPT]
    for at in range(len(PROMPT) + MORE):
        logits, chosen, state = whole.step(state, [tokens[at]], [at])
        truth.append(np.asarray(logits))
        tokens += [int(chosen[0])] if at >= len(PROMPT) - 1 else []
    before = whole.start()
    for at in range(len(PROMPT)):
        _, _, before = whole.step(before, [tokens[at]], [at])
    found = api.remap(parent, [fault], how=api.RemapOptions(prefer=prefer))
    new = machine_of(found.program, MODEL)
    assert isinstance(new, Machine)
    now = carry(parent, whole, before, found.program, new, found.rack)
    assert kept is None or (now is not None) == kept
    first = 0 if now is None else len(PROMPT)
    now = now or new.start()
    for at in range(first, len(PROMPT) + MORE):
        logits, _, now = new.step(now, [tokens[at]], [at])
        assert np.array_equal(np.asarray(logits).view(np.uint32), truth[at].view(np.uint32))
