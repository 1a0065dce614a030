"""Programs that share one memory image: the decode program, its prefill program, those that move its KV.

What one leaves in a KV region, another reads: so a head must lie at the same words in all of them, in the
same format, and the weights where both programs of steps look for them. Both are of one model, so values come
in one order; their numbers may differ, as a chunk of tokens can choose more experts than a step. A region is
moved once, with its line of a layer's message: KV heads in the order of the K that the KVW rows of the layer
take, and in each the stripe that the row names. So are the lines of each state, state after state.
"""

from typing import Any

import numpy as np
from jaxtyping import Int

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.instructions.attention import AttentionKernel, KVKernel
from compiler.program.instructions.host import StateMoveKernel
from compiler.program.instructions.recurrent import StateKernel, state_lines
from compiler.program.isa import TAG_SHIFT, Columns, Kernel, Op
from compiler.program.manifest import Manifest, Move
from compiler.program.program import LOADS, Call, Program
from lpu.check.findings import Findings, Report, tag

_SAME = ("model", "rack", "chip", "links", "forward_cycles", "vocab", "sequences", "capacity")
_Place = tuple[int, int]  # chip, first word
_Cache = tuple[Any, ...]  # format and size of a KV region
_Kept = dict[_Place, tuple[Any, ...]]


def pair(decode: Program, prefill: Program) -> Report:
    """The report on both programs of steps: chips, regions, preloaded values and KV regions are equal."""
    contexts = [c for c in decode.manifest.contexts if c in prefill.manifest.contexts]
    columns = decode.expand((contexts or decode.manifest.contexts)[0])
    findings = Findings(columns)
    _manifests(findings, decode.manifest, prefill.manifest, "prefill")
    _together(findings, decode.manifest, prefill.manifest, bool(contexts))
    _preloaded(findings, decode, prefill)
    if contexts:
        ours = heads(columns, decode.manifest.kernels)
        theirs = heads(prefill.expand(contexts[0]), prefill.manifest.kernels)
        wrong = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
        findings.note(
            7,
            np.array(wrong, np.int64),
            lambda name: (
                f"KV or state {tag(name)} in order: {_words(ours.get(int(name)))} of the decode program, "
                f"{_words(theirs.get(int(name)))} of the prefill program"
            ),
        )
    return findings.report()


def check_handover(decode: Program, ingest: Program, egress: Program | None = None) -> Report:
    """The report on the programs that move KV: each moves every KV region of the decode program, in its slot.

    The rules of each program by itself are those of `lpu.check.check`.
    """
    context = max(decode.manifest.contexts)
    calls = [decode.expand_call(call, context) for call in decode.calls]
    every = [_kept(rows, decode.manifest.kernels) for rows in calls]
    layers = [kept for kept in every if kept]
    findings = Findings(ingest.expand(ingest.manifest.contexts[0]))
    for program, kind in ((ingest, "ingest"), (egress, "egress")):
        if program is None:
            continue
        _manifests(findings, decode.manifest, program.manifest, kind)
        body = program.manifest.body
        if not isinstance(body, Move) or body.kind != kind:
            findings.tell(0, f"the {kind} program: kind is {program.manifest.kind!r}, must be {kind!r}")
            continue
        if body.program != decode.manifest.digest:
            what = f"is of program {body.program[:16]}, not {decode.manifest.digest[:16]}"
            findings.tell(0, f"the {kind} program: {what}")
        _layers(findings, layers, program, body)
    return findings.report()


def _manifests(findings: Findings, decode: Manifest, other: Manifest, name: str) -> None:
    for field in _SAME:
        if getattr(decode, field) != getattr(other, field):
            findings.tell(0, f"manifests of the decode and the {name} program: {field} differs")
    ours, theirs = decode.region_table(), other.region_table()
    if ours.shape != theirs.shape:
        what = f"{len(ours)} chips of the decode program, {len(theirs)} of the {name} program"
        findings.tell(5, f"regions are of {what}")
        return
    findings.note(
        5,
        np.flatnonzero((ours != theirs).any(axis=(1, 2))),
        lambda chip: (
            f"chip {chip}: regions {ours[chip].tolist()} to decode, {theirs[chip].tolist()} "
            f"in the {name} program"
        ),
    )


def _together(findings: Findings, decode: Manifest, prefill: Manifest, common: bool) -> None:
    if decode.prefill != prefill.chunk or not common:
        findings.tell(
            0,
            f"the decode program goes with chunks of {decode.prefill} in contexts {list(decode.contexts)}, "
            f"the prefill program has {prefill.chunk} in {list(prefill.contexts)}",
        )


def _preloaded(findings: Findings, decode: Program, prefill: Program) -> None:
    ours, theirs = decode.loads(), prefill.loads()
    if len(ours) != len(theirs):
        findings.tell(2, f"{len(ours)} preloaded values to decode, {len(theirs)} to prefill")
        return
    differs = np.zeros(len(ours), bool)
    for name in LOADS:
        one, other = (getattr(loads, name) for loads in (ours, theirs))
        differs |= (in_order(one) != in_order(other)) if name == "tag" else (one != other)
    findings.note(
        2,
        np.flatnonzero(differs),
        lambda i: (
            f"load {i}: word {ours.addr[i]} of chip {ours.chip[i]} to decode, "
            f"word {theirs.addr[i]} of chip {theirs.chip[i]} to prefill, or another value"
        ),
    )
    if _tensors(decode) != _tensors(prefill):
        findings.tell(2, "the preloaded values are of other tensors to decode than to prefill")


def in_order(tags: Int[np.ndarray, " tags"]) -> Int[np.ndarray, " tags"]:
    """Tags whose values are numbered by their order among these."""
    value = np.unique(tags >> TAG_SHIFT, return_inverse=True)[1].reshape(-1)
    return value << TAG_SHIFT | tags & ((1 << TAG_SHIFT) - 1)


def _tensors(program: Program) -> list[tuple[str, bytes, bytes]]:
    """Name, row map and column map of what the preloaded values are cut from."""
    return [
        (name, b"" if rows is None else rows.tobytes(), b"" if columns is None else columns.tobytes())
        for name, rows, columns in program.slots()
    ]


def _appends(columns: Columns) -> Int[np.ndarray, " appends"]:
    return np.flatnonzero(columns.op == Op.KVW)


def _cache(kernel: Kernel) -> _Cache:
    """Format and size of the region that rows of a kernel append to or move; nothing of other kernels."""
    if not isinstance(kernel, KVKernel):
        return ()
    k = kernel
    return (k.head_dim, k.kv, k.kv_words, k.kv_stride, k.cached, k.capacity, k.run)


def heads(columns: Columns, kernels: tuple[Kernel, ...]) -> dict[int, tuple[Any, ...]]:
    """Chip, first word and format of the KV of every head, and of every state, by tag in order."""
    out: dict[int, tuple[Any, ...]] = {}
    for row in _appends(columns):
        kernel = kernels[int(columns.aux[row])]
        block = kernel.block if isinstance(kernel, AttentionKernel) else None
        place = int(columns.chip[row]), int(columns.dst[row])
        out[int(columns.dst_tag[row])] = (*place, *_cache(kernel), block)
    for op in (op for op, record in INSTRUCTIONS.items() if record.renews):
        column = INSTRUCTIONS[op].renews
        for row in np.flatnonzero(columns.op == op).tolist():
            kernel = kernels[int(columns.aux[row])]
            assert isinstance(kernel, StateKernel)
            place = int(columns.chip[row]), int(getattr(columns, column)[row])
            lines = int(state_lines(op, columns.n[row]))
            out[int(getattr(columns, f"{column}_tag")[row])] = (*place, kernel.kept, kernel.cached, lines)
    return dict(zip(in_order(np.array([*out], np.int64)).tolist(), out.values(), strict=True))


def _words(head: tuple[Any, ...] | None) -> str:
    if head is None:
        return "none"
    return f"word {head[1]} of chip {head[0]} ({', '.join(map(str, head[2:]))})"


def _stripes(kernel: Kernel) -> int:
    return kernel.stripes if isinstance(kernel, KVKernel) else 1


def _appended(rows: Columns, kernels: tuple[Kernel, ...]) -> _Kept:
    """Line, stripes and format of each region that a call of the decode program appends to."""
    rows = rows.take(_appends(rows))
    head = np.unique(rows.src_tag, return_inverse=True)[1].tolist()
    out: _Kept = {}
    for i, place in enumerate(zip(rows.chip.tolist(), rows.dst.tolist(), strict=True)):
        kernel, stripe = kernels[int(rows.aux[i])], max(int(rows.src3[i]), 0)
        out[place] = (head[i] * _stripes(kernel) + stripe, _stripes(kernel), *_cache(kernel))
    return out


def _renewed(rows: Columns, kernels: tuple[Kernel, ...]) -> _Kept:
    """First line in the layer's message, lines and format of each region of states that a call renews."""
    found: list[tuple[int, _Place, int, StateKernel]] = []
    for op in (op for op, record in INSTRUCTIONS.items() if record.renews):
        column = INSTRUCTIONS[op].renews
        for row in np.flatnonzero(rows.op == op).tolist():
            kernel = kernels[int(rows.aux[row])]
            assert isinstance(kernel, StateKernel)
            place = int(rows.chip[row]), int(getattr(rows, column)[row])
            lines = int(state_lines(op, rows.n[row]))
            found.append((int(getattr(rows, f"{column}_tag")[row]), place, lines, kernel))
    out: _Kept = {}
    line = 0
    for _, place, lines, kernel in sorted(found, key=lambda one: one[0]):
        out[place] = (line, lines, kernel.kept, kernel.cached)
        line += lines
    return out


def _kept(rows: Columns, kernels: tuple[Kernel, ...]) -> _Kept:
    """All that a call of the decode program keeps, by chip and first word."""
    return _appended(rows, kernels) | _renewed(rows, kernels)


def _layers(findings: Findings, layers: list[_Kept], program: Program, body: Move) -> None:
    """Every call of a program that moves KV against the layer that it must be."""
    counts = [len(program.calls), len(body.slots), body.layers]
    counts += [] if body.ready is None else [len(body.ready)]
    if set(counts) != {len(layers)}:
        findings.tell(
            7,
            f"the {body.kind} program has {counts} calls, slots and layers, the decode program {len(layers)}",
        )
        return
    end = 0
    for layer, (call, kept) in enumerate(zip(program.calls, layers, strict=True)):
        end = _layer(findings, layer, call, kept, program, body, end)


def _layer(
    findings: Findings, layer: int, call: Call, kept: _Kept, program: Program, body: Move, end: int
) -> int:
    """One call, which may begin at cycle `end`; the cycle at which it ends."""
    rows = program.expand_call(call, program.manifest.contexts[0])
    where, slot = f"{body.kind} of layer {layer} ({call.name})", body.slots[layer]
    _regions(
        findings,
        where,
        kept,
        rows,
        program.manifest.kernels,
        rows.dst if body.kind == "ingest" else rows.src2,
    )
    begin, last = (int(rows.t0.min()), int(rows.t1.max())) if len(rows) else (end, end)
    if (slot.base, slot.cycles) != (begin, last - begin):
        findings.tell(
            6,
            f"{where}: rows from cycle {begin} for {last - begin} cycles, "
            f"its slot from cycle {slot.base} for {slot.cycles}",
        )
    least = end if body.ready is None else body.ready[layer]
    if begin < least:
        findings.tell(1, f"{where}: begins at cycle {begin}, its slot may not before {least}")
    return last


def _regions(
    findings: Findings,
    where: str,
    kept: _Kept,
    rows: Columns,
    kernels: tuple[Kernel, ...],
    word: Int[np.ndarray, " rows"],
) -> None:
    missing = dict(kept)
    for i, place in enumerate(zip(rows.chip.tolist(), word.tolist(), strict=True)):
        kernel = kernels[int(rows.aux[i])]
        line, lines = int(rows.src3[i]), int(rows.n[i])
        found: tuple[Any, ...] = (line, _stripes(kernel), *_cache(kernel))
        if isinstance(kernel, StateMoveKernel):
            found = line, lines, kernel.kept, kernel.cached
        what = f"{where}: word {place[1]} of chip {place[0]}"
        if place not in kept:
            findings.tell(7, f"{what} is no KV or state of the layer")
        elif place not in missing:
            findings.tell(7, f"{what} is moved twice")
        elif found != (want := missing.pop(place)):
            findings.tell(7, f"{what}: moves {found}, the layer keeps {want}")
    for chip, first in missing:
        findings.tell(7, f"{where}: no row moves what is kept at word {first} of chip {chip}")
