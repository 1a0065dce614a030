"""Programs that bring weights in: where words come from, when they may be written, that none is forgotten.

The DDR5 of an FPGA has the weight regions of its chips one after another. A lane takes what its rate and the
shared DDR5 give; the slots of a lane are units and those of ports words, as for all rows (rules 1 and 3).
"""

from dataclasses import fields, replace

import numpy as np
from jaxtyping import Int

from compiler.program.instructions.host import LoadKernel
from compiler.program.isa import COLUMNS, TAGS, WORD_BYTES, Columns, Op
from compiler.program.manifest import Manifest, Regions, Switch, Waves
from compiler.program.program import Program
from fabric.host import Reservoir
from lpu.check.cycles import cycles
from lpu.check.findings import Findings, Report, tag
from lpu.check.memory_image import heads
from lpu.check.operands import Accesses
from lpu.check.rows import alike
from lpu.check.stated import Stated
from lpu.check.units import ports, units

_LPUS = 8  # that share the DDR5 of an FPGA
_SAME = ("model", "rack", "chip", "links", "forward_cycles", "sequences", "capacity", "regions")


def image_lanes(findings: Findings, stated: Stated, manifest: Manifest, loaded: Accesses) -> None:
    """Rules 2, 3, 5, 6 and 7 of LOAD rows; of programs that bring no weights there are none."""
    body = manifest.body
    if not isinstance(body, Switch):
        return
    c = findings.columns
    slot = _slot(body.reservoir, manifest.clock_hz)
    for kernel in stated.kernels:
        if isinstance(kernel, LoadKernel) and kernel.host_slot != slot:
            what = f"manifest: a word takes {kernel.host_slot} cycles, lane and DDR5 give one in {slot}"
            findings.tell(6, what)
    if len(body.held) != stated.chips:
        findings.tell(0, f"manifest: held is of {len(body.held)} chips, there are {stated.chips}")
        return
    begins = _begins(findings, stated, manifest, body)
    want = begins[c.chip] + c.dst - stated.regions[c.chip, 2, 0]
    bad = np.flatnonzero(c.src3 != want)
    findings.add(
        7,
        bad,
        lambda i: f"brings word {c.src3[bad[i]]} of the DDR5, that of its place is word {want[bad[i]]}",
    )
    for region in range(3):
        _early(findings, loaded, body, np.array(body.held, np.int64)[:, region])
    _once(findings, stated, loaded)


def _early(findings: Findings, loaded: Accesses, body: Switch, held: Int[np.ndarray, "chips 2"]) -> None:
    """Rule 2: what a region of the program before has is not written over before that has stopped."""
    t0 = findings.columns.t0[loaded.row]
    low, words = held[loaded.chip].T
    high = low + words
    early = np.flatnonzero((t0 < body.stop) & (loaded.start < high) & (loaded.stop > low) & (words > 0))
    findings.add(
        2,
        loaded.row[early],
        lambda i: (
            f"writes words {loaded.start[early[i]]} .. {loaded.stop[early[i]] - 1} at cycle {t0[early[i]]}; "
            f"the program before has words {low[early[i]]} .. {high[early[i]] - 1} until cycle {body.stop}"
        ),
    )


def _slot(reservoir: Reservoir, clock_hz: int) -> int:
    rate = min(reservoir.lane, reservoir.ddr5 // _LPUS)
    return (WORD_BYTES * clock_hz + rate - 1) // rate


def _begins(
    findings: Findings, stated: Stated, manifest: Manifest, body: Switch
) -> Int[np.ndarray, " chips"]:
    """By chip the word of the DDR5 that its weights begin at; rule 5: they fit."""
    levels = manifest.levels
    trays = levels[0].groups if levels and levels[0].kind != "links" else (tuple(range(stated.chips)),)
    out = np.zeros(stated.chips, np.int64)
    for tray in trays:
        for at in range(0, len(tray), _LPUS):
            chips = np.array(tray[at : at + _LPUS])
            words = stated.regions[chips, 2, 1]
            out[chips] = np.cumsum(words) - words
            if (total := int(words.sum()) * WORD_BYTES) > body.reservoir.capacity:
                what = f"have weights of {total} bytes, their DDR5 {body.reservoir.capacity}"
                findings.tell(5, f"manifest: chips {chips[0]} .. {chips[-1]} {what}")
    return out


def _once(findings: Findings, stated: Stated, loaded: Accesses) -> None:
    """Rule 3: no word is written twice."""
    start = loaded.chip * stated.words + loaded.start
    order = np.argsort(start, kind="stable")
    stop = np.maximum.accumulate((start + loaded.stop - loaded.start)[order])
    again = order[1:][start[order[1:]] < stop[:-1]]
    findings.add(
        3, loaded.row[again], lambda i: f"writes word {loaded.start[again[i]]}, which another row writes too"
    )


def check_switch(before: Program | None, after: Program, switch: Program) -> Report:
    """The report on a program that brings weights in: all of them, from one program of a rack to another.

    before: None if it is not at hand: then what it has and that it can run beside is not looked at.
    The rules of the program by itself are those of `lpu.check.check`.
    """
    findings = Findings(switch.expand(switch.manifest.longest))
    body, manifest = switch.manifest.body, switch.manifest
    if not isinstance(body, Switch):
        findings.tell(0, f"the program is of kind {manifest.kind!r}, must be 'switch'")
        return findings.report()
    for name, other, digest in (("before", before, body.before), ("after", after, body.after)):
        if other is not None and digest != other.manifest.digest:
            what = f"is {digest[:16]}, the one at hand {other.manifest.digest[:16]}"
            findings.tell(0, f"manifest: the program {name} {what}")
    for field in _SAME:
        if getattr(manifest, field) != getattr(after.manifest, field):
            findings.tell(0, f"manifests of the program after and of what brings it in: {field} differs")
    if sum(findings.counts):
        return findings.report()
    _covered(findings, after)
    if before is None:
        return findings.report()
    _kept(findings, before.manifest, body)
    _beside(findings, before, manifest, body)
    if body.keeps:
        _same_kv(findings, before, after)
    return findings.report()


def _covered(findings: Findings, after: Program) -> None:
    """Rule 2: every preloaded word of the program after is brought, and nothing else."""
    c, loads = findings.columns, after.loads()
    size = after.manifest.chip.sram_bytes // WORD_BYTES
    wanted = _joined(loads.chip * size + loads.addr, loads.words)
    found = _joined(c.chip * size + c.dst, c.n)
    for name, ours, theirs in (("needs", wanted, found), ("is brought", found, wanted)):
        at = np.searchsorted(theirs[:, 0], ours[:, 0], side="right") - 1
        there = np.zeros(len(ours), bool)
        there[at >= 0] = theirs[at[at >= 0], 1] >= ours[at >= 0, 1]
        alone = np.flatnonzero(~there)
        other = "is not brought" if name == "needs" else "is not needed"
        findings.note(
            2,
            alone,
            lambda i, ours=ours, other=other: (
                f"chip {ours[i, 0] // size}: of words {ours[i, 0] % size} .. {(ours[i, 1] - 1) % size} "
                f"some {other}"
            ),
        )


def _joined(start: Int[np.ndarray, " some"], words: Int[np.ndarray, " some"]) -> Int[np.ndarray, "joined 2"]:
    """Intervals that touch or overlap as one, in order."""
    order = np.argsort(start, kind="stable")
    begin, stop = start[order], np.maximum.accumulate((start + words)[order])
    first = np.ones(len(begin), bool)
    first[1:] = begin[1:] > stop[:-1]
    last = np.ones(len(begin), bool)
    last[:-1] = first[1:]
    return np.stack([begin[first], stop[last]], axis=1)


def _kept(findings: Findings, before: Manifest, body: Switch) -> None:
    """Rule 2: what is held is what the program before has; it stops between two steps."""
    wrong = [chip for chip, one in enumerate(before.regions) if tuple(body.held[chip]) != tuple(one)]
    findings.note(
        2,
        np.array(wrong, np.int64),
        lambda chip: (
            f"chip {chip}: held are {_words(body.held[chip])}, the program before has "
            f"{_words(before.regions[chip])}"
        ),
    )
    step = before.cycles[before.longest]
    if body.stop % step or (isinstance(before.body, Waves) and body.stop < step):
        findings.tell(2, f"manifest: stop is cycle {body.stop}, the program before ends steps every {step}")


def _beside(findings: Findings, before: Program, manifest: Manifest, body: Switch) -> None:
    """Rules 1 and 3: while the program before runs, lane and ports have room for a word at any time.

    Looked at is a step of it with a row that takes words from its first cycle to its last.
    """
    c, context = findings.columns, before.manifest.longest
    chips = np.unique(c.chip[c.t0 < body.stop])
    if not len(chips):
        return
    if isinstance(before.manifest.body, Waves):
        findings.tell(2, f"{len(chips)} chips take words before cycle {body.stop}, beside waves")
        return
    rows = before.expand(context)
    slot = _slot(body.reservoir, manifest.clock_hz)
    count = -(-before.manifest.cycles[context] // slot)
    kernel = len(before.manifest.kernels)
    same = {
        "op": int(Op.LOAD),
        "unit": int(c.unit[0]),
        "aux": kernel,
        "n": count,
        "t0": 0,
        "t1": count * slot,
    }
    added = {name: np.full(len(chips), same.get(name, -1), np.int64) for name in COLUMNS + TAGS}
    added["chip"] = chips
    both = Columns(
        **{f.name: np.concatenate([getattr(rows, f.name), added[f.name]]) for f in fields(Columns)}
    )
    kernels = (*before.manifest.kernels, LoadKernel(host_slot=slot))
    stated = Stated.of(replace(before.manifest, kernels=kernels))
    looked = Findings(both)
    busy = cycles(looked, stated, alike(both, kernels))
    units(looked, stated, busy)
    ports(looked, stated, busy)
    for one in looked.report().violations:
        findings.tell(one.rule, f"beside the program before: {one.message}")


def _same_kv(findings: Findings, before: Program, after: Program) -> None:
    """Rule 7: KV and states lie at the same words in one format: what one program leaves the other reads."""
    ours, theirs = (heads(one.expand(one.manifest.longest), one.manifest.kernels) for one in (before, after))
    wrong = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    if before.manifest.contexts != after.manifest.contexts:
        findings.tell(0, f"contexts are {before.manifest.contexts} before, {after.manifest.contexts} after")
    findings.note(
        7,
        np.array(wrong, np.int64),
        lambda name: f"KV {tag(name)} in order: {ours.get(int(name))} before, {theirs.get(int(name))} after",
    )


def _words(regions: Regions) -> str:
    return ", ".join(f"words {base} .. {base + words - 1}" for base, words in regions if words) or "no words"
