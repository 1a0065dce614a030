"""The host lanes of a program of hops: each takes its whole message and gives every line of its answer once.

Hops run one at a time, each with a message of its own; so each keeps to its own cycles and its own values.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from compiler.program.isa import TAG_SHIFT, TAGS, Op
from lpu.check.findings import Findings, tag
from lpu.check.handover_lanes import slot_of
from lpu.check.machine import Group, Machine

_LANES = {"fp8": 160, "fp16": 160, "f32": 80}  # lanes of a line in SRAM, by its format on the wire
_WIRES = {"inputs": ("fp8", "fp16"), "outputs": ("fp16", "f32")}
_LINE = (1 << TAG_SHIFT) - 1


class _Hops(NamedTuple):
    """What the manifest says of the hops in order: first cycle, cycles, and of each way lines and format."""

    base: np.ndarray
    cycles: np.ndarray
    lines: dict[str, np.ndarray]
    wires: dict[str, list[str]]


def host(findings: Findings, machine: Machine, manifest: Manifest, groups: list[Group]) -> None:
    """Check the TAKE and GIVE rows of every hop, and that hops have nothing of one another."""
    c = findings.columns
    if machine.kind != "hops":
        rows = np.flatnonzero((c.op == Op.TAKE) | (c.op == Op.GIVE))
        findings.add(0, rows, lambda i: "the manifest names no hop that could have a message")
        return
    try:
        hops = _stated(manifest, machine)
        slot, slot_stated = (
            slot_of(manifest.body.bridge, manifest.clock_hz),
            manifest.body.bridge["slot_cycles"],
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        what = f"hops: {type(error).__name__}: {error}"
        findings.note(0, np.zeros(1), lambda _: what)
        return
    of = np.searchsorted(hops.base, c.t0, side="right") - 1
    _bridge(findings, slot, slot_stated, groups)
    _cycles(findings, hops, of)
    _apart(findings, of)
    for op, way, name in ((Op.TAKE, "inputs", "dst_tag"), (Op.GIVE, "outputs", "src_tag")):
        rows = np.flatnonzero((c.op == op) & (of >= 0))
        _formats(findings, machine, hops, rows, of[rows], way)
        _lines(findings, hops, rows, of[rows], way, name)


def _stated(manifest: Manifest, machine: Machine) -> _Hops:
    (context,) = manifest.contexts
    hops: list[Mapping[str, Any]] = manifest.hops
    base = np.array([hop["base"][str(context)] for hop in hops], np.int64)
    cycles = np.array([hop["cycles"][str(context)] for hop in hops], np.int64)
    if not len(base) or base[0] != 0 or (cycles < 1).any() or (base[1:] != base[:-1] + cycles[:-1]).any():
        raise ValueError("base and cycles do not follow one another from cycle 0")
    for hop in hops:
        for way, known in _WIRES.items():
            stated = hop[way]
            if stated["wire"] not in known or stated["rows"] != machine.rows or stated["width"] < 1:
                raise ValueError(f"{way} are {dict(stated)}, a step has {machine.rows} rows, wires {known}")
    wires = {way: [hop[way]["wire"] for hop in hops] for way in _WIRES}
    lines = {
        way: np.array([-(-hop[way]["width"] // _LANES[hop[way]["wire"]]) for hop in hops]) for way in _WIRES
    }
    return _Hops(base, cycles, lines, wires)


def _bridge(findings: Findings, slot: int, stated: int, groups: list[Group]) -> None:
    """Rule 6: a word takes the cycles on a host lane that the rates of the bridge give."""
    if stated != slot:
        what = f"manifest: bridge slot_cycles is {stated}, its rates give {slot}"
        findings.note(6, np.zeros(1), lambda _: what)
    for op, kernel, rows in groups:
        if op in (Op.TAKE, Op.GIVE) and kernel.host_slot != slot:
            what = f"a word takes {kernel['host_slot']} cycles, over the bridge it takes {slot}"
            findings.add(6, rows, lambda _, w=what: w)


def _cycles(findings: Findings, hops: _Hops, of: np.ndarray) -> None:
    """Rule 6: every hop ends with its last result at the cycle that the manifest says."""
    c = findings.columns
    last = np.zeros(len(hops.base), np.int64)
    np.maximum.at(last, of[of >= 0], c.t1[of >= 0])
    end = hops.base + hops.cycles
    findings.note(
        6,
        np.flatnonzero(last != end),
        lambda i: f"manifest: hop {i} ends at cycle {end[i]}, its last result comes at cycle {last[i]}",
    )


def _apart(findings: Findings, of: np.ndarray) -> None:
    """Rule 7: no value is named in two hops."""
    c = findings.columns
    named = np.concatenate([np.where((t := getattr(c, n)) < 0, -1, t >> TAG_SHIFT) for n in TAGS])
    values, which = np.unique(named, return_inverse=True)
    hop = np.tile(of, len(TAGS))
    first, last = np.full(len(values), len(of)), np.full(len(values), -1)
    np.minimum.at(first, which, hop)
    np.maximum.at(last, which, hop)
    shared = (first < last) & (values >= 0)
    row = np.tile(np.arange(len(of)), len(TAGS))[shared[which]]
    value = named[shared[which]]
    findings.add(7, row, lambda i: f"names value {value[i]}, which another hop names too")


def _formats(
    findings: Findings, machine: Machine, hops: _Hops, rows: np.ndarray, of: np.ndarray, way: str
) -> None:
    """Rule 7: rows move the format that the manifest says of their hop."""
    c = findings.columns
    have = np.array([kernel.get("wire", "") for kernel in machine.kernels])[c.aux[rows]]
    want = np.array(hops.wires[way])[of]
    bad = np.flatnonzero(have != want)
    findings.add(
        7, rows[bad], lambda i: f"moves {have[bad[i]]}, the {way} of its hop are {want[bad[i]]} on the wire"
    )


def _lines(findings: Findings, hops: _Hops, rows: np.ndarray, of: np.ndarray, way: str, column: str) -> None:
    """Rule 7: src3 is the line of the one value that crosses; each is taken, or given once."""
    c = findings.columns
    first, n, lines = c.src3[rows], c.n[rows], hops.lines[way][of]
    out = np.flatnonzero((first < 0) | (first + n > lines))
    findings.add(
        7,
        rows[out],
        lambda i: (
            f"lines {first[out[i]]} .. {first[out[i]] + n[out[i]] - 1}, "
            f"the {way} of its hop have {lines[out[i]]}"
        ),
    )
    name = getattr(c, column)[rows]
    hop, begin = np.unique(of, return_index=True)
    value = np.zeros(len(hops.base), np.int64)
    value[hop] = name[begin] >> TAG_SHIFT
    odd = np.flatnonzero((name >= 0) & ((name & _LINE != first) | (name >> TAG_SHIFT != value[of])))
    findings.add(
        7,
        rows[odd],
        lambda i: f"line {first[odd[i]]} on the wire is tag {tag(name[odd[i]])} on the chip",
    )
    fine = (first >= 0) & (first + n <= lines)
    row, at = np.repeat(rows[fine], n[fine]), np.repeat(of[fine], n[fine])
    line = np.repeat(first[fine] - np.cumsum(n[fine]) + n[fine], n[fine]) + np.arange(len(row))
    begins = np.cumsum(hops.lines[way]) - hops.lines[way]
    place = begins[at] + line
    count = np.bincount(place, minlength=int(hops.lines[way].sum()))
    verb = "taken" if way == "inputs" else "given"
    findings.note(
        7,
        np.flatnonzero(count == 0),
        lambda p: (
            f"line {p - begins[(h := np.searchsorted(begins, p, 'right') - 1)]} of the {way} of hop {h} "
            f"is {verb} by no row"
        ),
    )
    if way == "outputs":
        order = np.argsort(place, kind="stable")
        again = order[1:][place[order[1:]] == place[order[:-1]]]
        findings.add(7, row[again], lambda i: f"gives line {line[again[i]]}, which another row gives too")
