"""Remaps of the 70B on lpx: each chip dead in turn, then 200 seeded pairs of links; each is checked."""

from functools import cache

import numpy as np

from compiler.program.program import Program
from fabric.rack import load_rack
from lpu import api
from lpu.folder import check_program

CHIPS, PAIRS = 256, 200
SIZE = CHIPS + PAIRS


@cache
def parent() -> Program:
    """llama-3.1-70b on lpx, context 8192: 21 of 32 groups are in use."""
    model = api.open_model("llama-3.1-70b", context=8192, weights="none")
    return api.compile(model, prove=False, check=False).program


def faults_of(case: int) -> tuple[str, ...]:
    """Of one case: a chip, or two links."""
    if case < CHIPS:
        return (f"chip:{case}",)
    links = load_rack("lpx").links
    cables = np.flatnonzero(links.a < links.b)
    random = np.random.default_rng(case)
    rows = random.choice(cables, 2, replace=False).tolist()
    return tuple(f"link:{links.a[row]}-{links.b[row]}" for row in rows)


def hold_remap(case: int) -> str:
    """The remapped program is legal, is of the same model, and takes at most a tenth longer."""
    faults, before = faults_of(case), parent().manifest
    found = api.remap(parent(), faults)
    after = found.program.manifest
    assert after.broken
    assert (after.broken.faults, after.broken.parent) == (faults, before.digest)
    assert after.model == before.model
    assert all(report.ok for report in check_program(found.program).values())
    assert found.rung is None
    assert found.delta_cycles <= before.cycles[before.longest] // 10
    return "held"
