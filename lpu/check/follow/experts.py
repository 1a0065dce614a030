"""Rules 0 and 7 on experts: slots suffice whatever rows choose, and every slot is in every sum once.

A slot is named by the line that SLOTS made for it, or by the number of its expert where each has its own.
Gate and up of a slot make its activation, which is weighted by the same slot; the sum over slots takes each
once, of one table for all experts, or of several that have all experts between them.
"""

from typing import Any

import numpy as np
from jaxtyping import Int

from compiler.program.instructions.experts import ExpertTileKernel, RankKernel, ShareKernel, SlotsKernel
from compiler.program.isa import F32_LANES, OF_EXPERTS, TAG_SHIFT, Columns, Op
from lpu.check.findings import Findings
from lpu.check.follow.cold import unfetched
from lpu.check.follow.contexts import MadeRows
from lpu.check.rows import Alike

NUMBERS = ("experts", "chosen", "slots", "expert", "first", "some", "shared", "sigmoid", "scores", "gated")
_LINE = (1 << TAG_SHIFT) - 1
_OPS = (Op.RANK, Op.SHARE, Op.SLOTS, *OF_EXPERTS, Op.WGLU)
Rows = Int[np.ndarray, " rows"]
Every = Int[np.ndarray, " every"]


def wrong_slots(kernel: Any, rows: int) -> str:
    """What is wrong with a kernel of experts in a program of this many rows a step, or nothing."""
    if isinstance(kernel, ExpertTileKernel) and not -1 <= kernel.expert < kernel.experts:
        return f"its kernel takes expert {kernel.expert} of {kernel.experts}"
    if isinstance(kernel, ExpertTileKernel) and kernel.paired and (kernel.experts % 2 or kernel.k_lines > 1):
        return f"its kernel pairs tiles of {kernel.k_lines} lines of {kernel.experts} experts"
    if isinstance(kernel, RankKernel) and (kernel.first < 0 or kernel.chosen > kernel.experts - kernel.gated):
        of = kernel.experts - kernel.gated
        return f"its kernel ranks from line {kernel.first} on, {kernel.chosen} of {of} experts"
    if isinstance(kernel, RankKernel) and kernel.groups != 1:
        size, rest = divmod(kernel.experts, kernel.groups)
        if rest or size < 2 or kernel.keep > kernel.groups or kernel.keep * size < kernel.chosen:
            return f"its kernel keeps {kernel.keep} of {kernel.groups} groups of {kernel.experts} experts"
    if isinstance(kernel, ShareKernel) and (kernel.shared < 0 or not 0 < kernel.scale < float("inf")):
        return f"its kernel has {kernel.shared} shared experts and scales by {kernel.scale}"
    if isinstance(kernel, ShareKernel) and kernel.gated and (kernel.shared != 1 or kernel.scores):
        return (
            f"its kernel has a gate, {kernel.shared} shared experts, or scores: a gate is of one, of logits"
        )
    if not isinstance(kernel, SlotsKernel):
        return ""
    first, end, routed = kernel.first, kernel.first + kernel.held, kernel.experts - kernel.shared
    if not 0 <= first < end <= kernel.experts or not 0 <= kernel.shared <= kernel.chosen or kernel.some < 0:
        of = f"{kernel.experts}, the last {kernel.shared} of them shared"
        return f"its kernel is for experts {first} .. {end - 1} of {of}"
    needed = min(kernel.held, rows * (kernel.chosen - kernel.shared) + max(end - max(first, routed), 0))
    if kernel.bounded and kernel.slots < needed:
        return ""
    if kernel.bounded:
        return f"its kernel says that slots may not suffice, has {kernel.slots}, {needed} are enough"
    if kernel.slots < needed or kernel.slots > kernel.held:
        return f"its kernel has {kernel.slots} slots, {rows} rows can choose {needed} of {kernel.held}"
    return ""


def experts(findings: Findings, groups: list[Alike], made: MadeRows) -> None:
    """Routers rank and share the same experts, slots are all there, and products take them as they must."""
    mine = [group for group in groups if group.op in _OPS]
    if not mine:
        return
    c = unfetched(findings, made)
    number = {name: np.zeros(len(c), np.int64) for name in NUMBERS}
    for group in mine:
        for name, values in number.items():
            values[group.rows] = getattr(group.kernel, name, -1)
    _routers(findings, made, number)
    _tables(findings, number)
    slot = _slots(c, number)
    _chosen_of_table(findings, c, number)
    _sums(findings, c, number, slot)


def _of(c: Columns, op: int) -> Rows:
    return np.flatnonzero(c.op == op)


def _routers(findings: Findings, made: MadeRows, number: dict[str, Every]) -> None:
    """What SHARE and SLOTS take was made for as many experts, and as many are chosen."""
    c = findings.columns
    rank = _of(c, Op.RANK)
    first = number["first"]
    end = (first[rank] + c.n[rank] - 1) * F32_LANES
    bad = rank[(c.dst_tag[rank] & _LINE != 2 * first[rank]) | (end >= number["experts"][rank])]
    findings.add(7, bad, lambda i: f"ranks the experts from line {first[bad[i]]} on into another line")
    share, slots = _of(c, Op.SHARE), _of(c, Op.SLOTS)
    before = made.find(c.src_tag[share])
    wrong = share[(before >= 0) & (number["experts"][before] != number["experts"][share])]
    findings.add(7, wrong, "shares out what was ranked of another number of experts")
    unlike = share[(before >= 0) & (number["sigmoid"][before] != number["scores"][share])]
    findings.add(7, unlike, "takes scores for logits of a softmax, or these for scores")
    ungated = share[(before >= 0) & (number["gated"][before] != number["gated"][share])]
    findings.add(7, ungated, "takes the logit of a gate for an expert, or an expert's for a gate")
    every = number["experts"] + np.maximum(number["shared"], 0) - np.maximum(number["gated"], 0)
    lines = -(-every[share] // F32_LANES)
    short = share[c.n[share] != lines]
    findings.add(7, short, lambda i: f"shares out {c.n[short[i]]} lines of {every[short[i]]} experts")
    shared = made.find(c.src_tag[slots])
    ranked = made.find(np.where(shared >= 0, c.src_tag[np.maximum(shared, 0)], -1))
    known = (shared >= 0) & (ranked >= 0)
    taken = number["chosen"][ranked] + number["shared"][shared]
    differs = (every[shared] != number["experts"][slots]) | (taken != number["chosen"][slots])
    differs |= (number["shared"][slots] != 0) & (number["shared"][slots] != number["shared"][shared])
    other = slots[known & differs]
    findings.add(7, other, "has slots for another number of experts, or of chosen ones, than its router")


def _tables(findings: Findings, number: dict[str, Every]) -> None:
    """The rows that make the slots of a step make each once."""
    c = findings.columns
    rows = _of(c, Op.SLOTS)
    bad = rows[(c.src3[rows] < 0) | (c.dst_tag[rows] & _LINE != c.src3[rows])]
    findings.add(7, bad, lambda i: f"makes slots from {c.src3[bad[i]]} on, its lines are of others")
    rows = rows[np.lexsort((c.src3[rows], c.dst_tag[rows] >> TAG_SHIFT, c.chip[rows]))]
    value = np.stack([c.chip[rows], c.dst_tag[rows] >> TAG_SHIFT])
    fresh = np.ones(len(rows), bool)
    fresh[1:] = (value[:, 1:] != value[:, :-1]).any(axis=0)
    wanted = np.where(fresh, 0, np.roll(c.src3[rows] + c.n[rows], 1))
    gap = rows[c.src3[rows] != wanted]
    findings.add(7, gap, "does not go on where the slots before it end")
    last = np.roll(fresh, -1)
    short = rows[last & (c.src3[rows] + c.n[rows] != number["slots"][rows])]
    findings.add(7, short, lambda i: f"is the last, of {number['slots'][short[i]]} slots there are more")


def _held(number: dict[str, Every], rows: Rows) -> Rows:
    """How many experts the slots of these rows are for."""
    some = number["some"][rows]
    return np.where(some > 0, some, number["experts"][rows])


def _slots(c: Columns, number: dict[str, Every]) -> Every:
    """The slot of every product and of every weighted activation."""
    slot = np.full(len(c), -1)
    xmm, glu = _of(c, Op.XMM), _of(c, Op.WGLU)
    expert = number["expert"][xmm]
    slot[xmm] = np.where(expert >= 0, expert, c.src2_tag[xmm] & _LINE)
    slot[glu] = c.src2_tag[glu] & _LINE
    return slot


def _chosen_of_table(findings: Findings, c: Columns, number: dict[str, Every]) -> None:
    """A product takes its expert of a table of as many experts; one of its own only where all have theirs."""
    xmm, slots = _of(c, Op.XMM), _of(c, Op.SLOTS)
    if not len(slots):
        findings.add(7, xmm, "takes an expert, no row makes slots")
        return
    names, first = np.unique(c.dst_tag[slots] >> TAG_SHIFT, return_index=True)
    table = slots[first]
    at = np.minimum(np.searchsorted(names, c.src2_tag[xmm] >> TAG_SHIFT), len(names) - 1)
    asks = number["expert"][xmm] < 0
    strange = asks & (_held(number, table[at]) != number["experts"][xmm])
    bad = xmm[strange]
    findings.add(
        7, bad, lambda i: f"takes one of {number['experts'][bad[i]]} experts, its slots are of others"
    )


def _sums(findings: Findings, c: Columns, number: dict[str, Every], slot: Every) -> None:
    xmm, glu = _of(c, Op.XMM), _of(c, Op.WGLU)
    hidden, where = np.unique(c.dst_tag[glu] >> TAG_SHIFT, return_index=True)
    weighs = glu[where]
    value = c.src_tag[xmm] >> TAG_SHIFT
    at = np.minimum(np.searchsorted(hidden, value), max(len(hidden) - 1, 0))
    down = (hidden[at] == value) if len(hidden) else np.zeros(len(xmm), bool)
    foreign = xmm[down][_apart(c, slot, number, xmm[down], weighs[at[down]])]
    findings.add(7, foreign, lambda i: f"multiplies what another slot weighs by slot {slot[foreign[i]]}")
    mixed = glu[c.src2_tag[glu] != c.src2_tag[weighs[np.searchsorted(hidden, c.dst_tag[glu] >> TAG_SHIFT)]]]
    findings.add(7, mixed, "weighs a part of a value by another slot than the rest of it")
    _gate_and_up(findings, c, xmm[~down], glu, slot, number)
    _over_slots(findings, c, xmm[down], slot, c.src2_tag[weighs[at[down]]] >> TAG_SHIFT, number)


def _apart(c: Columns, slot: Every, number: dict[str, Every], products: Rows, others: Rows) -> np.ndarray:
    """Whether a product takes another slot than another row; a fixed expert is of whatever table that is."""
    asks = (number["expert"][products] < 0) & ((c.op[others] != Op.XMM) | (number["expert"][others] < 0))
    tables = c.src2_tag[products] >> TAG_SHIFT != c.src2_tag[others] >> TAG_SHIFT
    return (slot[products] != slot[others]) | (asks & tables)


def _gate_and_up(
    findings: Findings, c: Columns, rows: Rows, glu: np.ndarray, slot: Every, number: dict[str, Every]
) -> None:
    """A value has one slot: of its products, and by which it is weighted; each k tile comes once."""
    value, first = np.unique(c.dst_tag[rows] >> TAG_SHIFT, return_index=True)
    if not len(value):
        findings.add(7, glu, "weighs what no product of an expert made")
        return
    of = rows[first]
    at = np.searchsorted(value, c.dst_tag[rows] >> TAG_SHIFT)
    mixed = rows[_apart(c, slot, number, rows, of[at])]
    findings.add(7, mixed, lambda i: f"adds slot {slot[mixed[i]]} to a sum of another one")
    order = np.lexsort((c.src_tag[rows], c.dst_tag[rows], c.chip[rows]))
    some = rows[order]
    again = (c.src_tag[some][1:] == c.src_tag[some][:-1]) & (c.dst_tag[some][1:] == c.dst_tag[some][:-1])
    again &= c.chip[some][1:] == c.chip[some][:-1]
    findings.add(7, some[1:][again], "multiplies the same input lines a second time")
    at = np.minimum(np.searchsorted(value, c.src_tag[glu] >> TAG_SHIFT), len(value) - 1)
    known = value[at] == c.src_tag[glu] >> TAG_SHIFT
    wrong = glu[~known | _apart(c, slot, number, of[at], glu)]
    findings.add(7, wrong, lambda i: f"weighs by slot {slot[wrong[i]]} what was computed for another one")


def _over_slots(
    findings: Findings, c: Columns, rows: Rows, slot: Every, table: np.ndarray, number: dict[str, Every]
) -> None:
    """Of every sum each input line meets each slot once, of tables that have all experts between them.

    table: of each row the value whose slots it takes.
    """
    made = _of(c, Op.SLOTS)
    if not len(made) or not len(rows):
        findings.add(7, rows, "takes an expert, no row makes slots")
        return
    names, where = np.unique(c.dst_tag[made] >> TAG_SHIFT, return_index=True)
    at = made[where][np.minimum(np.searchsorted(names, table), len(names) - 1)]
    first, held, slots = number["first"][at], _held(number, at), number["slots"][at]
    line = c.src_tag[rows] & _LINE
    order = np.lexsort((slot[rows], table, first, line, c.dst_tag[rows], c.chip[rows]))
    rows, line, table, first, held, slots, at = (
        one[order] for one in (rows, line, table, first, held, slots, at)
    )
    fresh = _begins(c.chip[rows], c.dst_tag[rows], line)
    turn = _begins(c.chip[rows], c.dst_tag[rows], line, table)
    begin = np.flatnonzero(turn)
    size = np.diff(np.append(begin, len(rows)))
    within = np.arange(len(rows)) - np.repeat(begin, size)
    other = rows[slot[rows] != within]
    findings.add(7, other, lambda i: f"is slot {slot[other[i]]} of a sum that lacks one, or has it twice")
    short = begin[size != slots[begin]]
    findings.add(7, rows[short], "its sum does not take every slot once")
    strange = rows[number["experts"][rows] != held]
    findings.add(
        7, strange, lambda i: f"takes one of {number['experts'][strange[i]]} experts, its slot of others"
    )
    last = np.roll(fresh, -1)[begin + size - 1]
    end = first[begin] + held[begin]
    wanted = np.where(fresh[begin], 0, np.roll(end, 1))
    gap = (first[begin] != wanted) | (last & (end != number["experts"][at[begin]]))
    findings.add(7, rows[begin[gap]], "its sum does not take every expert once")


def _begins(*keys: Rows) -> np.ndarray:
    """Where rows in order of their keys have others than the row before."""
    fresh = np.ones(len(keys[0]), bool)
    fresh[1:] = (np.stack(keys)[:, 1:] != np.stack(keys)[:, :-1]).any(axis=0)
    return fresh
