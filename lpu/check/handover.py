"""A decode program and those that move its KV: the same regions, each once, each with its line of a layer.

What a line is follows from the decode program: the KV heads of a layer in the order of the K that its KVW
rows take, and the stripe that the row names.
"""

from typing import Any

import numpy as np

from compiler.program.isa import Columns, Op, stripes
from compiler.program.program import Call, Program
from lpu.check.findings import Findings, Report
from lpu.check.machine import MOVES

_SAME = ("model", "rack", "chip_name", "chip", "links", "forward_cycles", "vocab", "sequences", "capacity")
_CACHE = ("head_dim", "kv", "kv_words", "kv_stride", "cached", "capacity")
_Place = tuple[int, int]  # chip, first word


def check_handover(decode: Program, ingest: Program, egress: Program | None = None) -> Report:
    """The report on one memory image: every KV region of the decode program is moved once, in its slot.

    The rules of each program by itself are those of `lpu.check.check`.
    """
    context = max(decode.manifest.contexts)
    calls = [(call, decode.expand_call(call, context)) for call in decode.calls]
    layers = [(call, _appended(rows, decode)) for call, rows in calls if (rows.op == Op.KVW).any()]
    findings = Findings(ingest.expand(ingest.manifest.contexts[0]))
    for program, kind in ((ingest, "ingest"), (egress, "egress")):
        if program is not None:
            _manifests(findings, decode, program, kind)
            if program.manifest.kind == kind:
                _layers(findings, layers, program, kind)
    return findings.report()


def _appended(rows: Columns, decode: Program) -> dict[_Place, tuple[Any, ...]]:
    """Line, stripes and format of each region that a call of the decode program appends to."""
    rows = rows.take(np.flatnonzero(rows.op == Op.KVW))
    head = np.unique(rows.src_tag, return_inverse=True)[1]
    kernels = [decode.manifest.kernels[aux] for aux in rows.aux.tolist()]
    return {
        (chip, word): (int(h) * stripes(k) + max(stripe, 0), stripes(k), *(k.get(name) for name in _CACHE))
        for chip, word, h, stripe, k in zip(
            rows.chip.tolist(), rows.dst.tolist(), head, rows.src3.tolist(), kernels, strict=True
        )
    }


def _manifests(findings: Findings, decode: Program, program: Program, kind: str) -> None:
    one, other = decode.manifest, program.manifest
    wrong = [f"{name} differs" for name in _SAME if one.get(name) != other.get(name)]
    if other.get("kind") != kind:
        wrong.append(f"kind is {other.get('kind')!r}, must be {kind!r}")
    if other.get("program") != one["digest"]:
        wrong.append(f"it is of program {str(other.get('program'))[:16]}, not {one['digest'][:16]}")
    findings.note(
        0, np.arange(len(wrong)), lambda i: f"manifests of the decode and the {kind} program: {wrong[i]}"
    )
    if one["regions"] != other["regions"]:
        findings.note(5, np.zeros(1), lambda _: f"regions of the decode and the {kind} program differ")


def _layers(
    findings: Findings, layers: list[tuple[Call, dict[_Place, tuple[Any, ...]]]], program: Program, kind: str
) -> None:
    """Every call of a hand-over against the layer that it must be."""
    (context,), slots, ready = (program.manifest[name] for name in ("contexts", "slots", "ready"))
    counts = [len(program.calls), len(slots), program.manifest.layers]
    counts += [] if ready is None else [len(ready)]
    if set(counts) != {len(layers)}:
        what = f"the {kind} program has {counts} calls, slots and layers, the decode program {len(layers)}"
        findings.note(7, np.zeros(1), lambda _: what)
        return
    end = 0
    for layer, (call, (_, wanted)) in enumerate(zip(program.calls, layers, strict=True)):
        rows = program.expand_call(call, context)
        where = f"{kind} of layer {layer} ({call.name})"
        _regions(findings, where, wanted, rows, program)
        begin, last = (int(rows.t0.min()), int(rows.t1.max())) if len(rows) else (end, end)
        if slots[layer][1:] != [begin, last - begin]:
            what = f"{where}: rows from cycle {begin} for {last - begin} cycles, its slot {slots[layer][1:]}"
            findings.note(6, np.zeros(1), lambda _, w=what: w)
        least = end if ready is None else ready[layer]
        if begin < least:
            what = f"{where}: begins at cycle {begin}, its slot may not before {least}"
            findings.note(1, np.zeros(1), lambda _, w=what: w)
        end = last


def _regions(
    findings: Findings, where: str, wanted: dict[_Place, tuple[Any, ...]], rows: Columns, program: Program
) -> None:
    word = rows.dst if MOVES[program.manifest.kind] is Op.KVIN else rows.src2
    kernels = program.manifest.kernels
    missing = dict(wanted)
    for i, place in enumerate(zip(rows.chip.tolist(), word.tolist(), strict=True)):
        kernel = kernels[int(rows.aux[i])]
        found = (int(rows.src3[i]), stripes(kernel), *(kernel.get(name) for name in _CACHE))
        what = f"{where}: word {place[1]} of chip {place[0]}"
        if place not in wanted:
            findings.note(7, np.zeros(1), lambda _, w=what: f"{w} is no KV region of the layer")
        elif place not in missing:
            findings.note(7, np.zeros(1), lambda _, w=what: f"{w} is moved twice")
        elif found != (want := missing.pop(place)):
            findings.note(
                7, np.zeros(1), lambda _, w=what, f=found, o=want: f"{w}: moves {f}, the layer keeps {o}"
            )
    for chip, first in missing:
        what = f"{where}: no row moves the KV region at word {first} of chip {chip}"
        findings.note(7, np.zeros(1), lambda _, w=what: w)
