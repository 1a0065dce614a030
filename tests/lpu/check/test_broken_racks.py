"""On a broken rack the compiler uses nothing broken, and the checker refuses a program that does."""

from dataclasses import replace

import numpy as np
import pytest
from programs import compiled

from compiler.assemble import broken_of
from compiler.options import CompileOptions
from compiler.program.manifest import Link
from compiler.program.program import Program
from fabric.faults.broken import break_rack
from fabric.faults.fault import parse_faults
from fabric.rack import load_rack
from lpu.check.check import Report, check
from lpu.check.stated import machine
from lpu.folder import check_program

FOUR = CompileOptions(tp=4, pp=1)


def claiming(program: Program, *names: str) -> Report:
    """The check of a program whose manifest says that its rack has these faults, and the links they leave."""
    rack = break_rack(load_rack(program.manifest.rack), parse_faults(names))
    assert rack.damage
    links = rack.links
    columns = (links.a, links.b, links.lanes, links.hop_cycles, links.slot_cycles)
    rows = tuple(Link(*row) for row in np.stack(columns, axis=1).tolist())
    manifest = replace(program.manifest, links=rows, broken=broken_of(rack.damage))
    return check(replace(program, manifest=manifest), 80)


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (["chip:2"], 4),
        (["link:0-1"], 4),
        (["sram:1/0x0+64"], 5),
        (["sram:0/0x100+8"], 5),
        (["sram:2/0x40+4"], 5),
    ],
)
def test_a_program_that_uses_what_is_broken_is_refused(names: list[str], rule: int) -> None:
    program = compiled("quad", FOUR)
    assert check(program, 80).ok
    report = claiming(program, *names)
    assert report.counts[rule] or report.counts[1]


def test_the_last_lane_of_a_cable_is_gone_with_any_of_its_lanes() -> None:
    program = compiled("quad", FOUR)
    used = program.expand(80)
    pairs = set(zip(used.chip[used.peer >= 0].tolist(), used.peer[used.peer >= 0].tolist(), strict=True))
    a, b = min(pairs)
    blocks = [
        replace(block, columns={80: replace(rows, lane=np.where(rows.peer >= 0, 7, rows.lane))})
        for block in program.blocks
        for rows in block.columns.values()
    ]
    last = replace(program, blocks=tuple(blocks))
    assert check(last, 80).ok
    report = claiming(last, f"lane:{a}-{b}/2")
    assert not report.ok
    assert claiming(program, f"lane:{a}-{b}/2").ok
    assert "lanes 7 .. 7" in str(report) or "lane" in str(report)


@pytest.mark.parametrize("names", [("chip:2",), ("chip:0", "link:1-2")])
def test_links_that_the_faults_deny_are_found(names: tuple[str, ...]) -> None:
    program = compiled("quad", CompileOptions(tp=1, pp=1))
    rack = break_rack(load_rack("quad"), parse_faults(names))
    assert rack.damage
    manifest = replace(program.manifest, broken=broken_of(rack.damage))
    report = check(replace(program, manifest=manifest), 80)
    assert report.counts[0]
    assert "the faults say that it is broken" in str(report)


@pytest.mark.parametrize(
    ("faults", "lost", "said"),
    [
        (("chip:9",), (9,), "is no part of this rack"),
        (("chip:2",), (), "is broken, but not among the lost"),
        (("nonsense",), (), "names no part"),
    ],
)
def test_faults_that_a_manifest_makes_up_are_found(
    faults: tuple[str, ...], lost: tuple[int, ...], said: str
) -> None:
    from compiler.program.manifest import Broken

    program = compiled("quad", CompileOptions(tp=1, pp=1))
    manifest = replace(program.manifest, broken=Broken(faults=faults, lost=lost))
    found = replace(program, manifest=manifest)
    assert said in str(check(found, 80))
    assert "machine of its own" in machine(manifest) or faults == ("chip:2",)


@pytest.mark.parametrize("tp", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "names",
    [
        ("chip:1",),
        ("link:0-1", "link:2-3"),
        ("lane:0-2/0", "lane:0-2/5"),
        ("sram:0/0x40+32", "sram:0/0x300+256", "sram:2/0x100+64"),
    ],
)
def test_every_tp_that_fits_is_legal_on_a_broken_rack(names: tuple[str, ...], tp: int) -> None:
    rack = break_rack(load_rack("quad"), parse_faults(names))
    lost = len(rack.damage.lost) if rack.damage else 0
    if tp > 4 - lost:
        return
    from programs import on_rack

    program = on_rack(rack, CompileOptions(tp=tp))
    assert program.manifest.broken
    assert program.manifest.broken.faults == names
    assert all(report.ok for report in check_program(program).values())
    assert machine(program.manifest) == f"quad of the catalog, broken: {' '.join(names)}"


def test_weights_go_round_bad_words() -> None:
    from programs import on_rack

    rack = break_rack(load_rack("quad"), parse_faults([f"sram:{chip}/0x100+512" for chip in range(4)]))
    program = on_rack(rack, CompileOptions(tp=4, pp=1))
    loads = program.loads()
    assert program.manifest.broken
    assert not program.manifest.broken.lost
    before, after = loads.addr + loads.words <= 0x100, loads.addr >= 0x100 + 512
    assert (before | after).all()
    assert after.any()
