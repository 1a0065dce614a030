"""Rules 2 and 7 on the accumulators of the planes, which MM adds into and WB empties."""

import numpy as np
from jaxtyping import Int

from compiler.program.isa import Op
from lpu.check.findings import Findings, tag
from lpu.check.rows import TIME_BITS, Batches
from lpu.check.stated import Stated

_BATCH_ROWS = 1 << 15


def accumulators(findings: Findings, stated: Stated) -> None:
    """Every MM belongs to the next WB of its accumulator; a WB closes as many MMs, and those, as it says."""
    c, planes, slots = findings.columns, stated.planes, stated.accumulators
    mm = np.flatnonzero((c.op == Op.MM) & (c.unit >= 0) & (c.unit < planes))
    wb = np.flatnonzero((c.op == Op.WB) & (c.unit >= planes) & (c.unit < 2 * planes))
    row = np.concatenate([mm, wb])
    slot = np.concatenate([c.dst[mm], c.src[wb]])
    real = (slot >= 0) & (slot < slots)
    out = np.flatnonzero(~real)
    findings.add(2, row[out], lambda i: f"accumulator {slot[out[i]]}, a plane has {slots}")
    if len(out):
        row, slot = row[real], slot[real]
    if not (c.op[row] == Op.WB).any():
        findings.add(2, row, "no WB reads its accumulator")
        return
    chip = c.chip[row]
    batches = Batches(np.bincount(chip, minlength=stated.chips), _BATCH_ROWS)
    for some in batches.of(chip):
        _closed(findings, stated, row[some], slot[some])


def _closed(
    findings: Findings, stated: Stated, row: Int[np.ndarray, " entries"], slot: Int[np.ndarray, " entries"]
) -> None:
    """All MM and WB of some chips, with the accumulator of each."""
    c, planes, slots = findings.columns, stated.planes, stated.accumulators
    ends = c.op[row] == Op.WB
    plane = (c.chip[row] * planes + c.unit[row] - np.where(ends, planes, 0)) * slots + slot
    key = (plane << TIME_BITS | np.where(ends, c.t0[row], c.t1[row])) << 1 | ends
    order = np.argsort(key)
    key, row = key[order], row[order]
    closes = (key & 1).astype(bool)
    wb, wb_key = row[closes], key[closes]
    mm, mm_key = row[~closes], key[~closes]
    owner = (np.cumsum(closes) - closes)[~closes]
    closed = owner < len(wb)
    closed[closed] = wb_key[owner[closed]] >> TIME_BITS + 1 == mm_key[closed] >> TIME_BITS + 1
    left = np.flatnonzero(~closed)
    findings.add(
        2, mm[left], lambda i: f"adds at cycle {c.t1[mm[left[i]]]}, no later WB reads its accumulator"
    )
    mm, mm_key, owner = mm[closed], mm_key[closed], owner[closed]
    count = np.bincount(owner, minlength=len(wb))
    bad = np.flatnonzero(count != c.src3[wb])
    findings.add(
        2, wb[bad], lambda i: f"closes {count[bad[i]]} MMs by its cycle, src3 says {c.src3[wb[bad[i]]]}"
    )
    thin = np.flatnonzero(c.n[mm] != c.n[wb[owner]])
    findings.add(
        2,
        mm[thin],
        lambda i: (
            f"adds {c.n[mm[thin[i]]]} lines, {findings.place(wb[owner[thin[i]]])} "
            f"reads {c.n[wb[owner[thin[i]]]]}"
        ),
    )
    have, want = c.dst_tag[mm], c.src_tag[wb[owner]]
    wrong = np.flatnonzero((have != want) & (have >= 0) & (want >= 0))
    pair, index = np.unique(np.concatenate([have[wrong], c.src_tag[wb]]), return_inverse=True)
    place = np.concatenate([mm_key[wrong], wb_key]) >> TIME_BITS + 1
    place = place * len(pair) + index
    meant = np.isin(place[: len(wrong)], place[len(wrong) :])

    def text(at: int) -> str:
        reader = findings.place(wb[owner[at]])
        return (
            f"adds tag {tag(have[at])} at cycle {c.t1[mm[at]]} to what {reader} reads as tag {tag(want[at])}"
        )

    early, foreign = wrong[meant].tolist(), wrong[~meant].tolist()
    findings.add(2, mm[early], lambda i: text(early[i]))
    findings.add(7, mm[foreign], lambda i: text(foreign[i]))
