"""What a design can aim at: distance, installs and fills, with the exchanges that it cannot do without.

The bounds of `compiler/analyse/bounds.py` are of given rows. This one changes how the chips of a group
exchange what they have: how often in a block, whatever the rows do now. It keeps the groups, and counts no
VXM work, no words on links and no waiting, so it is a floor for layouts of these groups (docs/bounds.md).
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from compiler.analyse.bounds import work
from compiler.analyse.dataflow import edges
from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import MXM, PRODUCTS, Columns
from compiler.program.manifest import Manifest
from compiler.program.program import Call, Program

WAYS = (
    (1, "every: partials to all their readers at once"),
    (2, "column: gathered before both matmuls"),
    (2, "owner, levels: partials to who adds them, the sum to its readers"),
)
"""Exchanges for two matmuls of weights, one after the other, by the way that chips exchange."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """A floor of the cycles of a step whose blocks exchange in one way, by part. exchanges: of a step."""

    way: str
    exchanges: int
    hops: int
    handovers: int
    installs: int
    fills: int

    @property
    def cycles(self) -> int:
        """All parts."""
        return self.hops + self.handovers + self.installs + self.fills


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Of one template, in cycles: its installs, one hop between its chips.

    depth: rows on planes that wait for each other in a row. matmuls: the same of products with weights.
    """

    depth: int
    matmuls: int
    installs: int
    hop: int


def aims(program: Program, context: int) -> tuple[Aim, ...]:
    """The floor of each way to exchange, for one step of a context bucket."""
    manifest = program.manifest
    group_of = {chip: group for group in manifest.groups for chip in group}
    known: dict[int, _Block] = {}
    calls = [call for call in program.calls if len(program.blocks[call.block].columns[context])]
    for call in calls:
        if call.block not in known:
            rows = program.expand_call(call, context)
            known[call.block] = _block(manifest, rows, call, group_of)
    blocks = [known[call.block] for call in calls]
    handovers = sum(
        _crossing(manifest, group_of[one.chips[0]], group_of[other.chips[0]])
        for one, other in pairwise(calls)
    )
    out: list[Aim] = []
    for count, way in WAYS:
        times = [0 if not one.hop else max(count * (one.matmuls // 2), 1) for one in blocks]
        out.append(
            Aim(
                way=way,
                exchanges=sum(times),
                hops=sum(n * one.hop for n, one in zip(times, blocks, strict=True)),
                handovers=handovers,
                installs=sum(one.installs for one in blocks),
                fills=sum(one.depth for one in blocks) * manifest.chip.mxm_fill_cycles,
            )
        )
    return tuple(out)


def _block(manifest: Manifest, rows: Columns, call: Call, group_of: dict[int, tuple[int, ...]]) -> _Block:
    chip = manifest.chip
    asked = work(rows, manifest.kernels, manifest.rows, manifest.chips)
    rate = chip.plane_bytes_per_cycle * chip.planes
    pairs = edges(rows, manifest.kernels, chip.planes, call.tag)
    planes = np.array([INSTRUCTIONS[int(op)].unit == MXM for op in rows.op], np.int64)
    return _Block(
        depth=_depth(planes, pairs),
        matmuls=_depth(np.isin(rows.op, PRODUCTS).astype(np.int64), pairs),
        installs=-(-int((asked.weight_bytes + asked.kv_bytes).max()) // rate),
        hop=_hop(manifest, group_of[call.chips[0]], group_of[call.chips[0]]),
    )


def _depth(counted: np.ndarray, pairs: np.ndarray) -> int:
    """The most rows that count and wait for each other in a row. counted: 1 for such a row, else 0."""
    depth = counted
    for _ in range(len(counted)):
        before = np.zeros(len(counted), np.int64)
        np.maximum.at(before, pairs[:, 1], depth[pairs[:, 0]])
        if np.array_equal(before + counted, depth):
            break
        depth = before + counted
    return int(depth.max(initial=0))


def _hop(manifest: Manifest, ours: tuple[int, ...], theirs: tuple[int, ...]) -> int:
    """Cycles of the shortest link from one of our chips to another of theirs; 0 if there is none."""
    links = manifest.link_table()
    cross = np.isin(links[:, 0], ours) & np.isin(links[:, 1], theirs) & (links[:, 0] != links[:, 1])
    return int(links[cross, 3].min(initial=1 << 62)) if cross.any() else 0


def _crossing(manifest: Manifest, ours: tuple[int, ...], theirs: tuple[int, ...]) -> int:
    """What a hand-over takes more than an exchange: the way to the first chip, that hands on."""
    return 0 if ours == theirs else _hop(manifest, ours, theirs) + manifest.forward_cycles


def next_tenth(chain: dict[str, int], cycles: int) -> list[tuple[str, float]]:
    """By kind of the chain's cycles the part of them that is a tenth of the step, where they are more."""
    return [(name, 0.1 * cycles / count) for name, count in chain.items() if count * 10 >= cycles]
