"""The independent checker of a program: the eight rules that make it legal, on its expanded columns.

It believes nothing that the compiler says: regions, links and preloaded values are looked at, cycles are
computed again from docs/timing.md, and the producer of every read is found by address and cycle alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from compiler.program.instruction_set import name_of
from compiler.program.instructions.experts import bound_of
from compiler.program.isa import COLUMNS, TAGS, Columns, Op, is_transfer
from compiler.program.manifest import Manifest
from compiler.program.program import LOADS, Loads, Program
from lpu.check.by_block.weights import program_weights
from lpu.check.cycles import cycles
from lpu.check.faults import faults, loaded
from lpu.check.findings import RULES, Findings, HazardError, Report, Violation, tag
from lpu.check.follow.contexts import rings
from lpu.check.follow.image import image_lanes
from lpu.check.follow.states import states, stepped
from lpu.check.follow.sums import accumulators, sums
from lpu.check.form import form
from lpu.check.host_lanes import host_lanes, kv_lanes
from lpu.check.meaning import meaning, tagged
from lpu.check.operands import Accesses, operands, regions
from lpu.check.rows import alike
from lpu.check.stated import Stated, claims
from lpu.check.transients import memory
from lpu.check.units import ports, units
from lpu.check.waves import check_waves
from lpu.check.weights import cache, weights, whole

__all__ = ["RULES", "HazardError", "Report", "Violation", "check", "check_columns", "require"]


def check(program: Program, context: int) -> Report:
    """Check one step of a program, for one context bucket, and, if it has waves, that they may follow it."""
    if wrong := claims(program, context):
        findings = Findings(Columns(**{name: np.zeros(0, np.int64) for name in COLUMNS + TAGS}))
        for one in wrong:
            findings.tell(0, one)
        return findings.report()
    columns = program.expand(context)
    preloaded = partial(_program_weights, program=program, context=context)
    report = _check(program.manifest, preloaded, columns, program.manifest.cycles[context], context)
    waves = report.ok and program.manifest.waves is not None
    return check_waves(program.manifest, columns, context) if waves else report


def _program_weights(
    findings: Findings, stated: Stated, reads: Accesses, *, program: Program, context: int
) -> None:
    program_weights(findings, stated, reads, program=program, context=context)
    if not sum(findings.counts):
        loaded(program, findings)


def check_columns(
    manifest: Manifest, loads: Loads, columns: Columns, cycles_stated: int | None = None
) -> Report:
    """Check expanded columns against a manifest and the preloaded values, whoever made them.

    cycles_stated: what the manifest says that the step takes, for a whole program: its last result must come
    then, and every operand must be tagged.
    """
    findings = Findings(columns)
    if not _table(findings, loads, LOADS):
        return findings.report()
    return _check(manifest, partial(weights, pieces=whole(loads)), columns, cycles_stated)


def _check(
    manifest: Manifest,
    preloaded: Callable[[Findings, Stated, Accesses], None],
    columns: Columns,
    cycles_stated: int | None,
    context: int | None = None,
) -> Report:
    """preloaded: checks the weight reads against the preloaded values."""
    findings = Findings(columns)
    if not _table(findings, columns, COLUMNS + TAGS):
        return findings.report()
    try:
        stated = Stated.of(manifest)
    except ValueError as error:
        findings.tell(0, f"manifest: {error}")
        return findings.report()
    form(findings, stated)
    regions(findings, stated)
    if findings.counts[0]:
        return findings.report()  # the other rules could make no sense of such rows
    found = alike(columns, stated.kernels)
    busy = cycles(findings, stated, found)
    units(findings, stated, busy)
    ports(findings, stated, busy)
    kv_lanes(findings, stated, manifest, found)
    accumulators(findings, stated)
    used = operands(findings, stated, found)
    faults(findings, stated, manifest, used)
    image_lanes(findings, stated, manifest, used.loaded)
    preloaded(findings, stated, used.weights)
    cache(findings, stated, used.kv_reads, used.kv_writes)
    states(findings, stated, used.renewed, (used.kv_reads, used.kv_writes))
    unread, left = memory(findings, stated, used)
    if cycles_stated is not None:
        tagged(findings, found)
        _length(findings, cycles_stated)
    host_lanes(findings, stated, manifest, found)
    if context is not None:
        rings(findings, found, context, max(manifest.chunk, manifest.prefill))
    _carried(findings)
    _numbered(findings, stated)
    if not sum(findings.counts):
        meaning(findings, stated, found, left)  # of rows that have their right operands
        sums(findings, found)
        stepped(findings, found)
        findings.add(7, unread, "makes a line that no row reads")
    return replace(findings.report(), bound=bound_of(stated.kernels))


def require(report: Report) -> Report:
    """The report itself if it is clean.

    Raises HazardError if it is not.
    """
    if not report.ok:
        raise HazardError(report)
    return report


def _table(findings: Findings, table: Columns | Loads, names: Sequence[str]) -> bool:
    """Whether all columns are int64 arrays of one length."""
    arrays = [getattr(table, name) for name in names]
    wrong = np.flatnonzero([a.dtype != np.int64 or a.shape != (len(table),) for a in arrays])
    findings.note(
        0,
        wrong,
        lambda i: (
            f"column {names[i]} is {arrays[i].dtype} {arrays[i].shape}, must be int64 ({len(arrays[0])},)"
        ),
    )
    return not len(wrong)


def _length(findings: Findings, stated: int) -> None:
    """Rule 6: the step takes the cycles that the manifest says."""
    last = int(findings.columns.t1.max(initial=0))
    if stated != last:
        findings.tell(6, f"manifest: cycles is {stated}, the last result comes at cycle {last}")


def _carried(findings: Findings) -> None:
    """Rule 7: a transfer delivers the value that it took."""
    c = findings.columns
    bad = np.flatnonzero(is_transfer(c.op) & (c.src_tag >= 0) & (c.dst_tag >= 0) & (c.src_tag != c.dst_tag))
    findings.add(
        7,
        bad,
        lambda i: (
            f"{name_of(int(c.op[bad[i]]))} takes tag {tag(c.src_tag[bad[i]])}, "
            f"delivers {tag(c.dst_tag[bad[i]])}"
        ),
    )


def _numbered(findings: Findings, stated: Stated) -> None:
    """Rule 7: ARGMAX counts from the line of the vocabulary that the manifest says it reads."""
    c, lines = findings.columns, stated.logits
    rows = np.flatnonzero(c.op == Op.ARGMAX)
    if not len(lines):
        return
    place, want = lines[:, 0] * stated.words + lines[:, 1], c.chip[rows] * stated.words + c.src[rows]
    order = np.argsort(place)
    at = order[np.minimum(np.searchsorted(place[order], want), len(place) - 1)]
    number = np.where(place[at] == want, lines[at, 2], c.src3[rows])
    bad = np.flatnonzero(number != c.src3[rows])
    findings.add(
        7, rows[bad], lambda i: f"counts from line {c.src3[rows[bad[i]]]}, but reads line {number[bad[i]]}"
    )
