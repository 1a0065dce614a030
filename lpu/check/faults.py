"""Rules 0, 4 and 5 on a broken rack: its links are without its faults, and nothing broken is used."""

import numpy as np
from jaxtyping import Bool, Int

from compiler.program.isa import is_transfer
from compiler.program.manifest import Manifest
from compiler.program.program import Program
from fabric.faults.fault import Fault, parse_faults
from lpu.check.findings import Findings
from lpu.check.operands import Accesses, Operands
from lpu.check.stated import Stated


def faults(findings: Findings, stated: Stated, manifest: Manifest, used: Operands) -> None:
    """No row runs on a dead chip, or sends to one, and no operand lies in bad words."""
    if manifest.broken is None:
        return
    try:
        known = parse_faults(manifest.broken.faults)
    except ValueError as error:
        findings.tell(0, f"manifest: {error}")
        return
    if outside := [one for one in known if _outside(one, manifest)]:
        findings.tell(0, f"manifest: {outside[0]} is no part of this rack")
        return
    dead = _dead(known, manifest)
    claimed = set(manifest.broken.lost)
    if missing := [chip for chip in np.flatnonzero(dead).tolist() if chip not in claimed]:
        findings.tell(0, f"manifest: chip {missing[0]} is broken, but not among the lost {sorted(claimed)}")
    dead[[chip for chip in claimed if 0 <= chip < manifest.chips]] = True
    _links(findings, manifest, known, _dead(known, manifest))
    c = findings.columns
    rows = np.flatnonzero(dead[c.chip] | (is_transfer(c.op) & dead[np.maximum(c.peer, 0)]))
    findings.add(
        4,
        rows,
        lambda i: (
            f"runs on chip {c.chip[rows[i]]}"
            + (f" to chip {c.peer[rows[i]]}" if c.peer[rows[i]] >= 0 else "")
            + f", dead are chips {_few(np.flatnonzero(dead))}"
        ),
    )
    for one in known:
        if one.kind == "sram":
            for accesses in used:
                _words(findings, accesses, one)


def loaded(program: Program, findings: Findings) -> None:
    """No preloaded value lies on a dead chip or in bad words."""
    broken = program.manifest.broken
    if broken is None:
        return
    known = parse_faults(broken.faults)
    dead = _dead(known, program.manifest)
    for loads in program.loads_by_call():
        at = np.flatnonzero(dead[loads.chip])
        findings.note(
            5, at, lambda i, loads=loads: f"load at word {loads.addr[i]} of chip {loads.chip[i]}, dead"
        )
        for one in known:
            if one.kind == "sram":
                chip, first, words = one.at
                low, high = loads.addr < first + words, loads.addr + loads.words > first
                findings.note(
                    5,
                    np.flatnonzero((loads.chip == chip) & low & high),
                    lambda i, loads=loads, one=one: (
                        f"load of words {loads.addr[i]} .. {loads.addr[i] + loads.words[i] - 1} of chip "
                        f"{loads.chip[i]}, bad by {one}"
                    ),
                )


def _outside(one: Fault, manifest: Manifest) -> bool:
    """Whether a fault names a chip, a tray or words that the machine of a manifest does not have."""
    if one.kind == "tray":
        return not manifest.levels or one.at[0] >= len(manifest.levels[0].groups)
    ends = one.at[: 2 if one.kind in ("link", "lane") else 1]
    return max(ends) >= manifest.chips


def _dead(known: tuple[Fault, ...], manifest: Manifest) -> Bool[np.ndarray, " chips"]:
    dead = np.zeros(manifest.chips, bool)
    for one in known:
        if one.kind == "chip":
            dead[one.at[0]] = True
        elif one.kind == "tray":
            dead[list(manifest.levels[0].groups[one.at[0]])] = True
    return dead


def _links(
    findings: Findings, manifest: Manifest, known: tuple[Fault, ...], dead: Bool[np.ndarray, " chips"]
) -> None:
    """The links of the manifest are without dead chips and dead cables."""
    table = manifest.link_table()
    gone = {one.at for one in known if one.kind == "link"}
    ends = np.sort(table[:, :2], axis=1)
    cables = np.array([tuple(pair) in gone for pair in ends.tolist()], bool)
    findings.note(
        0,
        np.flatnonzero(cables | dead[table[:, 0]] | dead[table[:, 1]]),
        lambda i: f"links: {table[i, 0]} to {table[i, 1]} is there, the faults say that it is broken",
    )


def _words(findings: Findings, used: Accesses, one: Fault) -> None:
    chip, first, words = one.at
    bad = np.flatnonzero((used.chip == chip) & (used.start < first + words) & (used.stop > first))
    findings.add(
        5,
        used.row[bad],
        lambda i: f"operand words {used.start[bad[i]]} .. {used.stop[bad[i]] - 1}, bad by {one}",
    )


def _few(chips: Int[np.ndarray, " some"]) -> str:
    more = " ..." if len(chips) > 8 else ""
    return " ".join(map(str, chips[:8].tolist())) + more
