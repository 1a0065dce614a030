"""How long each instruction holds its unit and when its result is there: the one source of cycle formulas.

`docs/timing.md` states the same rules in prose; `lpu/check/cycles.py` implements them a second time.
Source: facts scheduling.md section 1.2; the VXM pass counts are assumed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.errors import CompileError
from compiler.program.instruction_set import INSTRUCTIONS, name_of
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.instructions.experts import (
    HalfKernel,
    RankKernel,
    ShareKernel,
    SlotsKernel,
    WeightedGluKernel,
    half_words,
)
from compiler.program.instructions.host import HandoverKernel, LoadKernel, StateMoveKernel, wire_words
from compiler.program.instructions.matmul import WIDE_PER_F32, ReduceKernel, TreeKernel, WriteBackKernel
from compiler.program.instructions.recurrent import ConvKernel, SsmKernel, StateKernel, state_lines
from compiler.program.isa import F32_LANES, TILE_ROWS, TRANSIENT, Kernel, Lines, Op, ceil_div
from fabric.chip import ChipSpec

SIGMOID_PASSES = 7  # assumed: an exponential, a sum, a quotient as for SHARE, and one to add the bias
BIAS_PASSES = 1  # assumed, as for BIAS: of the logits of a router, of gate and up of an expert
OAI_PASSES = 2  # assumed: gate and up clipped and the slope, then up + 1, besides the passes of silu
CAP_PASSES = 6  # assumed: cap tanh(x / cap), a multiply, tanh as an exponential and a quotient, a multiply
VXM_WORDS_PER_CYCLE = 8  # assumed: words that one chain reads and writes in a cycle

BESIDES = {"swiglu_oai": OAI_PASSES, "silu_weighed": 1}  # the second weighs gate and up apart

Rule = Callable[[int, Lines, Any, ChipSpec, int], tuple[Lines, Lines]]
"""(opcode, counts, kernel, chip, rows) -> (hold, t1 - t0) in cycles, elementwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """The rule of VXM rows: lanes of one batch row, passes over the ALU mesh, reduced across lanes or not.

    words: that a batch row moves besides its transient lines.
    """

    lanes: Callable[[Lines, Any], Lines]
    passes: int
    reduces: bool = False
    words: Callable[[Lines, Any], Lines] | None = None

    def __call__(self, op: int, n: Lines, kernel: Kernel, chip: ChipSpec, rows: int) -> tuple[Lines, Lines]:
        """(hold, t1 - t0) in cycles."""
        words = moved_lines(op, n, kernel) + (0 if self.words is None else self.words(n, kernel))
        passes = ceil_div(self.lanes(n, kernel) * rows, TILE_ROWS) * self.passes
        hold = np.maximum(passes, ceil_div(rows * words, VXM_WORDS_PER_CYCLE))
        return hold, hold + chip.vxm_latency_cycles + (chip.lane_reduce_cycles if self.reduces else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The rule of VXM rows over the scores of a block: a soft cap of the kernel takes passes of its own."""

    passes: int
    reduces: bool = False

    def __call__(
        self, op: int, n: Lines, kernel: AttentionKernel, chip: ChipSpec, rows: int
    ) -> tuple[Lines, Lines]:
        """(hold, t1 - t0) in cycles."""
        passes = self.passes + (CAP_PASSES if kernel.cap else 0)
        return Vector(lanes=_of_scores, passes=passes, reduces=self.reduces)(op, n, kernel, chip, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewing:
    """The rule of VXM rows that read a state and leave it anew, once a step, or once for every token of it.

    lanes: of one batch row; passes: over the ALU mesh. by_token: a token waits for the state of the one
    before. sweeps: times that a token reads its state, each waiting for the one before.
    """

    lanes: Callable[[Lines, Any], Lines]
    passes: int
    by_token: bool
    sweeps: int = 1

    def __call__(
        self, op: int, n: Lines, kernel: StateKernel, chip: ChipSpec, rows: int
    ) -> tuple[Lines, Lines]:
        """(hold, t1 - t0) in cycles."""
        tokens = rows // kernel.sequences if self.by_token else 1
        passes = ceil_div(self.lanes(n, kernel) * (rows // tokens), TILE_ROWS) * self.passes
        token = np.maximum(passes, ceil_div(self.state(op, n, kernel, rows) // tokens, VXM_WORDS_PER_CYCLE))
        if tokens > 1:
            token = np.maximum(token, self.sweeps * chip.vxm_latency_cycles)
        hold = np.maximum(tokens * token, ceil_div(self.moved(op, n, kernel, rows), VXM_WORDS_PER_CYCLE))
        return hold, hold + self.sweeps * chip.vxm_latency_cycles

    def state(self, op: int, n: Lines, kernel: StateKernel, rows: int) -> Lines:
        """Words of state that a row reads and writes."""
        times = rows if self.by_token else kernel.sequences
        return (1 + self.sweeps) * times * kernel.kept * state_lines(op, n)

    def moved(self, op: int, n: Lines, kernel: StateKernel, rows: int) -> Lines:
        """All words that a row reads and writes."""
        return rows * moved_lines(op, n, kernel) + self.state(op, n, kernel, rows)


def moved_lines(op: int, n: Lines, kernel: Kernel) -> Lines:
    """Transient lines that a row reads and writes through the ports."""
    total = 0 * n
    for operand in INSTRUCTIONS[op].operands:
        if operand.space == TRANSIENT and not operand.installed:
            total = total + operand.extent(n, kernel) * (n if operand.stride else 1)
    return total


def moved_words(op: int, n: Lines, kernel: Kernel, rows: int) -> Lines:
    """Words that a row moves through the activation ports of its chip (docs/timing.md, "Ports")."""
    if isinstance(kernel, HandoverKernel | StateMoveKernel | LoadKernel):
        return wire_words(n, kernel, rows)
    rule = RULES.get(op)
    if isinstance(rule, Renewing) and isinstance(kernel, StateKernel):
        return rule.moved(op, n, kernel, rows)
    besides = rule.words(n, kernel) if isinstance(rule, Vector) and rule.words is not None else 0
    return rows * (moved_lines(op, n, kernel) + besides)


def _tile(op: int, n: Lines, kernel: Kernel, chip: ChipSpec, rows: int) -> tuple[Lines, Lines]:
    hold = np.maximum(ceil_div(TILE_ROWS * F32_LANES * n, chip.plane_bytes_per_cycle), rows)
    return hold, hold


def _half_tiles(op: int, n: Lines, kernel: HalfKernel, chip: ChipSpec, rows: int) -> tuple[Lines, Lines]:
    """All rows through the fp16 weights of a router, one tile after another."""
    tiles = ceil_div(kernel.k_lines, 2)
    install = ceil_div(TILE_ROWS * half_words(n, kernel) // tiles, chip.plane_bytes_per_cycle)
    hold = np.maximum(install, rows) * tiles
    return hold, hold + chip.mxm_fill_cycles


def _slots(op: int, n: Lines, kernel: SlotsKernel, chip: ChipSpec, rows: int) -> tuple[Lines, Lines]:
    """Whether any row chose an expert, once; which expert a slot has, by comparing; weights are moved."""
    compared = ceil_div(kernel.held * rows, TILE_ROWS) + ceil_div(n * kernel.held, TILE_ROWS)
    hold = np.maximum(compared, ceil_div(rows * moved_lines(op, n, kernel), VXM_WORDS_PER_CYCLE))
    return hold, hold + chip.vxm_latency_cycles + chip.lane_reduce_cycles


def _write_back(op: int, n: Lines, kernel: WriteBackKernel, chip: ChipSpec, rows: int) -> tuple[Lines, Lines]:
    hold = rows * (WIDE_PER_F32 if kernel.wide else 1) + 0 * n
    return hold, hold + chip.mxm_fill_cycles


def _attend(columns: int, k: AttentionKernel, chip: ChipSpec, rows: int) -> int:
    """Cycles of a plane that K or V of one block is installed in, this many columns wide per token."""
    install = k.chunk * columns * (2 if k.kv == "fp16" else 1)
    share = rows // k.sequences  # K or V of a sequence is installed once for all of its rows
    stream = share * ceil_div(k.chunk, TILE_ROWS) * ceil_div(columns, TILE_ROWS) * k.group
    return k.sequences * max(ceil_div(install, chip.plane_bytes_per_cycle), stream)


def _score(op: int, n: Lines, kernel: AttentionKernel, chip: ChipSpec, rows: int) -> tuple[Lines, Lines]:
    hold = _attend(kernel.score_lanes, kernel, chip, rows) + 0 * n
    return hold, hold + chip.mxm_fill_cycles


def _weigh(op: int, n: Lines, kernel: AttentionKernel, chip: ChipSpec, rows: int) -> tuple[Lines, Lines]:
    """A column of ones beside V adds up the weights."""
    hold = _attend(kernel.head_dim + 1, kernel, chip, rows) + 0 * n
    return hold, hold + chip.mxm_fill_cycles


def _host(op: int, n: Lines, kernel: Any, chip: ChipSpec, rows: int) -> tuple[Lines, Lines]:
    hold = wire_words(n, kernel, rows) * kernel.host_slot
    return hold, hold


def of_lines(n: Lines, k: Kernel) -> Lines:
    """The lanes of n f32 lines."""
    return F32_LANES * n


def _of_heads(n: Lines, k: Any) -> Lines:
    return n * k.head_dim


def _of_attended(n: Lines, k: AttentionKernel) -> Lines:
    return n * k.group * k.head_dim


def _of_quotient(n: Lines, k: AttentionKernel) -> Lines:
    return (n + 1) * k.group * k.head_dim


def _of_scores(n: Lines, k: AttentionKernel) -> Lines:
    return k.group * k.chunk + 0 * n


def _of_key_and_value(n: Lines, k: AttentionKernel) -> Lines:
    return k.key_lanes + k.head_dim + 0 * n


def _of_parts(n: Lines, k: ReduceKernel) -> Lines:
    return F32_LANES * n * k.parts


def _of_nodes(n: Lines, k: TreeKernel) -> Lines:
    return F32_LANES * n * len(k.sizes)


def _ranks(op: int, n: Lines, kernel: RankKernel, chip: ChipSpec, rows: int) -> tuple[Lines, Lines]:
    """(hold, t1 - t0): every pair of experts is compared; sigmoids and their biases come before that.

    With groups, pairs are compared once more inside them, and two results more are reduced across lanes.
    """
    grouped, lanes = kernel.groups > 1, F32_LANES * ceil_div(kernel.experts, F32_LANES)
    pairs = ceil_div(F32_LANES * n * kernel.experts * rows, TILE_ROWS) * (2 if grouped else 1)
    before = SIGMOID_PASSES if kernel.sigmoid else BIAS_PASSES if kernel.biased else 0
    scores = before * ceil_div(lanes * rows, TILE_ROWS)
    hold = np.maximum(pairs + scores, ceil_div(rows * moved_lines(op, n, kernel), VXM_WORDS_PER_CYCLE))
    return hold, hold + chip.vxm_latency_cycles + chip.lane_reduce_cycles * (3 if grouped else 1)


def _of_shares(n: Lines, k: ShareKernel) -> Lines:
    """The line of a gate takes its passes a second time, for the sigmoid."""
    return F32_LANES * (n + k.gated)


def _of_strips(n: Lines, k: WeightedGluKernel) -> Lines:
    return k.columns * n


def _weighted(op: int, n: Lines, kernel: WeightedGluKernel, chip: ChipSpec, rows: int) -> tuple[Lines, Lines]:
    """(hold, t1 - t0) of weighted activations: those of GLU, the weight, and what the kernel has besides."""
    passes = 5 + (BIAS_PASSES if kernel.biases else 0) + BESIDES.get(kernel.activation, 0)
    return Vector(lanes=_of_strips, passes=passes)(op, n, kernel, chip, rows)


def _convolve(op: int, n: Lines, kernel: ConvKernel, chip: ChipSpec, rows: int) -> tuple[Lines, Lines]:
    """(hold, t1 - t0): a pass for each tap, 4 for silu; its tokens are the state of one another."""
    rule = Renewing(lanes=of_lines, passes=kernel.kept + 1 + 4, by_token=False)
    return rule(op, n, kernel, chip, rows)


def _of_steps(n: Lines, k: SsmKernel) -> Lines:
    return F32_LANES * (2 + k.decays) + 0 * n


def _of_numbers(n: Lines, k: Kernel) -> Lines:
    return 2 * F32_LANES + 0 * n


def _of_states(n: Lines, k: StateKernel) -> Lines:
    return F32_LANES * k.kept + 0 * n


def _table_row(n: Lines, k: Kernel) -> Lines:
    return ceil_div(n, 2)


def _kv_word(n: Lines, k: AttentionKernel) -> Lines:
    return k.kv_words


RULES: dict[int, Rule] = {
    Op.EMBED: Vector(lanes=of_lines, passes=1, words=_table_row),
    Op.RSTAT: Vector(lanes=of_lines, passes=2, reduces=True),
    Op.NORM: Vector(lanes=of_lines, passes=2),
    Op.MOMENTS: Vector(lanes=of_lines, passes=3, reduces=True),
    Op.LNORM: Vector(lanes=of_lines, passes=3),
    Op.PRE: Vector(lanes=of_lines, passes=1),
    Op.HNORM: Vector(lanes=_of_heads, passes=4, reduces=True),
    Op.ROPE: Vector(lanes=_of_heads, passes=3),
    Op.CAST: Vector(lanes=of_lines, passes=1),
    Op.KVW: Vector(lanes=_of_key_and_value, passes=1, words=_kv_word),
    Op.QK: _score,
    Op.SMAX: Scored(passes=1, reduces=True),
    Op.EXP: Scored(passes=4),
    Op.PV: _weigh,
    Op.NODE: Vector(lanes=_of_attended, passes=1),
    Op.AOUT: Vector(lanes=_of_quotient, passes=1),
    Op.MM: _tile,
    Op.WB: _write_back,
    Op.RED: Vector(lanes=_of_parts, passes=1),
    Op.TREE: Vector(lanes=_of_nodes, passes=1),
    Op.ADD: Vector(lanes=of_lines, passes=1),
    Op.BIAS: Vector(lanes=of_lines, passes=1),
    Op.MUL: Vector(lanes=of_lines, passes=1),
    Op.MAD: Vector(lanes=of_lines, passes=1),
    Op.VMUL: Vector(lanes=of_lines, passes=1),
    Op.GLU: Vector(lanes=of_lines, passes=4),
    Op.CAP: Vector(lanes=of_lines, passes=CAP_PASSES),
    Op.ARGMAX: Vector(lanes=of_lines, passes=1, reduces=True),
    Op.ARGRED: Vector(lanes=of_lines, passes=1, reduces=True),
    Op.XMM: _tile,
    Op.XMF: _tile,
    Op.MM16: _half_tiles,
    Op.RANK: _ranks,
    Op.SHARE: Vector(lanes=_of_shares, passes=6, reduces=True),
    Op.SLOTS: _slots,
    Op.WGLU: _weighted,
    Op.CONV: _convolve,
    Op.STEP: Vector(lanes=_of_steps, passes=4),
    Op.SSM: Renewing(lanes=_of_states, passes=3, by_token=True),
    Op.GATE: Vector(lanes=of_lines, passes=4),
    Op.GATE16: Vector(lanes=of_lines, passes=4),
    Op.DECAY: Vector(lanes=_of_numbers, passes=4),
    Op.DELTA: Renewing(lanes=_of_states, passes=5, by_token=True, sweeps=2),
    Op.TAKE: _host,
    Op.GIVE: _host,
    Op.KVIN: _host,
    Op.KVOUT: _host,
    Op.LOAD: _host,
    Op.FETCH: _host,
    Op.FETCHX: _host,
    Op.QKF: _score,
    Op.PVF: _weigh,
}


def register(op: int, rule: Rule) -> None:
    """Say how long an opcode takes; ValueError if that is said already."""
    if RULES.setdefault(op, rule) is not rule:
        raise ValueError(f"timing: opcode {op} ({name_of(op)}) has a rule already. Give it another number.")


def timing(op: int, n: Lines, kernel: Kernel, chip: ChipSpec, rows: int) -> tuple[Lines, Lines]:
    """(hold, t1 - t0) in cycles of compute rows with counts `n`: an int or an int array, elementwise.

    Raises CompileError for an opcode that has no rule.
    """
    if op not in RULES:
        remedy = "Give it one with compiler.timing.register."
        raise CompileError("timing", f"opcode {op} ({name_of(op)})", "no rule says how long it takes", remedy)
    return RULES[op](op, n, kernel, chip, rows)
