"""Rules 4 and 6: how long every row takes, computed again from docs/timing.md, and the links of transfers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.program.instructions.attention import AttentionKernel, LatentAttentionKernel
from compiler.program.instructions.cold import ColdTileKernel
from compiler.program.instructions.experts import HalfKernel, RankKernel, SlotsKernel, WeightedGluKernel
from compiler.program.instructions.host import (
    GiveKernel,
    HandoverKernel,
    LoadKernel,
    StateMoveKernel,
    TakeKernel,
)
from compiler.program.instructions.matmul import WriteBackKernel
from compiler.program.instructions.recurrent import ConvKernel, DeltaKernel, SsmKernel
from compiler.program.isa import TRANSIENT, Op, is_transfer
from lpu.check.findings import Findings
from lpu.check.rows import Alike
from lpu.check.stated import Stated

_D = 320  # lanes of a VXM chain, rows and columns of a plane
_LINE = 80  # f32 lanes of a line
_VXM_WORDS = 8
_SIGMOID = 7  # passes of a sigmoid and its bias
_CAP = 6  # passes of a soft cap

Counts = Int[np.ndarray, " some"]


class Taken(NamedTuple):
    """What rows of one opcode and kernel take: cycles of their unit, cycles of the result beyond them, words.

    words: through the activation ports.
    """

    hold: Counts | int
    beyond: int
    words: Counts | int


Rule = Callable[[Counts, Any, Counts, Stated], Taken]
"""From the counts `n` of rows, their kernel, the transient words that they read and write, the machine."""

CYCLES: dict[int, Rule] = {}
"""The timing rules of docs/timing.md by opcode; transfers, which no unit holds, have none."""


def register(op: int, rule: Rule) -> None:
    """Say how long an opcode takes.

    Raises ValueError if that is said already.
    """
    if CYCLES.setdefault(op, rule) is not rule:
        raise ValueError(f"opcode {op}: it has a timing rule already. Give the instruction another number.")


@dataclass(frozen=True, slots=True)
class Vector:
    """A row of the VXM: lanes of one batch row, passes over the mesh, whether lanes are reduced across.

    besides: words of one batch row that it moves besides the transient ones.
    """

    lanes: Callable[[Counts, Any], Counts | int]
    passes: int
    reduces: bool = False
    besides: Callable[[Counts, Any], Counts | int] = lambda n, k: 0

    def __call__(self, n: Counts, kernel: Any, words: Counts, m: Stated) -> Taken:
        """What such rows take."""
        words = words + m.rows * self.besides(n, kernel)
        hold = np.maximum(_up(self.lanes(n, kernel) * m.rows, _D) * self.passes, _up(words, _VXM_WORDS))
        return Taken(hold, m.vxm_latency + (m.lane_reduce if self.reduces else 0), words)


def _scored(passes: int, *, reduces: bool = False) -> Rule:
    """Rows over the scores of a block: this many passes, and those of a soft cap if the kernel has one."""

    def rule(n: Counts, k: AttentionKernel, words: Counts, m: Stated) -> Taken:
        every = passes + (_CAP if k.cap else 0)
        return Vector(lambda n, k: k.group * k.chunk, every, reduces=reduces)(n, k, words, m)

    return rule


def _product(n: Counts, kernel: Any, words: Counts, m: Stated) -> Taken:
    return Taken(np.maximum(_up(_D * _LINE * n, m.plane_bytes), m.rows), 0, words)


def _half_product(n: Counts, k: HalfKernel, words: Counts, m: Stated) -> Taken:
    each = np.maximum(_up(_D * 2 * _LINE * n, m.plane_bytes), m.rows)
    return Taken(_up(k.k_lines, 2) * each, m.mxm_fill, words)


def _rank(n: Counts, k: RankKernel, words: Counts, m: Stated) -> Taken:
    """Comparisons of all pairs, twice and with three reductions in groups; before it, sigmoids and biases."""
    times, reductions = (2, 3) if k.groups > 1 else (1, 1)
    compared = times * _up(_LINE * n * k.experts * m.rows, _D)
    if k.sigmoid or k.biased:
        passes = _SIGMOID if k.sigmoid else 1
        compared = compared + passes * _up(_LINE * _up(k.experts, _LINE) * m.rows, _D)
    return _swept(compared, m.vxm_latency + reductions * m.lane_reduce, words)


def _weigh_glu(n: Counts, k: WeightedGluKernel, words: Counts, m: Stated) -> Taken:
    """GLU and a weight on 40 columns a line, 80 without a gate; a bias takes a pass, clipping two."""
    passes = 5 + (k.biases > 0) + 2 * (k.activation == "swiglu_oai") + (k.activation == "silu_weighed")
    gates = 1 if k.activation == "relu2" else 2
    return Vector(lambda n, k: _LINE // gates * n, passes)(n, k, words, m)


def _choose(n: Counts, k: SlotsKernel, words: Counts, m: Stated) -> Taken:
    held = k.some if k.some else k.experts
    compared = _up(held * m.rows, _D) + _up(n * held, _D)
    return _swept(compared, m.vxm_latency + m.lane_reduce, words)


def _drain(n: Counts, kernel: WriteBackKernel, words: Counts, m: Stated) -> Taken:
    return Taken(m.rows * (4 if kernel.wide else 1), m.mxm_fill, words)


def _plane(k: AttentionKernel, columns: int, m: Stated) -> int:
    """K or V of a block on a plane, this many columns a token; heads and rows of its sequence streamed."""
    installed = _up(k.chunk * columns * (2 if k.kv == "fp16" else 1), m.plane_bytes)
    streamed = m.rows // k.sequences * _up(k.chunk, _D) * _up(columns, _D) * k.group
    return k.sequences * max(installed, streamed)


def _score(n: Counts, k: AttentionKernel, words: Counts, m: Stated) -> Taken:
    return Taken(_plane(k, k.head_dim + _turned(k), m), m.mxm_fill, words)


def _turned(k: AttentionKernel) -> int:
    """Lanes of a key beside those of its latent."""
    return k.turned if isinstance(k, LatentAttentionKernel) else 0


def _kept(n: Counts, k: AttentionKernel) -> int:
    return k.head_dim + (_turned(k) or k.head_dim)


def _weigh(n: Counts, k: AttentionKernel, words: Counts, m: Stated) -> Taken:
    return Taken(_plane(k, k.head_dim + 1, m), m.mxm_fill, words)


def _carry(n: Counts, k: TakeKernel | GiveKernel, words: Counts, m: Stated) -> Taken:
    return Taken((_up(n, 2) if k.wire == "fp8" else n) * m.rows * k.host_slot, 0, words)


def _move(n: Counts, k: HandoverKernel | StateMoveKernel, words: Counts, m: Stated) -> Taken:
    """Words of each of n tokens, or of each of n lines of states."""
    each = k.kept if isinstance(k, StateMoveKernel) else k.kv_words
    return Taken(n * each * k.host_slot, 0, n * each)


def _fetch(n: Counts, k: AttentionKernel, words: Counts, m: Stated) -> Taken:
    return Taken(m.rows * k.chunk * k.kv_words * k.host_slot, 0, words)


def _fetch_tile(n: Counts, k: ColdTileKernel, words: Counts, m: Stated) -> Taken:
    return Taken(_LINE * k.wide * k.host_slot, 0, words)


def _load(n: Counts, k: LoadKernel, words: Counts, m: Stated) -> Taken:
    return Taken(n * k.host_slot, 0, n)


def _swept(passes: Counts | int, latency: int, words: Counts) -> Taken:
    return Taken(np.maximum(passes, _up(words, _VXM_WORDS)), latency, words)


def _convolve(n: Counts, k: ConvKernel, words: Counts, m: Stated) -> Taken:
    """The state goes out and comes back once for all tokens of a sequence."""
    passes = (k.kept + 5) * _up(_LINE * n * m.rows, _D)
    return _swept(passes, m.vxm_latency, words + 2 * k.sequences * k.kept * n)


def _recur(n: Counts, k: SsmKernel, words: Counts, m: Stated) -> Taken:
    """Token after token; from the second on each finds the state that the one before has committed."""
    tokens, state = m.rows // k.sequences, 2 * k.kept * k.sequences
    each = max(3 * _up(_LINE * k.kept * k.sequences, _D), _up(state, _VXM_WORDS))
    if tokens > 1:
        each = max(each, m.vxm_latency)
    return _swept(tokens * each, m.vxm_latency, words + tokens * state)


def _amend(n: Counts, k: DeltaKernel, words: Counts, m: Stated) -> Taken:
    """As `_recur`, with two sweeps of the state for each token, the second of which waits for the first."""
    tokens, state, latency = m.rows // k.sequences, 3 * k.kept * k.sequences, 2 * m.vxm_latency
    each = max(5 * _up(_LINE * k.kept * k.sequences, _D), _up(state, _VXM_WORDS))
    if tokens > 1:
        each = max(each, latency)
    return _swept(tokens * each, latency, words + tokens * state)


def _lines(n: Counts, k: Any) -> Counts:
    return _LINE * n


def _heads(n: Counts, k: Any) -> Counts:
    return n * k.head_dim


def _group(n: Counts, k: Any) -> Counts:
    return n * k.group * k.head_dim


for _op, _rule in {
    Op.EMBED: Vector(_lines, 1, besides=lambda n, k: _up(n, 2)),
    Op.RSTAT: Vector(_lines, 2, reduces=True),
    Op.NORM: Vector(_lines, 2),
    Op.MOMENTS: Vector(_lines, 3, reduces=True),
    Op.LNORM: Vector(_lines, 3),
    Op.PRE: Vector(_lines, 1),
    Op.HNORM: Vector(_heads, 4, reduces=True),
    Op.ROPE: Vector(_heads, 3),
    Op.CAST: Vector(_lines, 1),
    Op.KVW: Vector(_kept, 1, besides=lambda n, k: k.kv_words),
    Op.QK: _score,
    Op.SMAX: _scored(1, reduces=True),
    Op.EXP: _scored(4),
    Op.PV: _weigh,
    Op.NODE: Vector(_group, 1),
    Op.AOUT: Vector(lambda n, k: _group(n + 1, k), 1),
    Op.MM: _product,
    Op.WB: _drain,
    Op.RED: Vector(lambda n, k: _LINE * n * k.parts, 1),
    Op.TREE: Vector(lambda n, k: _LINE * n * k.begins.bit_count(), 1),
    Op.ADD: Vector(_lines, 1),
    Op.BIAS: Vector(_lines, 1),
    Op.MUL: Vector(_lines, 1),
    Op.MAD: Vector(_lines, 1),
    Op.VMUL: Vector(_lines, 1),
    Op.GLU: Vector(_lines, 4),
    Op.CAP: Vector(_lines, _CAP),
    Op.ARGMAX: Vector(_lines, 1, reduces=True),
    Op.ARGRED: Vector(_lines, 1, reduces=True),
    Op.XMM: _product,
    Op.XMF: _product,
    Op.MM16: _half_product,
    Op.RANK: _rank,
    Op.SHARE: Vector(lambda n, k: _LINE * (n + k.gated), 6, reduces=True),
    Op.SLOTS: _choose,
    Op.WGLU: _weigh_glu,
    Op.CONV: _convolve,
    Op.STEP: Vector(lambda n, k: _LINE * (2 + k.decays), 4),
    Op.SSM: _recur,
    Op.GATE: Vector(_lines, 4),
    Op.GATE16: Vector(_lines, 4),
    Op.DECAY: Vector(lambda n, k: 2 * _LINE, 4),
    Op.DELTA: _amend,
    Op.TAKE: _carry,
    Op.GIVE: _carry,
    Op.KVIN: _move,
    Op.KVOUT: _move,
    Op.LOAD: _load,
    Op.FETCH: _fetch,
    Op.FETCHX: _fetch_tile,
    Op.QKF: _score,
    Op.PVF: _weigh,
}.items():
    register(_op, _rule)


class Busy(NamedTuple):
    """Of every row: the cycles it keeps its unit or lanes, and the words it moves through activation ports.

    `link` is the link of a transfer, -1 for a link that does not exist and for all other rows.
    """

    hold: Int[np.ndarray, " rows"]
    words: Int[np.ndarray, " rows"]
    link: Int[np.ndarray, " rows"]


def _up(a: Any, b: Any) -> Any:
    return (a + b - 1) // b


def _transient_words(group: Alike, n: Counts, rows: int) -> Counts:
    """Words of all transient operands together, but those that planes install."""
    lines = 0 * n
    for operand in group.instruction.operands:
        if operand.space == TRANSIENT and not operand.installed:
            lines = lines + operand.extent(n, group.kernel) * (n if operand.stride else 1)
    return rows * lines


def cycles(findings: Findings, stated: Stated, groups: list[Alike]) -> Busy:
    """Hold and words of every row; rows that take other cycles than they must are violations."""
    c, m = findings.columns, stated
    hold, words = np.zeros(len(c), np.int64), np.zeros(len(c), np.int64)
    link = np.full(len(c), -1, np.int32)
    right = np.zeros(len(c), np.int64)
    for group in groups:
        rows, n = group.rows, c.n[group.rows]
        if group.transfers:
            link[rows] = joined = m.link[c.chip[rows] * m.chips + c.peer[rows]]
            words[rows] = n * m.rows
            hold[rows] = _up(n * m.rows, c.aux[rows]) * m.slot[joined] if len(m.slot) else 1
            beyond = (m.hop[joined] if len(m.hop) else 0) + (m.forward if group.op == Op.FORWARD else 0)
        else:
            moved = _transient_words(group, n, m.rows)
            hold[rows], beyond, words[rows] = CYCLES[group.op](n, group.kernel, moved, m)
        right[rows] = hold[rows] + beyond
    transfer = is_transfer(c.op)
    _links(findings, stated, link, np.flatnonzero(transfer))
    wrong = (c.t1 - c.t0 != right) & (~transfer | (link >= 0))
    _timely(findings, 6, np.flatnonzero(wrong & ~transfer), right)
    _timely(findings, 4, np.flatnonzero(wrong & transfer), right)
    return Busy(hold, words, link)


def _timely(
    findings: Findings, rule: int, late: Int[np.ndarray, " late"], right: Int[np.ndarray, " rows"]
) -> None:
    c = findings.columns
    findings.add(
        rule,
        late,
        lambda i: f"takes {c.t1[late[i]] - c.t0[late[i]]} cycles, must take {right[late[i]]}",
    )


def _links(
    findings: Findings,
    stated: Stated,
    link: Int[np.ndarray, " rows"],
    transfers: Int[np.ndarray, " transfers"],
) -> None:
    c = findings.columns
    missing = transfers[link[transfers] < 0]
    findings.add(4, missing, lambda i: f"no link from chip {c.chip[missing[i]]} to chip {c.peer[missing[i]]}")
    rows = transfers[link[transfers] >= 0]
    lanes = stated.lanes[link[rows]] if len(rows) else rows
    out = np.flatnonzero((c.lane[rows] < 0) | (c.lane[rows] > lanes - c.aux[rows]))
    findings.add(
        4,
        rows[out],
        lambda i: (
            f"lanes {c.lane[rows[out[i]]]} .. {c.lane[rows[out[i]]] + c.aux[rows[out[i]]] - 1}, "
            f"the link has {lanes[out[i]]}"
        ),
    )
