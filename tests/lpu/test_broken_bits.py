"""Bits on a broken rack are those of the model, whatever is broken."""

import pytest

from compiler.options import CompileOptions
from lpu import api
from lpu.certify.options import CertifyOptions
from lpu.inputs.files import read_rack

KINDS = {
    "chip": ("quad;chip:0", 2),
    "links": ("quad;link:0-1;link:2-3", 4),
    "lanes": ("quad;lane:0-1/2;lane:0-1/3;lane:1-3/0", 4),
    "bad words": ("quad;sram:0/0x4000+4096;sram:1/0x3000+64;sram:2/0x5000+64;sram:3/0x4800+8", 4),
    "bad transients": ("quad;sram:0/0x4+1", 2),
    "tray": ("lpx;tray:0;tray:1;chip:16", 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_bits_are_equal_under_every_kind_of_fault(kind: str) -> None:
    """In other layouts and placements too; one rack has its name here, so that other processes open it."""
    named, tp = KINDS[kind]
    rack = named if kind == "links" else read_rack(named)
    options, how = CompileOptions(tp=tp), CertifyOptions(plain=False)
    found = api.certify("llama-tiny", rack=rack, options=options, prompts=[[5, 6]], tokens=2, how=how)
    assert found.ok
    assert found.to_json()["bits_equal"] is True
    compared = {one.name for one in found.comparisons if one.equal}
    assert any(name.startswith("placement random") for name in compared)
    assert ("one thread, hash seed 1" in compared) == (kind == "links")


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_waves_and_chunks_run_on_what_is_left_of_a_rack(objective: str) -> None:
    bad = "quad;chip:2;sram:0/0x4000+512;lane:0-1/1"
    options = CompileOptions(tp=1, objective=objective)
    prefill = 8 if objective == "latency" else None
    made = api.compile("llama-tiny", rack=bad, options=options, prefill=prefill, context=64)
    assert all(report.ok for report in (*made.reports.values(), *made.prefill_reports.values()))
    assert made.proof
    assert not isinstance(made.proof, str)
    assert made.proof.ok
