"""The host lanes: what hops take and give over them, and what programs that move KV carry.

A hop takes lines of its message and gives every line of its answer once. Hops run one at a time, each with a
message of its own; so each keeps to its own cycles and its own values.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.program.instructions.host import GiveKernel, HandoverKernel, StateMoveKernel, TakeKernel
from compiler.program.isa import TAG_SHIFT, TAGS, WORD_BYTES, Op
from compiler.program.manifest import Hop, Hops, Manifest, Message, Move
from compiler.program.ranges import ramp
from fabric.bridge import BridgeSpec
from lpu.check.findings import Findings, tag
from lpu.check.rows import Alike
from lpu.check.stated import Stated

Way = Literal["inputs", "outputs"]
_ROWS: tuple[tuple[Op, Way, str], ...] = ((Op.TAKE, "inputs", "dst_tag"), (Op.GIVE, "outputs", "src_tag"))
_LANES = {"fp8": 160, "fp16": 160, "f32": 80}  # lanes of a line in SRAM, by its format on the wire
_WIRES: dict[Way, tuple[str, ...]] = {"inputs": ("fp8", "fp16"), "outputs": ("fp16", "f32")}
_LINE = (1 << TAG_SHIFT) - 1
_MOST_WIDTH = 1 << 24  # lanes of a message


class _Table(NamedTuple):
    """What the manifest says of the hops in order: first cycle, cycles, and of each way lines and format."""

    base: Int[np.ndarray, " hops"]
    cycles: Int[np.ndarray, " hops"]
    lines: dict[Way, Int[np.ndarray, " hops"]]
    wires: dict[Way, list[str]]


def host_lanes(findings: Findings, stated: Stated, manifest: Manifest, groups: list[Alike]) -> None:
    """Check the TAKE and GIVE rows of every hop, and that hops have nothing of one another."""
    c, body = findings.columns, manifest.body
    if not isinstance(body, Hops):
        rows = np.flatnonzero((c.op == Op.TAKE) | (c.op == Op.GIVE))
        findings.add(0, rows, "the manifest names no hop that could have a message")
        return
    try:
        hops = _table(manifest, body, stated)
    except ValueError as error:
        findings.tell(0, f"hops: {error}")
        return
    of = np.searchsorted(hops.base, c.t0, side="right") - 1
    slot = slot_of(body.bridge, manifest.clock_hz)
    if body.host_slot != slot:
        findings.tell(6, f"manifest: host_slot is {body.host_slot}, the rates of its bridge give {slot}")
    _slots(findings, slot, groups)
    _cycles(findings, hops, of)
    _apart(findings, of)
    for op, way, column in _ROWS:
        rows = np.flatnonzero((c.op == op) & (of >= 0))
        _formats(findings, stated, hops, rows, of[rows], way)
        _lines(findings, hops, rows, of[rows], way, column)


def slot_of(bridge: BridgeSpec, clock_hz: int) -> int:
    """Cycles of one word over the lane of one LPU, when the lanes of all share the rack's bridges."""
    rate = min(bridge.lpu_bytes_per_second, bridge.rack_bytes_per_second // bridge.rack_lpus)
    return (WORD_BYTES * clock_hz + rate - 1) // rate


def _message(hop: Hop, way: Way) -> Message:
    return hop.inputs if way == "inputs" else hop.outputs


def _table(manifest: Manifest, body: Hops, stated: Stated) -> _Table:
    if len(manifest.contexts) != 1:
        raise ValueError(f"contexts are {manifest.contexts}, hops have 1")
    base = np.array([hop.base for hop in body.hops], np.int64)
    cycles = np.array([hop.cycles for hop in body.hops], np.int64)
    if not len(base) or base[0] != 0 or (cycles < 1).any() or (base[1:] != base[:-1] + cycles[:-1]).any():
        raise ValueError("base and cycles do not follow one another from cycle 0")
    for hop in body.hops:
        for way, known in _WIRES.items():
            message = _message(hop, way)
            wide = 1 <= message.width <= _MOST_WIDTH
            if message.wire not in known or message.rows != stated.rows or not wide:
                raise ValueError(f"{way} are {message}, a step has {stated.rows} rows, wires {known}")
    wires: dict[Way, list[str]] = {way: [_message(hop, way).wire for hop in body.hops] for way in _WIRES}
    lines: dict[Way, Int[np.ndarray, " hops"]] = {
        way: np.array([-(-_message(hop, way).width // _LANES[_message(hop, way).wire]) for hop in body.hops])
        for way in _WIRES
    }
    return _Table(base, cycles, lines, wires)


def _slots(findings: Findings, slot: int, groups: list[Alike]) -> None:
    """Rule 6: a word takes the cycles on a host lane that the rates of the bridge give."""
    for _, kernel, rows in groups:
        if not isinstance(kernel, TakeKernel | GiveKernel | HandoverKernel | StateMoveKernel):
            continue
        if kernel.host_slot != slot:
            findings.add(6, rows, f"a word takes {kernel.host_slot} cycles, over the bridge it takes {slot}")


def _cycles(findings: Findings, hops: _Table, of: Int[np.ndarray, " rows"]) -> None:
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


def _apart(findings: Findings, of: Int[np.ndarray, " rows"]) -> None:
    """Rule 7: no value is named in two hops."""
    c = findings.columns
    tags = np.concatenate([getattr(c, name) for name in TAGS])
    named = np.where(tags < 0, -1, tags >> TAG_SHIFT)
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
    findings: Findings,
    stated: Stated,
    hops: _Table,
    rows: Int[np.ndarray, " crossing"],
    of: Int[np.ndarray, " crossing"],
    way: Way,
) -> None:
    """Rule 7: rows move the format that the manifest says of their hop."""
    c = findings.columns
    wires = [k.wire if isinstance(k, TakeKernel | GiveKernel) else "" for k in stated.kernels]
    have = np.array(wires)[c.aux[rows]]
    want = np.array(hops.wires[way])[of]
    bad = np.flatnonzero(have != want)
    findings.add(
        7, rows[bad], lambda i: f"moves {have[bad[i]]}, the {way} of its hop are {want[bad[i]]} on the wire"
    )


def _lines(
    findings: Findings,
    hops: _Table,
    rows: Int[np.ndarray, " crossing"],
    of: Int[np.ndarray, " crossing"],
    way: Way,
    column: str,
) -> None:
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
    line = np.repeat(first[fine], n[fine]) + ramp(n[fine])
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


def kv_lanes(findings: Findings, stated: Stated, manifest: Manifest, groups: list[Alike]) -> None:
    """Rules 6 and 7 of programs that move KV: the bridge's slot, all tokens, each region once."""
    body = manifest.body
    if not isinstance(body, Move):
        return
    _slots(findings, slot_of(body.bridge, manifest.clock_hz), groups)
    for _, kernel, rows in groups:
        if isinstance(kernel, HandoverKernel):
            _tokens(findings, body.tokens, kernel, rows)
    c = findings.columns
    word = c.dst if body.kind == "ingest" else c.src2
    _, first, which = np.unique(c.chip * stated.words + word, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[which] != np.arange(len(c)))
    findings.add(7, again, lambda i: f"moves the KV region of {findings.place(first[which[again[i]]])}")


def _tokens(findings: Findings, tokens: int, kernel: HandoverKernel, rows: Int[np.ndarray, " some"]) -> None:
    c, most = findings.columns, _most(tokens, kernel.stripes, kernel.run)
    bad = rows[c.n[rows] != most]
    findings.add(7, bad, lambda i: f"moves {c.n[bad[i]]} tokens, of {tokens} at most {most} lie here")


def _most(tokens: int, stripes: int, run: int) -> int:
    """Consecutive tokens of one stripe, if the first of them begins a run of its own."""
    if stripes == 1:
        return tokens
    whole = tokens // (run * stripes)
    return run * whole + min(tokens - whole * run * stripes, run)
