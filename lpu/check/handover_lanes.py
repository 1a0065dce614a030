"""Rules 6 and 7 of programs that move KV over the host lanes: the bridge's slot, all tokens, each once."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from compiler.program.isa import WORD_BYTES
from lpu.check.findings import Findings
from lpu.check.machine import MOVES, Group, Machine

_RUN = 80  # tokens that a stripe takes in turn


def lanes(findings: Findings, machine: Machine, manifest: Manifest, groups: list[Group]) -> None:
    """Check the rows of a hand-over against the bridge and the tokens that its manifest names."""
    if machine.kind not in MOVES:
        return
    try:
        slot = slot_of(manifest.body.bridge, manifest.clock_hz)
        tokens = int(manifest.tokens)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        what = f"manifest: {type(error).__name__}: {error}"
        findings.note(0, np.zeros(1), lambda _: what)
        return
    c = findings.columns
    for group in groups:
        kernel, rows = group.kernel, group.rows
        if kernel.host_slot != slot:
            findings.add(
                6,
                rows,
                lambda _, k=kernel: f"a word takes {k['host_slot']} cycles, over the bridge it takes {slot}",
            )
        most = _most(tokens, kernel.get("stripes", 1))
        bad = rows[c.n[rows] != most]
        findings.add(
            7, bad, lambda i, b=bad, m=most: f"moves {c.n[b[i]]} tokens, of {tokens} at most {m} lie here"
        )
    word = c.dst if machine.kind == "ingest" else c.src2
    _, first, which = np.unique(c.chip * machine.words + word, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[which] != np.arange(len(c)))
    findings.add(
        7,
        again,
        lambda i: f"moves the KV region of {findings.place(first[which[again[i]]])}",
    )


def slot_of(bridge: Mapping[str, Any], clock_hz: int) -> int:
    """Cycles of one word over the lane of one LPU, when the lanes of all share the rack's bridges."""
    rate = min(bridge["lpu_bytes_per_second"], bridge["rack_bytes_per_second"] // bridge["rack_lpus"])
    return (WORD_BYTES * clock_hz + rate - 1) // rate


def _most(tokens: int, stripes: int) -> int:
    """Consecutive tokens of one stripe, if the first of them begins a run of its own."""
    whole = tokens // (_RUN * stripes)
    return _RUN * whole + min(tokens - whole * _RUN * stripes, _RUN)
