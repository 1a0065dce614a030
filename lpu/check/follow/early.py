"""What lies in DDR5: what its lanes give, that it fits, and that no step appends to early KV.

The DDR5 of an FPGA has the early part of every region of its chips, and their cold experts. Slots of lanes
are units, as for all rows.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from compiler.program.instructions.attention import AttentionKernel
from compiler.program.instructions.cold import ColdTileKernel
from compiler.program.isa import WORD_BYTES, Op
from compiler.program.manifest import Manifest
from fabric.host import RESERVOIR
from lpu.check.findings import Findings
from lpu.check.follow.cold import kept_bytes
from lpu.check.rows import Alike
from lpu.check.stated import Stated

_LPUS = 8  # that share the DDR5 of an FPGA


def early(findings: Findings, stated: Stated, manifest: Manifest, groups: list[Alike], context: int) -> None:
    """Rules 5, 6 and 7 of rows that fetch, and of attention of which a part of the context lies in DDR5."""
    rate = min(RESERVOIR.lane, RESERVOIR.ddr5 // _LPUS)
    slot = (WORD_BYTES * manifest.clock_hz + rate - 1) // rate
    before = max((other for other in manifest.contexts if other < context), default=0)
    kept = kept_bytes(findings, groups, stated.chips)
    for group in groups:
        k = group.kernel
        if group.op == Op.FETCHX and isinstance(k, ColdTileKernel) and k.host_slot != slot:
            what = f"a word takes {k.host_slot} cycles, lane and DDR5 give one in {slot}"
            findings.add(6, group.rows, what)
        if not isinstance(k, AttentionKernel) or not (k.early or k.reservoir or k.host_slot):
            continue
        if group.op == Op.FETCH and k.host_slot != slot:
            what = f"a word takes {k.host_slot} cycles, lane and DDR5 give one in {slot}"
            findings.add(6, group.rows, what)
        if group.op != Op.KVW:
            continue
        tokens = k.early * k.block
        if tokens > before or k.early % (k.run // k.block * k.stripes if k.stripes > 1 else 1):
            what = f"{tokens} early tokens in {k.stripes} stripes, the bucket before has {before}"
            findings.add(7, group.rows, what)
        if k.rows != k.cached or k.chunk != k.block:
            what = f"early blocks of {k.chunk} tokens of {k.cached} sequences, a step has {k.rows} rows"
            findings.add(7, group.rows, what)
        chips = findings.columns.chip[group.rows]
        kept += np.bincount(chips, minlength=stated.chips) * k.cached * k.reservoir * k.kv_words * WORD_BYTES
    for chips in _shared(manifest, stated.chips):
        if (total := int(kept[list(chips)].sum())) > RESERVOIR.capacity:
            what = f"have early KV and experts of {total} bytes, their DDR5 {RESERVOIR.capacity}"
            findings.tell(5, f"chips {chips[0]} .. {chips[-1]} {what}")


def _shared(manifest: Manifest, chips: int) -> Iterator[Sequence[int]]:
    """The chips of each FPGA."""
    levels = manifest.levels
    trays = levels[0].groups if levels and levels[0].kind != "links" else (tuple(range(chips)),)
    return (tray[at : at + _LPUS] for tray in trays for at in range(0, len(tray), _LPUS))
