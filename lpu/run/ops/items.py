"""Items: the rows of a dataflow as equal-shaped pieces of work, and the record of how an opcode becomes them.

Kernels that work lane by lane (norm, add, round, ...) take a line, so a row of n lines is n items; those that
mix lanes (statistics, heads, attention) take a row. An item is a row of integers: first the written lines
that it reads (-1: zeros), then what else its kernel needs: entries of the image, regions, chunks.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jax import Array
from jaxtyping import Int

from compiler.program.isa import Kernel, ceil_div
from compiler.program.ranges import ramp
from lpu.link.link import Dataflow
from lpu.run.image import ImagePlan
from lpu.run.pools import Env, Pool, Pools

K = TypeVar("K", bound=Kernel)
Rows = Int[np.ndarray, " rows"]


@runtime_checkable
class Compute(Protocol):
    """The kernel of some items: from static parameters, what a step may read, and their table to new rows."""

    __name__: str

    def __call__(self, params: Any, env: Env, pools: Pools, t: Int[Array, "items width"], /) -> Pools:
        """New rows of each pool, those of one item after another."""
        ...


class Result(NamedTuple):
    """What items leave in one pool: rows each, and the written line of the first, or of [items, some].

    One line: that of the first row, the other rows are the lines that follow it.
    """

    pool: Pool
    rows: int
    line: Int[np.ndarray, "items *rows"]


def kept_line(state: Int[np.ndarray, " states"]) -> Int[np.ndarray, " states"]:
    """What stands for a state among written lines: counted from behind, before the last, which is none."""
    return -2 - state


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Work of one kernel with the same static parameters; the first `lines` columns name written lines."""

    kernel: Compute
    params: Hashable
    table: Int[np.ndarray, "items width"]
    lines: int
    level: Int[np.ndarray, " items"]
    out: tuple[Result, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Static(Generic[K]):
    """What rows have in common that one builder call gets; kernels may take it as their parameters.

    n: their count where the opcode is grouped by it, else 0. tensor: index among the tables or angles of the
    image, 0 where they read none. store: index of the KV arrays of their kernel.
    """

    kernel: K
    n: int = 0
    tensor: int = 0
    store: int = 0


@dataclass(frozen=True, slots=True)
class Reads:
    """What rows read, for builders: written lines, entries of the image; numbers: of regions in KV arrays."""

    flow: Dataflow
    plan: ImagePlan
    numbers: Rows = field(default_factory=lambda: np.zeros(0, np.int64))

    def line(
        self, operand: int, rows: Int[np.ndarray, "..."], offset: Int[np.ndarray, "..."] | int
    ) -> Int[np.ndarray, "..."]:
        """The written line behind line `offset` of an operand (0: src, 1: src2); -1 beyond its end."""
        first = self.flow.lines.first[operand]
        at = first[rows] + offset
        inside = at < first[rows + 1]
        found = self.flow.lines.found[operand]
        return np.where(inside, found[np.where(inside, at, 0)], -1)

    def block(self, operand: int, rows: Rows, step: int = 1) -> Int[np.ndarray, "rows lines"]:
        """Every `step`-th written line of an operand whose rows all have the same number."""
        first = self.flow.lines.first[operand]
        count = int(first[rows[0] + 1] - first[rows[0]])
        return self.line(operand, rows[:, None], np.arange(0, count, step))

    def entry(
        self, rows: Int[np.ndarray, "..."], offset: Int[np.ndarray, "..."] | int
    ) -> Int[np.ndarray, "..."]:
        """Image entry of the preloaded value number `offset` of a row; -1 beyond its last."""
        at = self.flow.load[rows] + offset
        inside = offset < self.flow.loads[rows]
        return np.where(inside, self.plan.entry[self.flow.load_order[np.where(inside, at, 0)]], -1)

    def tensor(self, rows: Rows) -> Rows:
        """Index of the whole tensor that a row reads."""
        return self.plan.tensor[self.flow.load_order[self.flow.load[rows]]]

    def spread(self, rows: Rows, per: int) -> tuple[Int[np.ndarray, " items"], Int[np.ndarray, " items"]]:
        """(row, index) of every item of rows with n lines, `per` lines each."""
        counts = ceil_div(self.flow.columns.n[rows], per)
        return np.repeat(rows, counts), ramp(counts)

    def items(
        self,
        kernel: Compute,
        rows: Rows,
        *,
        lines: Sequence[Int[np.ndarray, "rows ..."]] = (),
        others: Sequence[Int[np.ndarray, "rows ..."]] = (),
        out: tuple[Result, ...],
        params: Hashable = None,
    ) -> Items:
        """One item per row from columns, 1-D or 2-D for several: written lines that it reads, then others."""
        parts = [column[:, None] if column.ndim == 1 else column for column in (*lines, *others)]
        return Items(
            kernel=kernel,
            params=params,
            table=np.concatenate(parts, axis=1),
            lines=sum(part.shape[1] for part in parts[: len(lines)]),
            level=self.flow.level[rows],
            out=out,
        )


Builder = Callable[[Reads, Rows, Static[Any]], Items]
Limit = tuple[str, int, int]


def _unlimited(kernel: Kernel) -> tuple[Limit, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """How rows of one opcode are executed.

    build: makes their items, and names the kernel that computes those; None where rows are no items of their
    own. by_count: whether one call of `build` gets rows of one count `n`. limits: attributes of a kernel, by
    name, that the pools hold only up to a value: (name, value, the most).
    """

    op: int
    build: Builder | None = None
    by_count: bool = False
    limits: Callable[[Any], tuple[Limit, ...]] = _unlimited
