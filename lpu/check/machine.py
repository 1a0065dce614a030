"""The rows as the checker sees them: the machine of the manifest, rows by kernel, rule 0 (form)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from compiler.program.isa import F32_LANES, TILE_ROWS, WORD_BYTES, Columns, Kernel, Op, kv_words
from lpu.check.findings import Findings

TIME_BITS = 36  # keys are place << TIME_BITS | cycle and stay below 2^63
CYCLE = (1 << TIME_BITS) - 1
REGIONS = ("transient", "kv", "weights")  # the order in the manifest
MOVES = {"ingest": Op.KVIN, "egress": Op.KVOUT}  # the one opcode of a program of that kind
_COUNTS = ("planes", "sram_bytes", "sram_bytes_per_cycle", "accumulators", "vxm_chains", "activation_ports")
_DELAYS = ("mxm_fill_cycles", "vxm_latency_cycles", "lane_reduce_cycles")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The numbers of the manifest that the rules need. `link[chip * chips + peer]` is an index or -1.

    kind: "step"; or what leaves no token: "hops", and "ingest" or "egress" of KV over the host lanes.
    """

    kind: str
    chips: int
    rows: int
    sequences: int
    chunk: int
    words: int
    planes: int
    chains: int
    accumulators: int
    ports: int
    plane_bytes: int
    mxm_fill: int
    vxm_latency: int
    lane_reduce: int
    forward: int
    kernels: tuple[Kernel, ...]
    regions: np.ndarray
    link: np.ndarray
    lanes: np.ndarray
    hop: np.ndarray
    slot: np.ndarray
    logits: np.ndarray
    token: np.ndarray

    @staticmethod
    def of(manifest: Manifest) -> "Machine":
        """The machine that a manifest describes."""
        chip: Mapping[str, Any] = manifest.chip
        counts = {name: chip[name] for name in _COUNTS}
        counts |= {name: manifest[name] for name in ("rows", "sequences", "chunk")}
        delays = {name: chip[name] for name in _DELAYS} | {"forward_cycles": manifest.forward_cycles}
        for least, numbers in ((1, counts), (0, delays)):
            for name, value in numbers.items():
                if not isinstance(value, int) or not least <= value < 1 << 40:
                    raise ValueError(f"{name} is {value!r}, must be a whole number of at least {least}")
        regions = np.array(manifest.regions, np.int64).reshape(-1, len(REGIONS), 2)
        chips = len(regions)
        links = np.array(manifest.links, np.int64).reshape(-1, 5)
        if ((links[:, :2] < 0) | (links[:, :2] >= chips)).any() or (links[:, 2:] < [1, 0, 1]).any():
            raise ValueError("links: an end is no chip, or lanes, hop_cycles or slot_cycles are too small")
        pair = links[:, 0] * chips + links[:, 1]
        if len(np.unique(pair)) < len(pair):
            raise ValueError("links: two links join one pair of chips in one direction")
        link = np.full(chips * chips, -1, np.int32)
        link[pair] = np.arange(len(links))
        rate = Fraction(chip["sram_bytes_per_cycle"]) * Fraction(str(chip["weight_install_frac"]))
        plane_bytes = int(
            rate / chip["planes"] + Fraction(1, 2)
        )  # whole bytes, as fabric/chip.py rounds them
        if plane_bytes < 1:
            raise ValueError("weight_install_frac: a plane installs less than one byte per cycle")
        logits = np.array(manifest.logits, np.int64).reshape(-1, 3)
        kind = manifest.kind
        token = np.array(manifest.token, np.int64).reshape(int(kind == "step"), 2)
        return Machine(
            kind=kind,
            chips=chips,
            rows=manifest.rows,
            sequences=manifest.sequences,
            chunk=manifest.chunk,
            words=chip["sram_bytes"] // WORD_BYTES,
            planes=chip["planes"],
            chains=chip["vxm_chains"],
            accumulators=chip["accumulators"],
            ports=chip["activation_ports"],
            plane_bytes=plane_bytes,
            mxm_fill=chip["mxm_fill_cycles"],
            vxm_latency=chip["vxm_latency_cycles"],
            lane_reduce=chip["lane_reduce_cycles"],
            forward=manifest.forward_cycles,
            kernels=tuple(manifest.kernels),
            regions=regions,
            link=link,
            lanes=links[:, 2],
            hop=links[:, 3],
            slot=links[:, 4],
            logits=logits,
            token=token,
        )


class Group(NamedTuple):
    """Rows of one opcode and kernel; where there are many, several groups that fit a processor's caches."""

    op: Op
    kernel: Kernel
    rows: np.ndarray


# The attributes that an opcode needs of its kernel (compiler/program/isa.py and docs/timing.md).
_ATTENTION = ("group", "head_dim", "chunk", "rows", "kv_stride", "kv_words", "kv", "sequences", "cached")
_MOVED = ("head_dim", "kv", "kv_stride", "kv_words", "cached", "capacity", "host_slot")
_NEEDS: dict[Op, tuple[str, ...]] = {
    Op.EMBED: ("vocab", "stride"),
    Op.HNORM: ("head_dim",),
    Op.ROPE: ("head_dim", "input", "positions", "stride"),
    Op.KVW: ("head_dim", "rows", "kv_stride", "kv_words", "sequences", "cached"),
    Op.QK: _ATTENTION,
    Op.SMAX: ("group", "chunk"),
    Op.EXP: ("group", "chunk", "chunks"),
    Op.PV: _ATTENTION,
    Op.AOUT: ("group", "chunk", "head_dim"),
    Op.ASUM: ("group", "chunk", "head_dim"),
    Op.AEND: ("group", "chunk", "head_dim"),
    Op.MM: ("k_lines",),
    Op.WB: ("wide",),
    Op.RED: ("parts",),
    Op.KVIN: _MOVED,
    Op.KVOUT: _MOVED,
    Op.TAKE: ("wire", "host_slot"),
    Op.GIVE: ("wire", "host_slot"),
}
_ATTENTION_OPS = (Op.KVW, Op.QK, Op.SMAX, Op.EXP, Op.PV, Op.AOUT, Op.ASUM, Op.AEND)
_OVER = (Op.KVIN, Op.KVOUT)
_WORDS_OF = {
    "kv": ("fp16", "fp8"),
    "input": ("f32", "fp16", "f16"),
    "wide": (True, False),
    "wire": ("fp8", "fp16", "f32"),
}
_F16_LANES = 160
_PIECE = 1 << 15  # rows of a group
# Rows whose n is a chunk or nothing may have n = 0; a plane has 320 columns, so MM and WB at most 4 lines.
_LEAST = np.array([0 if op in (Op.KVW, Op.QK, Op.EXP, Op.PV) else 1 for op in Op], np.int32)
_MOST = np.array([TILE_ROWS // F32_LANES if op in (Op.MM, Op.WB) else 1 << 21 for op in Op], np.int32)


def is_transfer(op: np.ndarray) -> np.ndarray:
    """Which rows are SEND or FORWARD."""
    return (op == Op.SEND) | (op == Op.FORWARD)


def form(findings: Findings, machine: Machine) -> None:
    """Rule 0: rows of which the other rules can make sense at all."""
    c, kernels = findings.columns, len(machine.kernels)
    known = (c.op >= 0) & (c.op < len(Op))
    findings.add(0, np.flatnonzero(~known), lambda i: f"opcodes are 0 .. {len(Op) - 1}")
    op = np.where(known, c.op, 0).astype(np.int8)  # an eighth of the memory
    transfer = is_transfer(op) & known
    names = {"chip": np.ones(len(c), bool), "peer": transfer}
    for name, relevant in names.items():
        values = getattr(c, name)
        bad = np.flatnonzero(relevant & ((values < 0) | (values >= machine.chips)))
        findings.add(
            0, bad, lambda i, v=values, b=bad, n=name: f"{n} {v[b[i]]}, chips are 0 .. {machine.chips - 1}"
        )
    bad = np.flatnonzero((c.t0 < 0) | (c.t1 < c.t0) | (c.t1 > CYCLE >> 1))
    findings.add(0, bad, lambda i, b=bad: f"from cycle {c.t0[b[i]]} to cycle {c.t1[b[i]]}")
    bad = np.flatnonzero(known & ((c.n < _LEAST[op]) | (c.n > _MOST[op])))
    findings.add(
        0, bad, lambda i, b=bad: f"n is {c.n[b[i]]}, at least {_LEAST[op[b[i]]]}, at most {_MOST[op[b[i]]]}"
    )
    meant = MOVES.get(machine.kind)
    bad = np.flatnonzero(np.isin(op, _OVER) & known if meant is None else op != meant)
    findings.add(0, bad, lambda i: f"is no row of a program of kind {machine.kind!r}")
    bad = np.flatnonzero(transfer & ((c.aux < 1) | (c.aux > 1 << 16)))
    findings.add(0, bad, lambda i, b=bad: f"uses {c.aux[b[i]]} lanes, at least 1")
    bad = np.flatnonzero(known & ~transfer & ((c.aux < 0) | (c.aux >= kernels)))
    findings.add(0, bad, lambda i, b=bad: f"kernel {c.aux[b[i]]}, kernels are 0 .. {kernels - 1}")
    if sum(findings.counts) == 0:
        for group in groups(c, machine):
            wrong = _wrong(group.op, group.kernel, machine)
            if wrong:
                findings.add(0, group.rows, lambda i, w=wrong: w)


def _wrong(op: Op, kernel: Kernel, machine: Machine) -> str:
    """What is wrong with a kernel for an opcode, or nothing."""
    rows = machine.rows
    family = "attention" if op in _ATTENTION_OPS else "handover" if op in _OVER else op.name.lower()
    if kernel.get("op", family) != family:
        return f"its kernel is for {kernel['op']}"
    for name in _NEEDS.get(op, ()):
        if name not in kernel:
            return f"its kernel has no {name}"
        value = kernel[name]
        if name in _WORDS_OF:
            if value not in _WORDS_OF[name]:
                return f"its kernel has {name} {value!r}, not one of {_WORDS_OF[name]}"
        elif not isinstance(value, int) or not 0 < value < 1 << 31:
            return f"its kernel has {name} {value!r}, not a count"
    if kernel.get("rows", rows) != rows:
        return f"its kernel has {kernel['rows']} rows, the program {rows}"
    if "sequences" in _NEEDS.get(op, ()):
        if kernel.sequences * machine.chunk != rows:
            return (
                f"its kernel has {kernel['sequences']} sequences of {machine.chunk} rows, the program {rows}"
            )
        if kernel.cached != machine.sequences or kernel.sequences > machine.sequences:
            return (
                f"its kernel takes {kernel['sequences']} of {kernel['cached']} cached sequences, "
                f"the program has {machine.sequences}"
            )
    if op in _OVER and kernel.cached != machine.sequences:
        return f"its kernel has {kernel['cached']} cached sequences, the program {machine.sequences}"
    count = kernel.get("stripes", 1)
    if not isinstance(count, int) or not 0 < count < 1 << 31:
        return f"its kernel has stripes {count!r}, not a count"
    if op in _ATTENTION_OPS and kernel.get("chunks", count) % count:
        return f"its kernel has {kernel['chunks']} chunks in {count} stripes"
    if "chunk" in _NEEDS.get(op, ()) and kernel.group * kernel.chunk % F32_LANES:
        return f"{kernel['group']} x {kernel['chunk']} scores are no whole lines of {F32_LANES}"
    if "kv" in _NEEDS.get(op, ()) and kernel.kv_words != kv_words(kernel.head_dim, kernel.kv):
        return f"its kernel has kv_words {kernel['kv_words']}, {kernel['kv']} heads take another number"
    if op is Op.MM and kernel.k_lines * _F16_LANES > TILE_ROWS:
        return f"its kernel has k_lines {kernel['k_lines']}, a plane takes {TILE_ROWS // _F16_LANES}"
    return ""


def by_small(values: np.ndarray, count: int) -> np.ndarray:
    """The stable order of values in 0 .. count-1; numpy sorts 16-bit integers in linear time."""
    return np.argsort(values.astype(np.uint16) if count <= 1 << 16 else values, kind="stable")


class Batches:
    """Entries by chip, in pieces of whole chips that fit the caches of a processor.

    work: of each chip, in what the caller counts in; a piece takes more than `most` only for a single chip.
    """

    def __init__(self, work: np.ndarray, most: int) -> None:
        before = (np.cumsum(work) - work) // most
        starts = np.flatnonzero(np.diff(before, prepend=-1))
        self.ends = np.concatenate([starts, [len(work)]])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The chips [first, last) of one piece after another."""
        return pairwise(self.ends.tolist())

    def of(self, chip: np.ndarray) -> Iterator[np.ndarray]:
        """The entries of one piece after another, in order of chips, of which each entry has one."""
        order = by_small(chip, int(self.ends[-1]))
        ends = np.concatenate([[0], np.cumsum(np.bincount(chip, minlength=self.ends[-1]))])[self.ends]
        return (order[start:stop] for start, stop in pairwise(ends.tolist()))


def groups(columns: Columns, machine: Machine) -> list[Group]:
    """The rows by opcode and kernel; transfers have no kernel. Rows keep their order in a group."""
    kernels = max(len(machine.kernels), 1)
    key = columns.op * kernels + np.where(is_transfer(columns.op), 0, columns.aux)
    order = by_small(key, len(Op) * kernels)
    key = key[order]
    starts = np.flatnonzero(np.concatenate([[len(key) > 0], key[1:] != key[:-1]]))
    out: list[Group] = []
    for rows in np.split(order, starts[1:]) if len(order) else []:
        row = rows[0]
        op = Op(int(columns.op[row]))
        transfer = op in (Op.SEND, Op.FORWARD)
        kernel = {} if transfer else machine.kernels[columns.aux[row]]
        out += [Group(op, kernel, rows[at : at + _PIECE]) for at in range(0, len(rows), _PIECE)]
    return out


class Pieces(NamedTuple):
    """Intervals cut at every end of any of them: of each piece its interval, its segment, where it begins."""

    interval: np.ndarray
    segment: np.ndarray
    begin: np.ndarray


def split(start: np.ndarray, stop: np.ndarray, size: int) -> Pieces:
    """Cut the intervals [start, stop) of positions below `size`; two pieces are one segment or disjoint."""
    cut = np.zeros(size + 1, bool)
    cut[start] = True
    cut[stop] = True
    segment_of = np.cumsum(cut, dtype=np.int32)
    first = segment_of[start] - 1
    count = segment_of[stop - 1] - first
    interval = np.repeat(np.arange(len(start)), count)
    within = np.arange(len(interval)) - np.repeat(np.cumsum(count) - count, count)
    segment = first[interval] + within
    return Pieces(interval, segment, np.flatnonzero(cut)[segment])
