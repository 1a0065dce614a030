"""The decode and the prefill program of one folder: whether both find the same values at the same words."""

from typing import Any

import numpy as np

from compiler.program.isa import Columns, Op
from compiler.program.program import LOADS, Program
from lpu.check.findings import Findings, Report, tag

_SAME = ("model", "rack", "chip_name", "chip", "links", "forward_cycles", "vocab", "sequences", "capacity")
_CACHE = ("head_dim", "kv", "kv_words", "kv_stride", "cached", "capacity", "frac")


def pair(decode: Program, prefill: Program) -> Report:
    """The report on one memory image: chips, regions, preloaded values and KV regions are equal.

    What one program leaves in the KV regions, the other reads: so a head must lie at the same words in both,
    in the same format, and the weights where both look for them.
    """
    contexts = [c for c in decode.manifest.contexts if c in prefill.manifest.contexts]
    columns = decode.expand((contexts or decode.manifest.contexts)[0])
    findings = Findings(columns)
    _manifests(findings, decode.manifest, prefill.manifest, bool(contexts))
    _preloaded(findings, decode, prefill)
    if contexts:
        ours = _heads(columns, decode.manifest.kernels)
        theirs = _heads(prefill.expand(contexts[0]), prefill.manifest.kernels)
        wrong = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
        findings.note(
            7,
            np.array(wrong, np.int64),
            lambda name: (
                f"KV of tag {tag(name)}: {_place(ours.get(int(name)))} of the decode program, "
                f"{_place(theirs.get(int(name)))} of the prefill program"
            ),
        )
    return findings.report()


def _manifests(findings: Findings, one: Any, other: Any, common: bool) -> None:
    different = [name for name in _SAME if one.get(name) != other.get(name)]
    findings.note(
        0,
        np.arange(len(different)),
        lambda i: f"manifests of the decode and the prefill program: {different[i]} differs",
    )
    if one["prefill"] != other["chunk"] or not common:
        what = (
            f"the decode program goes with chunks of {one['prefill']} in contexts {one['contexts']}, "
            f"the prefill program has {other['chunk']} in {other['contexts']}"
        )
        findings.note(0, np.zeros(1), lambda _: what)
    ours, theirs = (np.array(m["regions"], np.int64).reshape(-1, 3, 2) for m in (one, other))
    same = ours.shape == theirs.shape
    moved = np.flatnonzero((ours != theirs).any(axis=(1, 2))) if same else np.zeros(1, np.int64)
    findings.note(
        5,
        moved,
        lambda chip: (
            f"chip {chip}: regions {ours[chip].tolist()} to decode, {theirs[chip].tolist()} to prefill"
        ),
    )


def _preloaded(findings: Findings, decode: Program, prefill: Program) -> None:
    ours, theirs = decode.loads(), prefill.loads()
    if len(ours) != len(theirs):
        what = f"{len(ours)} preloaded values to decode, {len(theirs)} to prefill"
        findings.note(2, np.zeros(1), lambda _: what)
        return
    differs = np.zeros(len(ours), bool)
    for name in LOADS:
        differs |= getattr(ours, name) != getattr(theirs, name)
    odd = _tensors(decode) != _tensors(prefill)
    findings.note(
        2,
        np.flatnonzero(differs),
        lambda i: (
            f"load {i}: word {ours.addr[i]} of chip {ours.chip[i]} to decode, "
            f"word {theirs.addr[i]} of chip {theirs.chip[i]} to prefill, or another value"
        ),
    )
    findings.note(
        2, np.zeros(int(odd)), lambda _: "the preloaded values are of other tensors to decode than to prefill"
    )


def _tensors(program: Program) -> list[tuple[str, bytes, bytes]]:
    """Name, row map and column map of what the preloaded values are cut from."""
    return [
        (name, b"" if rows is None else rows.tobytes(), b"" if columns is None else columns.tobytes())
        for name, rows, columns in program.slots()
    ]


def _heads(columns: Columns, kernels: Any) -> dict[int, tuple[Any, ...]]:
    """Chip, first word and format of the KV of every head, by tag."""
    rows = np.flatnonzero(columns.op == Op.KVW)
    return {
        int(columns.dst_tag[row]): (
            int(columns.chip[row]),
            int(columns.dst[row]),
            *(kernels[int(columns.aux[row])].get(name) for name in _CACHE),
        )
        for row in rows
    }


def _place(head: tuple[Any, ...] | None) -> str:
    if head is None:
        return "none"
    return f"word {head[1]} of chip {head[0]} ({', '.join(map(str, head[2:]))})"
