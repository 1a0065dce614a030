"""Rules 2 and 7 on the accumulators of the planes, which MM adds into and WB empties."""

import numpy as np

from compiler.isa import Op
from lpu.check_findings import Findings, tag
from lpu.check_rows import TIME_BITS, Machine


def accumulators(findings: Findings, machine: Machine) -> None:
    """Every MM belongs to the next WB of its accumulator; a WB closes as many MMs, and those, as it says."""
    c, planes, slots = findings.columns, machine.planes, machine.accumulators
    mm = np.flatnonzero((c.op == Op.MM) & (c.unit >= 0) & (c.unit < planes))
    wb = np.flatnonzero((c.op == Op.WB) & (c.unit >= planes) & (c.unit < 2 * planes))
    row = np.concatenate([mm, wb])
    slot = np.concatenate([c.dst[mm], c.src[wb]])
    out = np.flatnonzero((slot < 0) | (slot >= slots))
    findings.add(2, row[out], lambda i: f"accumulator {slot[out[i]]}, a plane has {slots}")
    plane = (c.chip[row] * planes + c.unit[row] - np.where(c.op[row] == Op.WB, planes, 0)) * slots + slot
    key = (plane << TIME_BITS | np.where(c.op[row] == Op.WB, c.t0[row], c.t1[row])) << 1 | (
        c.op[row] == Op.WB
    )
    key = key[(slot >= 0) & (slot < slots)]
    row = row[(slot >= 0) & (slot < slots)]
    order = np.argsort(key)
    key, row = key[order], row[order]
    closes = (key & 1).astype(bool)
    wb, wb_key = row[closes], key[closes]
    if not len(wb):
        findings.add(2, row, lambda i: "no WB reads its accumulator")
        return
    mm, mm_key = row[~closes], key[~closes]
    owner = (np.cumsum(closes) - closes)[~closes]
    closed = owner < len(wb)
    owner = np.minimum(owner, len(wb) - 1)
    closed &= wb_key[owner] >> TIME_BITS + 1 == mm_key >> TIME_BITS + 1
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
    for rule, which in ((2, wrong[meant]), (7, wrong[~meant])):
        findings.add(
            rule,
            mm[which],
            lambda i, w=which: (
                f"adds tag {tag(have[w[i]])} at cycle {c.t1[mm[w[i]]]} to what "
                f"{findings.place(wb[owner[w[i]]])} reads as tag {tag(want[w[i]])}"
            ),
        )
