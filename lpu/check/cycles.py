"""Rules 4 and 6: how long every row takes, computed again from docs/timing.md, and the links of transfers."""

from typing import Any, NamedTuple

import numpy as np

from compiler.program.isa import READS, TRANSIENT, WRITES, Kernel, Op
from lpu.check.findings import Findings
from lpu.check.machine import Group, Machine

_D = 320  # lanes of a VXM chain, rows and columns of a plane
_LINE = 80  # f32 lanes of a line
_VXM_WORDS = 8

# docs/timing.md, "VXM lanes and passes": what the lanes of one batch row are counted by, and the passes.
_LINES, _HEADS, _HEAD_PAIR, _CHUNKS, _CHUNK, _GROUP, _PARTS = range(7)
_VXM: dict[Op, tuple[int, int]] = {
    Op.EMBED: (_LINES, 1),
    Op.RSTAT: (_LINES, 2),
    Op.NORM: (_LINES, 2),
    Op.HNORM: (_HEADS, 4),
    Op.ROPE: (_HEADS, 3),
    Op.CAST: (_LINES, 1),
    Op.KVW: (_HEAD_PAIR, 1),
    Op.SMAX: (_CHUNKS, 1),
    Op.EXP: (_CHUNK, 4),
    Op.AOUT: (_GROUP, 1),
    Op.ASUM: (_GROUP, 1),
    Op.AEND: (_GROUP, 1),
    Op.RED: (_PARTS, 1),
    Op.ADD: (_LINES, 1),
    Op.GLU: (_LINES, 4),
    Op.ARGMAX: (_LINES, 1),
    Op.ARGRED: (_LINES, 1),
}
_REDUCES = (Op.RSTAT, Op.HNORM, Op.SMAX, Op.EXP, Op.ARGMAX, Op.ARGRED)


class Held(NamedTuple):
    """Of every row: the cycles it keeps its unit or lanes, and the words it moves through activation ports.

    `link` is the link of a transfer, -1 for a link that does not exist and for all other rows.
    """

    hold: np.ndarray
    words: np.ndarray
    link: np.ndarray


def _up(a: Any, b: Any) -> Any:
    return (a + b - 1) // b


def _lanes(count: int, n: np.ndarray, k: Kernel) -> Any:
    if count in (_LINES, _PARTS):
        return _LINE * n * (k.parts if count == _PARTS else 1)
    if count in (_HEADS, _HEAD_PAIR):
        return k.head_dim * (n if count == _HEADS else 2)
    return k.group * (k.head_dim * n if count == _GROUP else k.chunk * (n if count == _CHUNKS else 1))


def _moved(op: Op, n: np.ndarray, k: Kernel, rows: int) -> Any:
    """Words through the ports: transient words, and the table or KV words that the embedding and KVW move."""
    write = WRITES[op]
    lines = 0 if write is None or write.space != TRANSIENT else write.extent(n, k)
    for operand in READS[op]:
        if operand.space == TRANSIENT:
            lines = lines + operand.extent(n, k) * (n if operand.stride else 1)
    if op is Op.EMBED:
        lines = lines + _up(n, 2)
    if op in (Op.KVIN, Op.KVOUT):
        return n * k.kv_words
    return rows * (lines + (k.kv_words if op is Op.KVW else 0))


def _time(op: Op, n: np.ndarray, k: Kernel, words: Any, m: Machine) -> tuple[Any, int]:
    """(hold, what the result takes beyond it) of compute rows."""
    if op is Op.MM:
        return np.maximum(_up(_D * _LINE * n, m.plane_bytes), m.rows), 0
    if op is Op.WB:
        return m.rows * (4 if k.wide else 1), m.mxm_fill
    if op in (Op.QK, Op.PV):
        install = k.chunk * k.head_dim * (2 if k.kv == "fp16" else 1)
        streamed = m.rows // k.sequences * _up(k.chunk, _D) * k.group
        return k.sequences * max(_up(install, m.plane_bytes), streamed), m.mxm_fill
    if op in (Op.KVIN, Op.KVOUT):
        return words * k.host_slot, 0
    if op in (Op.TAKE, Op.GIVE):
        return (_up(n, 2) if k.wire == "fp8" else n) * m.rows * k.host_slot, 0
    count, passes = _VXM[op]
    hold = np.maximum(_up(_lanes(count, n, k) * m.rows, _D) * passes, _up(words, _VXM_WORDS))
    return hold, m.vxm_latency + (m.lane_reduce if op in _REDUCES else 0)


def cycles(findings: Findings, machine: Machine, groups: list[Group]) -> Held:
    """Hold and words of every row; rows that take other cycles than they must are violations."""
    c, m = findings.columns, machine
    hold, words = np.zeros(len(c), np.int64), np.zeros(len(c), np.int64)
    link = np.full(len(c), -1, np.int32)
    right = np.zeros(len(c), np.int64)
    for op, kernel, rows in groups:
        n = c.n[rows]
        if op in (Op.SEND, Op.FORWARD):
            link[rows] = joined = m.link[c.chip[rows] * m.chips + c.peer[rows]]
            words[rows] = n * m.rows
            held = _up(n * m.rows, c.aux[rows]) * m.slot[joined] if len(m.slot) else 1
            beyond = (m.hop[joined] if len(m.hop) else 0) + (m.forward if op is Op.FORWARD else 0)
        else:
            words[rows] = moved = _moved(op, n, kernel, m.rows)
            held, beyond = _time(op, n, kernel, moved, m)
        hold[rows] = held
        right[rows] = held + beyond
    transfer = (c.op == Op.SEND) | (c.op == Op.FORWARD)
    _links(findings, machine, link, np.flatnonzero(transfer))
    wrong = (c.t1 - c.t0 != right) & (~transfer | (link >= 0))
    for rule, rows in ((6, np.flatnonzero(wrong & ~transfer)), (4, np.flatnonzero(wrong & transfer))):
        findings.add(
            rule,
            rows,
            lambda i, r=rows: f"takes {c.t1[r[i]] - c.t0[r[i]]} cycles, must take {right[r[i]]}",
        )
    return Held(hold, words, link)


def _links(findings: Findings, machine: Machine, link: np.ndarray, rows: np.ndarray) -> None:
    c = findings.columns
    missing = rows[link[rows] < 0]
    findings.add(4, missing, lambda i: f"no link from chip {c.chip[missing[i]]} to chip {c.peer[missing[i]]}")
    rows = rows[link[rows] >= 0]
    lanes = machine.lanes[link[rows]] if len(rows) else rows
    out = np.flatnonzero((c.lane[rows] < 0) | (c.lane[rows] > lanes - c.aux[rows]))
    findings.add(
        4,
        rows[out],
        lambda i: (
            f"lanes {c.lane[rows[out[i]]]} .. {c.lane[rows[out[i]]] + c.aux[rows[out[i]]] - 1}, "
            f"the link has {lanes[out[i]]}"
        ),
    )
