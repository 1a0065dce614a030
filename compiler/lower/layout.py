"""Layout: how a value's features are cut into segments and lines, and which rank owns which.

A *segment* is what one consumer takes whole: the query heads of one KV head for attention, 160 columns for a
GLU, 80 columns otherwise. Segments are padded to whole lines; consecutive segments of one rank are
consecutive lines. A *deal* says how the context of a KV head is cut into stripes, and these dealt over chips.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from compiler.errors import CompileError
from compiler.graph.graph import Graph, Node, View, width
from compiler.lower.rule import AS_RESULT, Uses
from compiler.program.isa import F16_LANES, F32_LANES, WIDE_LANES, ceil_div
from compiler.program.packed import TAG

NO_RANK = -1  # the owner of lines that several ranks compute, each for itself
LANES = {"f32": F32_LANES, "f16": F16_LANES, "wide": WIDE_LANES, "stat": F32_LANES, "bare": 0}


class Deal(NamedTuple):
    """A context dealt in `stripes` over `chips`: all but the head's owner keep `lent`, the owner the rest.

    Stripes are dealt `run` blocks at a time, those of the owner first.
    """

    chips: int = 1
    stripes: int = 1
    lent: int = 1
    run: int = 1

    @classmethod
    def evenly(cls, chips: int, run: int) -> "Deal":
        """A stripe for each chip."""
        return cls(chips, chips, run=run)

    @property
    def slots(self) -> tuple[int, ...]:
        """Which of the chips keeps each stripe, the owner 0."""
        others = (chip for chip in range(1, self.chips) for _ in range(self.lent))
        return (0,) * self.kept + tuple(others)

    @property
    def kept(self) -> int:
        """Stripes that the owner keeps."""
        return self.stripes - (self.chips - 1) * self.lent


WHOLE = Deal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Where the segments of one view lie among the lines of its value.

    first: int64 [segments] first line; lines: lines each; width: real columns each, the last before one of
    the `starts` or the end may have fewer.
    """

    start: int
    total: int
    width: int
    first: np.ndarray
    lines: int
    starts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.first)

    @property
    def spans(self) -> np.ndarray:
        """int64 [segments, 2]: first column and how many, of each segment of the view."""
        return spans_of(self.total, self.width, self.starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A value laid out: `owner[line]` computes the line, `columns[lane]` is the real column or -1.

    `first`, `count` are the line ranges that single rows write; `held[rank, line]` tells where copies lie,
    `made[rank, line]`, if several ranks compute a line, which.
    """

    uid: int
    dtype: str
    owner: np.ndarray
    columns: np.ndarray
    held: np.ndarray
    first: np.ndarray
    count: np.ndarray
    made: np.ndarray | None = None

    @property
    def lines(self) -> int:
        """Lines of the whole value."""
        return len(self.owner)

    def tag(self, line: np.ndarray | int) -> np.ndarray:
        """Tags of lines."""
        return np.asarray(TAG.pack(self.uid, line), np.int64)


@dataclass(frozen=True, slots=True)
class Demand:
    """How the consumers of a view want it cut: the view, columns per segment, where segments must begin.

    even: all ranks that have segments have equally many.
    """

    view: View
    columns: int
    starts: tuple[int, ...] = ()
    even: bool = False

    @property
    def spans(self) -> np.ndarray:
        """int64 [segments, 2]: first column of the view and how many, of each segment."""
        return spans_of(self.view.width, self.columns, self.starts)

    def owners(self, ranks: int) -> np.ndarray:
        """The rank of each segment: spread evenly, and by whole contract parts where there are enough."""
        begin = self.spans[:, 0]
        if self.even:
            return evenly(len(begin), ranks)
        parts = len(self.starts) - 1
        if parts < ranks:
            return np.arange(len(begin)) * ranks // len(begin)
        return rank_of_part(np.searchsorted(self.starts, begin, side="right") - 1, parts, ranks)


class Demands(Uses):
    """Answers how each view must be cut, from the rules of what reads it."""

    def pieces(self, value: int) -> list[Demand]:
        """The distinct views of a value in column order, with the segment width that their readers want."""
        views = {node.inputs[operand] for node, operand in self.readers(value)}
        if self.graph.logits.value == value or not views:
            views.add(View(value=value, start=0, width=width(self.graph.values[value])))
        ordered = sorted(views, key=lambda v: (v.start, v.width))
        return [Demand(view, self._columns(view), self.starts(view), self._even(view)) for view in ordered]

    def starts(self, view: View) -> tuple[int, ...]:
        """Where contract parts of the products begin that take a view, or what keeps its columns."""
        for node, operand in self.readers(view.value):
            if node.inputs[operand] != view:
                continue
            rule = self.rule(node)
            if rule.joint is not None:
                found = node.attributes.get("starts", ()) if operand == 0 else ()
            else:
                alike = rule.keeps_columns or rule.wants(self, node, operand) == AS_RESULT
                found = self.starts(whole_of(self.graph, node.outputs[0])) if alike else ()
            if found:
                return found
        return ()

    def multipliers(self, value: int, ranks: int, k_parts: int) -> Bool[np.ndarray, " ranks"]:
        """Which ranks multiply a value by weights: those that compute a tile of a product that reads it."""
        found = np.full(ranks, self.everywhere(value))
        for node, _ in self.readers(value):
            if self.rule(node).joint is not None:
                for demand in self.pieces(node.outputs[0]):
                    found |= np.isin(np.arange(ranks) // k_parts, demand.owners(ranks) // k_parts)
        return found

    @property
    def somewhere_everywhere(self) -> bool:
        """Whether the graph has an op that every rank takes all operands of."""
        return any(self.rule(node).everywhere for node in self.graph.nodes)

    def everywhere(self, value: int) -> bool:
        """Whether every rank takes all of a value."""
        return any(self.rule(node).everywhere for node, _ in self.readers(value))

    def adds_everywhere(self, node: Node) -> bool:
        """Whether every rank takes a residual sum, and adds up the parts of what is added itself."""
        if not self.rule(node).residual:
            return False
        makers = [self.maker(view.value) for view in node.inputs]
        cuts = max(len(maker.attributes.get("starts", ())) if maker else 0 for maker in makers)
        readers = [reader for reader, _ in self.readers(node.outputs[0])]
        return cuts > 2 and any(self.everywhere(reader.outputs[0]) for reader in readers)

    def _even(self, view: View) -> bool:
        """Whether an op that makes or reads a view wants its segments dealt evenly."""
        maker = self.maker(view.value)
        if maker is not None and self.rule(maker).even:
            return True
        for node, operand in self.readers(view.value):
            rule = self.rule(node)
            if node.inputs[operand] == view and (
                rule.even
                or (
                    rule.wants(self, node, operand) == AS_RESULT
                    and self._even(whole_of(self.graph, node.outputs[0]))
                )
            ):
                return True
        return False

    def _columns(self, view: View) -> int:
        maker = self.maker(view.value)
        if maker is not None and (cuts := self.rule(maker).cuts) is not None:
            return cuts(self, maker)
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
        return self._columns(whole_of(self.graph, node.outputs[0]))


def whole_of(graph: Graph, value: int) -> View:
    """The view of all of a value."""
    return View(value=value, start=0, width=width(graph.values[value]))


def spans_of(total: int, columns: int, starts: tuple[int, ...]) -> np.ndarray:
    """int64 [segments, 2]: first column and columns of segments, at most this many, new ones at `starts`."""
    ends = starts or (0, total)
    begin = np.concatenate([np.arange(first, last, columns) for first, last in pairwise(ends)])
    return np.stack([begin, np.diff(np.append(begin, total))], axis=-1)


def rank_of_part(part: np.ndarray, parts: int, ranks: int) -> np.ndarray:
    """Which of at most as many ranks holds each contract part: consecutive ones, almost equally many."""
    return np.searchsorted(np.arange(ranks + 1) * parts // ranks, part, side="right") - 1


def evenly(segments: int, ranks: int) -> np.ndarray:
    """The rank of each segment: consecutive ones, equally many on as many ranks as can have that."""
    used = max(count for count in range(1, min(segments, ranks) + 1) if segments % count == 0)
    return np.arange(segments) // (segments // used) * ranks // used


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
        lines_each = ceil_div(demand.columns, lanes)
        entries += [(owner, i, which, lines_each) for i, owner in enumerate(demand.owners(ranks).tolist())]
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
        for line, (begin, real) in zip(starts.tolist(), demand.spans.tolist(), strict=True):
            columns[line * lanes : line * lanes + real] = offset + begin + np.arange(real)
        segments.append(
            Segments(
                start=demand.view.start,
                total=demand.view.width,
                width=demand.columns,
                first=starts,
                lines=ceil_div(demand.columns, lanes),
                starts=demand.starts,
            )
        )
    return owner.astype(np.int64), columns, segments, which_line
