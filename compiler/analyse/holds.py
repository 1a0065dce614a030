"""How long every row of a program keeps its unit or its lanes, by the compiler's cycle formulas."""

import numpy as np
from jaxtyping import Int

from compiler.program.isa import Columns, ceil_div, is_transfer
from compiler.program.manifest import Manifest
from compiler.program.packed import by_kind
from compiler.timing import timing


def slot_cycles(manifest: Manifest, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cycles that one lane of the link a -> b needs for one word."""
    return manifest.link_table()[link_rows(manifest, a, b), 4]


def link_rows(manifest: Manifest, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The row of each link a -> b in the manifest's `links`, -1 where there is none."""
    links, size = manifest.link_table(), manifest.chips
    known, wanted = links[:, 0] * size + links[:, 1], a * size + b
    order = np.argsort(known, kind="stable")
    at = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)] if len(known) else a
    return np.where(known[at] == wanted, at, -1) if len(known) else np.full(len(a), -1)


def holds(columns: Columns, manifest: Manifest) -> Int[np.ndarray, " rows"]:
    """Cycles from `t0` that each row keeps its unit, or its lanes. Source: docs/timing.md."""
    batch, chip = manifest.rows, manifest.chip
    out = np.zeros(len(columns), np.int64)
    moved, compute = np.flatnonzero(is_transfer(columns.op)), np.flatnonzero(~is_transfer(columns.op))
    for op, aux, some in by_kind(columns.op[compute], columns.aux[compute]):
        rows = compute[some]
        out[rows] = timing(op, columns.n[rows], manifest.kernels[aux], chip, batch)[0]
    slots = ceil_div(columns.n[moved] * batch, columns.aux[moved])
    out[moved] = slots * slot_cycles(manifest, columns.chip[moved], columns.peer[moved])
    return out
