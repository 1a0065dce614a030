"""Items: the rows of a dataflow as equal-shaped pieces of work, grouped by kernel.

Kernels that work lane by lane (norm, add, round, ...) take a line, so a row of n lines is n items; those that
mix lanes (statistics, heads, attention) take a row. An item is a row of integers: written lines that it reads
(`pooled` columns, -1: zeros), entries of the image, regions and chunks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.program.isa import (
    F16_LANES,
    F32_LANES,
    WIDE_LANES,
    Op,
    ceil_div,
    merged_lines,
    score_lines,
    stripes,
    wide,
)
from compiler.program.ranges import ramp
from lpu.link.link import Dataflow
from lpu.run.image import Placed, Plan

F16, F32, WIDE = range(3)  # pools


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Work of one kernel: its static parameters, index table [items, width], level per item, and results.

    Each of `out` is (pool, rows per item, written line per item: the first of its rows, or [items, rows]).
    """

    kernel: str
    params: tuple[tuple[str, Any], ...] = ()
    table: np.ndarray
    pooled: np.ndarray
    level: np.ndarray
    out: tuple[tuple[int, int, np.ndarray], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """All tiles multiplied, in order of level and output line: table [tiles, 3] of two fp16 lines and a tile.

    Tiles of one output line of one write-back that fall into one batch share a `part`. `folded` pairs a
    written wide line with the only part that it is made of, in order of `fold_level`.
    """

    table: np.ndarray
    level: np.ndarray
    part: np.ndarray
    folded: np.ndarray
    fold_level: np.ndarray
    parts: int


@dataclass(frozen=True, slots=True)
class Source:
    """Looks operands up for the builders."""

    flow: Dataflow
    placed: Plan | Placed

    def read(self, operand: int, rows: np.ndarray, offset: np.ndarray | int) -> np.ndarray:
        """The written line behind line `offset` of an operand; -1 beyond its end."""
        first = self.flow.lines.first[operand]
        at = first[rows] + offset
        inside = at < first[rows + 1]
        found = self.flow.lines.found[operand]
        return np.where(inside, found[np.where(inside, at, 0)], -1)

    def block(self, operand: int, rows: np.ndarray, step: int = 1) -> np.ndarray:
        """Every `step`-th line of an operand whose rows all have as many: [rows, lines]."""
        first = self.flow.lines.first[operand]
        count = int(first[rows[0] + 1] - first[rows[0]])
        return self.read(operand, rows[:, None], np.arange(0, count, step))

    def entry(self, rows: np.ndarray, offset: np.ndarray | int) -> np.ndarray:
        """Image entry of the preloaded value number `offset` of a row; -1 beyond its last."""
        at = self.flow.load[rows] + offset
        inside = offset < self.flow.loads[rows]
        return np.where(inside, self.placed.entry[self.flow.load_order[np.where(inside, at, 0)]], -1)

    def tensor(self, rows: np.ndarray) -> np.ndarray:
        """Index of the whole tensor that a row reads."""
        return self.placed.tensor[self.flow.load_order[self.flow.load[rows]]]

    def spread(self, rows: np.ndarray, per: int) -> tuple[np.ndarray, np.ndarray]:
        """(row, index) of every item of rows with n lines, `per` lines each."""
        counts = ceil_div(self.flow.columns.n[rows], per)
        return np.repeat(rows, counts), ramp(counts)

    def items(
        self, kernel: str, rows: np.ndarray, columns: list[np.ndarray], pooled: list[int], **more: Any
    ) -> Items:
        """Items from index columns (1-D, or 2-D for several); `pooled` tells which hold written lines."""
        parts = [c[:, None] if c.ndim == 1 else c for c in columns]
        flags = np.concatenate(
            [np.full(p.shape[1], bool(flag)) for p, flag in zip(parts, pooled, strict=True)]
        )
        return Items(
            kernel=kernel,
            table=np.concatenate(parts, axis=1),
            pooled=flags,
            level=self.flow.level[rows],
            **more,
        )


Builder = Callable[[Source, np.ndarray, Mapping[str, Any], int], Items]


def _embed(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    row, j = s.spread(rows, 1)
    out = ((F32, 1, s.flow.result[row] + j),)
    params = (("tensor", int(s.tensor(rows)[0])),)
    return s.items("embed", row, [s.entry(row, 0) + j], [0], out=out, params=params)


def _rstat(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    params = (("width", k.width), ("eps", k.eps))
    return s.items(
        "rstat", rows, [s.block(0, rows)], [1], out=((F32, 1, s.flow.result[rows]),), params=params
    )


def _norm(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    row, j = s.spread(rows, 2)
    lines = [s.read(0, row, 2 * j), s.read(0, row, 2 * j + 1), s.read(1, row, 0)]
    gains = [s.entry(row, 2 * j), s.entry(row, 2 * j + 1)]
    out = ((F16, 1, s.flow.result[row] + j),)
    return s.items("norm", row, lines + gains, [1, 1, 1, 0, 0], out=out)


def _hnorm(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    words = np.arange(ceil_div(k.head_dim, F32_LANES))
    lines = int(ceil_div(n * k.head_dim, F16_LANES))
    params = (("head_dim", k.head_dim), ("eps", k.eps), ("n", n))
    columns = [s.block(0, rows), s.entry(rows[:, None], words)]
    return s.items("hnorm", rows, columns, [1, 0], out=((F16, lines, s.flow.result[rows]),), params=params)


def _rope(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    lines = int(ceil_div(n * k.head_dim, F16_LANES))
    tensor = int(s.tensor(rows)[0])
    params = (("head_dim", k.head_dim), ("input", k.input), ("n", n), ("tensor", tensor))
    out = ((F16, lines, s.flow.result[rows]),)
    return s.items("rope", rows, [s.block(0, rows)], [1], out=out, params=params)


def _cast(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    row, j = s.spread(rows, 2)
    lines = [s.read(0, row, 2 * j), s.read(0, row, 2 * j + 1)]
    return s.items("cast", row, lines, [1, 1], out=((F16, 1, s.flow.result[row] + j),))


def _attention(k: Mapping[str, Any], *names: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, k[name]) for name in ("group", "head_dim", "chunk", "sequences", *names))


def _cached(s: Source, rows: np.ndarray, operand: int) -> tuple[list[np.ndarray], list[int]]:
    """Columns that name a chunk of K or V (region, stripe, chunk, lines appended); which are pooled."""
    region = s.flow.region[rows]
    append = s.flow.append[region]
    stripe = np.maximum(s.flow.columns.src3[append], 0)
    return [region, stripe, s.flow.columns.n[rows], s.block(operand, append)], [0, 0, 0, 1]


def _qk(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    cached, pooled = _cached(s, rows, 0)
    out = ((F32, score_lines(k), s.flow.result[rows]),)
    params = (*_attention(k, "store"), ("stripes", stripes(k)))
    return s.items("qk", rows, [s.block(0, rows), *cached], [1, *pooled], out=out, params=params)


def _smax(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    out = ((F32, 1, s.flow.result[rows]),)
    return s.items("smax", rows, [s.block(0, rows, score_lines(k))], [1], out=out, params=_attention(k))


def _exp(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    size, result = score_lines(k), s.flow.result[rows]
    columns = [s.read(0, rows, 0), s.block(1, rows)]
    out = ((F32, size, result), (WIDE, 1, result + size))
    return s.items("exp", rows, columns, [1, 1], out=out, params=_attention(k, "frac", "chunks"))


def _pv(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    cached, pooled = _cached(s, rows, 1)
    out = ((WIDE, int(ceil_div(k.group * k.head_dim, F32_LANES)), s.flow.result[rows]),)
    params = (*_attention(k, "store"), ("stripes", stripes(k)))
    return s.items("pv", rows, [s.read(0, rows, 0), *cached], [1, *pooled], out=out, params=params)


def _aout(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    width = k.group * k.head_dim
    columns = [s.block(0, rows, int(ceil_div(width, WIDE_LANES))), s.block(1, rows)]
    out = ((F16, int(ceil_div(width, F16_LANES)), s.flow.result[rows]),)
    return s.items("aout", rows, columns, [1, 1], out=out, params=(*_attention(k), ("n", n)))


def _asum(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    width = k.group * k.head_dim
    columns = [s.block(0, rows, int(ceil_div(width, WIDE_LANES))), s.block(1, rows)]
    out = ((WIDE, int(ceil_div(width, F32_LANES)) + 1, s.flow.result[rows]),)
    return s.items("asum", rows, columns, [1, 1], out=out, params=(*_attention(k), ("n", n)))


def _aend(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    out = ((F16, int(ceil_div(k.group * k.head_dim, F16_LANES)), s.flow.result[rows]),)
    return s.items("aend", rows, [s.block(0, rows, merged_lines(k))], [1], out=out, params=_attention(k))


def _red(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    row, j = s.spread(rows, 1)
    offsets = 4 * j[:, None] + 4 * s.flow.columns.n[row][:, None] * np.arange(k.parts)
    if wide(k):
        out = ((WIDE, 1, s.flow.result[row] + 4 * j),)
        return s.items("fold", row, [s.read(0, row[:, None], offsets)], [1], out=out)
    columns = [s.read(0, row[:, None], offsets), s.entry(row, j)]
    return s.items("round", row, columns, [1, 0], out=((F32, 1, s.flow.result[row] + j),))


def _add(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    row, j = s.spread(rows, 1)
    lines = [s.read(0, row, j), s.read(1, row, j)]
    return s.items("add", row, lines, [1, 1], out=((F32, 1, s.flow.result[row] + j),))


def _glu(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    row, j = s.spread(rows, 2)
    lines = [s.read(operand, row, 2 * j + i) for operand in (0, 1) for i in (0, 1)]
    out = ((F16, 1, s.flow.result[row] + j),)
    return s.items("glu", row, lines, [1] * 4, out=out, params=(("activation", k.activation),))


def _argmax(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    columns = [s.block(0, rows), s.flow.columns.src3[rows]]
    out = ((F32, 1, s.flow.result[rows]),)
    return s.items("argmax", rows, columns, [1, 0], out=out, params=(("vocab", k.vocab),))


def _argred(s: Source, rows: np.ndarray, k: Mapping[str, Any], n: int) -> Items:
    return s.items("argred", rows, [s.block(0, rows)], [1], out=((F32, 1, s.flow.result[rows]),))


# How each opcode becomes items, and whether its rows are grouped by n. MM and WB: `products`; KVW: an alias.
BUILD: dict[Op, tuple[Builder, bool]] = {
    Op.EMBED: (_embed, False),
    Op.RSTAT: (_rstat, True),
    Op.NORM: (_norm, False),
    Op.HNORM: (_hnorm, True),
    Op.ROPE: (_rope, True),
    Op.CAST: (_cast, False),
    Op.QK: (_qk, False),
    Op.SMAX: (_smax, True),
    Op.EXP: (_exp, False),
    Op.PV: (_pv, False),
    Op.AOUT: (_aout, True),
    Op.ASUM: (_asum, True),
    Op.AEND: (_aend, True),
    Op.RED: (_red, False),
    Op.ADD: (_add, False),
    Op.GLU: (_glu, False),
    Op.ARGMAX: (_argmax, True),
    Op.ARGRED: (_argred, True),
}


def items(flow: Dataflow, placed: Plan | Placed, stores: Mapping[int, int]) -> list[Items]:
    """All items but the products and write-backs; `stores` is the KV store of each attention kernel."""
    source, columns = Source(flow, placed), flow.columns
    out: list[Items] = []
    for op, (build, by_count) in BUILD.items():
        rows = np.flatnonzero(columns.op == op)
        if not len(rows):
            continue
        tensor = source.tensor(rows) if op in (Op.EMBED, Op.ROPE) else np.zeros(len(rows), np.int64)
        keys = np.stack([columns.aux[rows], columns.n[rows] if by_count else 0 * rows, tensor])
        distinct, which = np.unique(keys, axis=1, return_inverse=True)
        for i, (aux, n, _) in enumerate(distinct.T):
            kernel = {**flow.kernels[aux], "store": stores.get(int(aux), 0)}
            out.append(build(source, rows[which.reshape(-1) == i], kernel, int(n)))
    return out


def products(flow: Dataflow, placed: Plan | Placed, batch: int) -> tuple[Products, list[Items]]:
    """The tiles in batches of `batch`, and the write-backs that add up their parts."""
    source, columns = Source(flow, placed), flow.columns
    rows, j = source.spread(np.flatnonzero(columns.op == Op.MM), 1)
    drain, level = flow.drain[rows], flow.level[rows]
    order = np.lexsort((j, drain, level))
    rows, j, drain, level = rows[order], j[order], drain[order], level[order]
    begins = np.searchsorted(level, level)
    slot = np.arange(len(rows)) - begins
    fresh = (np.diff(drain, prepend=-1) != 0) | (np.diff(j, prepend=-1) != 0) | (slot % batch == 0)
    part = np.cumsum(fresh) - 1
    table = np.stack([source.read(0, rows, 0), source.read(0, rows, 1), source.entry(rows, j)], axis=-1)
    heads = np.flatnonzero(fresh)
    back, line = drain[heads], j[heads]
    first = np.flatnonzero((np.diff(back, prepend=-1) != 0) | (np.diff(line, prepend=-1) != 0))
    fans = np.diff(np.append(first, len(heads)))
    folded, out = written_back(source, back[first], line[first], first, fans)
    return (
        Products(
            table=table,
            level=level,
            part=part,
            folded=folded,
            fold_level=level[np.searchsorted(part, folded[:, 1] - len(flow.lines.row))],
            parts=len(heads),
        ),
        out,
    )


def written_back(
    source: Source, row: np.ndarray, line: np.ndarray, first: np.ndarray, fans: np.ndarray
) -> tuple[np.ndarray, list[Items]]:
    """(`folded` of Products, items that add up parts): each line of a write-back has `fans` from `first`."""
    flow = source.flow
    partial = np.array([wide(k) for k in flow.kernels])[flow.columns.aux[row]]
    written = len(flow.lines.row)
    alone = partial & (fans == 1)
    folded = np.stack([flow.result[row[alone]] + 4 * line[alone], written + first[alone]], axis=-1)
    size = 1 << np.ceil(np.log2(np.maximum(fans, 1))).astype(np.int64)
    out: list[Items] = []
    for some, fan in sorted({(bool(w), int(f)) for w, f in zip(partial[~alone], size[~alone], strict=True)}):
        mine = np.flatnonzero((partial == some) & (size == fan) & ~alone)
        each = np.arange(fan)
        parts = np.where(each < fans[mine, None], written + first[mine, None] + each, -1)
        if some:
            result = ((WIDE, 1, flow.result[row[mine]] + 4 * line[mine]),)
            out.append(source.items("fold", row[mine], [parts], [1], out=result))
        else:
            scale = source.entry(row[mine], line[mine])
            result = ((F32, 1, flow.result[row[mine]] + line[mine]),)
            out.append(source.items("round", row[mine], [parts, scale], [1, 0], out=result))
    return folded, out
