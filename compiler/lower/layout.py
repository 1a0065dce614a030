"""Layout: how a value's features are cut into segments and lines, and which rank owns which.

A *segment* is what one consumer takes whole: the query heads of one KV head for attention, 160 columns for a
GLU, 80 columns otherwise. Segments are padded to whole lines; consecutive segments of one rank are
consecutive lines.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from compiler.errors import CompileError
from compiler.graph.graph import Node, View, width
from compiler.lower.rule import AS_RESULT, Uses
from compiler.program.isa import F16_LANES, F32_LANES, WIDE_LANES, ceil_div
from compiler.program.packed import TAG

LANES = {"f32": F32_LANES, "f16": F16_LANES, "wide": WIDE_LANES, "stat": F32_LANES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Where the segments of one view lie among the lines of its value.

    first: int64 [segments] first line; lines: lines each; width: real columns each (the last may have fewer).
    """

    start: int
    total: int
    width: int
    first: np.ndarray
    lines: int

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A value laid out: `owner[line]` computes the line, `columns[lane]` is the real column or -1.

    `first`, `count` are the line ranges that single rows write; `held[rank, line]` tells where copies lie.
    """

    uid: int
    dtype: str
    owner: np.ndarray
    columns: np.ndarray
    held: np.ndarray
    first: np.ndarray
    count: np.ndarray

    @property
    def lines(self) -> int:
        """Lines of the whole value."""
        return len(self.owner)

    def tag(self, line: np.ndarray | int) -> np.ndarray:
        """Tags of lines."""
        return np.asarray(TAG.pack(self.uid, line), np.int64)


@dataclass(frozen=True, slots=True)
class Demand:
    """How the consumers of a view want it cut: columns per segment, and the view itself."""

    view: View
    columns: int


class Demands(Uses):
    """Answers how each view must be cut, from the rules of what reads it."""

    def pieces(self, value: int) -> list[Demand]:
        """The distinct views of a value in column order, with the segment width that their readers want."""
        views = {node.inputs[operand] for node, operand in self.readers(value)}
        if self.graph.logits.value == value or not views:
            views.add(View(value=value, start=0, width=width(self.graph.values[value])))
        return [Demand(view, self._columns(view)) for view in sorted(views, key=lambda v: (v.start, v.width))]

    def multipliers(self, value: int, ranks: int, k_parts: int) -> Bool[np.ndarray, " ranks"]:
        """Which ranks multiply a value by weights: those that compute a tile of a product that reads it."""
        found = np.zeros(ranks, bool)
        for node, _ in self.readers(value):
            if self.rule(node).joint is not None:
                for demand in self.pieces(node.outputs[0]):
                    count = int(ceil_div(demand.view.width, demand.columns))
                    owners = np.arange(count) * ranks // count
                    found |= np.isin(np.arange(ranks) // k_parts, owners // k_parts)
        return found

    def _columns(self, view: View) -> int:
        wanted = [
            self._wanted(node, operand)
            for node, operand in self.readers(view.value)
            if node.inputs[operand] == view
        ]
        alone = not wanted and self.graph.values[view.value].dtype == "float16"  # it leaves the chips
        found = sorted({w for w in wanted if w is not None}) or [F16_LANES if alone else F32_LANES]
        if len(found) > 1:
            value = self.graph.values[view.value]
            raise CompileError(
                "shard",
                value.name or f"value {value.index} of shape {value.shape}",
                f"its readers want it cut every {found[0]} and every {found[1]} columns",
                "Compute it twice, once per reader.",
            )
        return found[0]

    def _wanted(self, node: Node, operand: int) -> int | None:
        columns = self.rule(node).wants(self, node, operand)
        if columns != AS_RESULT:
            return columns
        result = self.graph.values[node.outputs[0]]
        return self._columns(View(value=result.index, start=0, width=width(result)))


def natural(total: int, ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """(owner [lines], columns [80 lines]) of a residual-like value: lines in order, spread evenly."""
    lines = ceil_div(total, F32_LANES)
    columns = np.arange(lines * F32_LANES)
    return np.arange(lines) * ranks // lines, np.where(columns < total, columns, -1)


def lay(
    demands: list[tuple[Demand, int]], dtype: str, ranks: int
) -> tuple[np.ndarray, np.ndarray, list[Segments], np.ndarray]:
    """Lay several views (each with its offset in a joint column space) into one value's lines.

    Segments of equal position (q, k and v of one head; gate and up of one strip) lie together on one rank.
    Returns (owner [lines], columns [lanes], segments per view, view index [lines]).
    """
    lanes = LANES[dtype]
    entries: list[tuple[float, int, int, int]] = []
    for which, (demand, _) in enumerate(demands):
        count = ceil_div(demand.view.width, demand.columns)
        owners = np.arange(count) * ranks // count
        entries += [(int(owners[i]), i, which, ceil_div(demand.columns, lanes)) for i in range(count)]
    entries.sort()
    lines = np.array([entry[3] for entry in entries])
    first = np.cumsum(lines) - lines
    owner = np.repeat([entry[0] for entry in entries], lines)
    which_line = np.repeat([entry[2] for entry in entries], lines)
    columns = np.full(int(lines.sum()) * lanes, -1, np.int64)
    segments: list[Segments] = []
    index = np.array([(entry[2], entry[1]) for entry in entries])
    for which, (demand, offset) in enumerate(demands):
        rows = np.flatnonzero(index[:, 0] == which)
        starts = np.empty(len(rows), np.int64)
        starts[index[rows, 1]] = first[rows]
        for i, line in enumerate(starts):
            real = min(demand.columns, demand.view.width - i * demand.columns)
            columns[line * lanes : line * lanes + real] = offset + i * demand.columns + np.arange(real)
        segments.append(
            Segments(
                start=demand.view.start,
                total=demand.view.width,
                width=demand.columns,
                first=starts,
                lines=ceil_div(demand.columns, lanes),
            )
        )
    return owner.astype(np.int64), columns, segments, which_line
