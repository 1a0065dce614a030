"""What rows wait for, read from the columns of a program: lines by tag, accumulators, appended KV."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from compiler.lower.rows import Rows
from compiler.program.isa import PRODUCTS, Columns, Kernel, Op, is_transfer
from compiler.program.packed import PackedKey
from compiler.schedule.list_schedule import dependencies


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """By row, in cycles: the longest chain of rows before it and after it has its result; hops before it.

    Units and lanes are taken as unlimited; rows keep their latencies, lanes and routes.
    """

    head: np.ndarray
    tail: np.ndarray
    hops: np.ndarray


def edges(columns: Columns, kernels: Sequence[Kernel], planes: int, given: int) -> np.ndarray:
    """(earlier row, later row) of every dependency of a block; the value `given` is there at cycle 0."""
    transfer = is_transfer(columns.op)
    product, drain = np.flatnonzero(np.isin(columns.op, PRODUCTS)), np.flatnonzero(columns.op == Op.WB)
    append = np.flatnonzero(columns.op == Op.KVW)
    install = np.flatnonzero(np.isin(columns.op, (Op.QK, Op.PV, Op.FETCH)))
    own = [
        _match(
            columns,
            (product, columns.unit, columns.dst_tag),
            (drain, columns.unit - planes, columns.src3_tag),
        ),
        _match(columns, (install, 0, columns.src2_tag), (append, 0, columns.dst_tag))[:, ::-1],
    ]
    rows = Rows(
        op=columns.op,
        rank=columns.chip,
        n=columns.n,
        aux=np.where(transfer, -1, columns.aux),
        peer=columns.peer,
        pin=columns.unit,
        dst=columns.dst,
        src=columns.src,
        src2=columns.src2,
        src3=columns.src3,
        dst_tag=columns.dst_tag,
        src_tag=columns.src_tag,
        src2_tag=columns.src2_tag,
        src3_tag=columns.src3_tag,
        edges=np.concatenate(own),
    )
    return dependencies(rows, kernels, given)


_Keyed = tuple[np.ndarray, np.ndarray | int, np.ndarray]  # rows, unit and tag of all rows


_PORT = PackedKey(chip=20, unit=11, tag=32)


def _match(columns: Columns, ones: _Keyed, others: _Keyed) -> np.ndarray:
    """(row, other row) wherever chip, unit and tag agree; those of the others are distinct."""
    names = np.unique(np.concatenate([tags[rows] for rows, _, tags in (ones, others)]))
    keys, wanted = (
        _PORT.pack(
            columns.chip[rows],
            unit if isinstance(unit, int) else unit[rows],
            np.searchsorted(names, tags[rows]),
        )
        for rows, unit, tags in (ones, others)
    )
    order = np.argsort(wanted, kind="stable")
    at = np.minimum(np.searchsorted(wanted[order], keys), max(len(order) - 1, 0))
    same = wanted[order][at] == keys if len(order) else np.zeros(len(keys), bool)
    return np.stack([ones[0][same], others[0][order][at[same]]], axis=-1)


def waits(columns: Columns, pairs: np.ndarray) -> Waits:
    """Longest chains before and after every row; `pairs` as `edges` gives them."""
    size = len(columns)
    latency = (columns.t1 - columns.t0).tolist()
    hop = is_transfer(columns.op).tolist()
    order = np.argsort(columns.t0, kind="stable").tolist()
    before, after = _lists(pairs[:, 1], pairs[:, 0], size), _lists(pairs[:, 0], pairs[:, 1], size)
    head, tail, hops = [0] * size, [0] * size, [0] * size
    for row in order:
        for one in before[row]:
            step = (head[one] + latency[one], hops[one] + hop[one])
            if step > (head[row], hops[row]):
                head[row], hops[row] = step
    for row in reversed(order):
        tail[row] = max((latency[one] + tail[one] for one in after[row]), default=0)
    return Waits(head=np.array(head, np.int64), tail=np.array(tail, np.int64), hops=np.array(hops, np.int64))


def _lists(keys: np.ndarray, values: np.ndarray, size: int) -> list[list[int]]:
    """The values of each key 0 .. size-1."""
    order = np.argsort(keys, kind="stable")
    ends = np.searchsorted(keys[order], np.arange(size + 1)).tolist()
    flat = values[order].tolist()
    return [flat[first:end] for first, end in pairwise(ends)]
