"""Rows before they have cycles and transient addresses: what lowering writes and scheduling reads."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.errors import CompileError
from compiler.program.instruction_set import INSTRUCTIONS, name_of
from compiler.program.isa import (
    OPERANDS,
    SPACE_LETTERS,
    SPACE_SHIFT,
    TAG_SHIFT,
    TAGS,
    TRANSIENT,
    WEIGHTS,
    Kernel,
    few,
)
from compiler.program.packed import TAG

FIELDS = ("op", "rank", "n", "aux", "peer", "pin", "dst", "src", "src2", "src3", *TAGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Equally long int64 columns, one row per tile operation or transfer, in program order.

    Transient operands exist as tags only (`uid << 40 | line`); weight, KV and accumulator operands are final.
    `pin` is the instance of the unit class that the row must use, -1: any.
    `edges` are (earlier row, later row) dependencies besides those through transient lines.
    """

    op: np.ndarray
    rank: np.ndarray
    n: np.ndarray
    aux: np.ndarray
    peer: np.ndarray
    pin: np.ndarray
    dst: np.ndarray
    src: np.ndarray
    src2: np.ndarray
    src3: np.ndarray
    dst_tag: np.ndarray
    src_tag: np.ndarray
    src2_tag: np.ndarray
    src3_tag: np.ndarray
    edges: np.ndarray

    def __len__(self) -> int:
        return len(self.op)

    def __str__(self) -> str:
        return few([self._line(row) for row in range(len(self))])

    def _line(self, row: int) -> str:
        """A row in words: transient operands by value and line, others by place or number."""
        words = [f"row {row:3}  rank {self.rank[row]}", f"{name_of(int(self.op[row])):<6} n {self.n[row]}"]
        for name in OPERANDS:
            number, tag = int(getattr(self, name)[row]), int(getattr(self, f"{name}_tag")[row])
            if number >= 0:
                space, offset = divmod(number, 1 << SPACE_SHIFT)
                place = str(offset) if space == TRANSIENT else f"{SPACE_LETTERS[space]}:{offset:#x}"
                words.append(f"{name} {place}")
            elif tag >= 0:
                words.append(f"{name} v{tag >> TAG_SHIFT}.{tag % (1 << TAG_SHIFT)}")
        named = (("pin", self.pin[row]), ("peer", self.peer[row]), ("kernel", self.aux[row]))
        words += [f"{name} {number}" for name, number in named if number >= 0]
        before = self.edges[self.edges[:, 1] == row, 0].tolist()
        return "  ".join([*words, *([f"after {', '.join(map(str, before))}"] if before else [])])


class RowBuilder:
    """Collects rows in program order; every field may be a scalar or an array, broadcast together."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, dict[str, np.ndarray]]] = []
        self._edges: list[np.ndarray] = []
        self.count = 0

    def add(self, op: int | np.ndarray, **fields: Any) -> np.ndarray:
        """Append rows; returns their indices. Fields not given are -1."""
        fields["op"] = op
        given = {name: np.asarray(value, np.int64) for name, value in fields.items()}
        if any(array.ndim > 1 for array in given.values()):
            arrays = np.broadcast_arrays(*given.values())
            given = {name: array.reshape(-1) for name, array in zip(given, arrays, strict=True)}
        size = next((array.size for array in given.values() if array.size != 1), 1)
        self._parts.append((size, given))
        rows = np.arange(self.count, self.count + size)
        self.count += size
        return rows

    def edge(self, before: np.ndarray, after: np.ndarray) -> None:
        """Row `before[i]` must finish no later than row `after[i]` starts."""
        self._edges.append(np.stack(np.broadcast_arrays(before, after), axis=-1).reshape(-1, 2))

    def build(self) -> Rows:
        """All rows so far. Raises CompileError for an opcode that is no instruction."""
        columns = {name: np.full(self.count, -1, np.int64) for name in FIELDS}
        first = 0
        for size, given in self._parts:
            for name, array in given.items():
                columns[name][first : first + size] = array
            first += size
        for op in np.unique(columns["op"]).tolist():
            if op not in INSTRUCTIONS:
                remedy = "Give it a record with compiler.program.instruction_set.register."
                raise CompileError("lower", f"opcode {op}", "no instruction has this number", remedy)
        edges = np.concatenate([np.zeros((0, 2), np.int64), *self._edges])
        return Rows(edges=edges, **columns)


class Kernels:
    """The distinct kernels of the rows that are lowered together, numbered by first use."""

    def __init__(self) -> None:
        self.items: list[Kernel] = []
        self._index: dict[Kernel, int] = {}

    def index(self, kernel: Kernel) -> int:
        """The number that `aux` carries for this kernel."""
        if kernel not in self._index:
            self._index[kernel] = len(self.items)
            self.items.append(kernel)
        return self._index[kernel]

    def __getitem__(self, index: int) -> Kernel:
        return self.items[index]


class WeightArena:
    """Bump addresses of preloaded values, per rank, and the load table that names what lies there."""

    def __init__(self, ranks: int) -> None:
        self.words = np.zeros(ranks, np.int64)
        self.parts: list[dict[str, np.ndarray]] = []
        self.tensors: list[str] = []
        self.slots: list[tuple[int, int]] = []
        self.maps: list[np.ndarray] = []

    def slot(self, name: str, rows: np.ndarray | None, columns: np.ndarray | None) -> int:
        """A tensor of the block with its padded row and column maps."""
        self.tensors.append(name)
        self.slots.append((self._map(rows), self._map(columns)))
        return len(self.slots) - 1

    def _map(self, entries: np.ndarray | None) -> int:
        if entries is None:
            return -1
        for index, known in enumerate(self.maps):
            if np.array_equal(known, entries):
                return index
        self.maps.append(np.ascontiguousarray(entries, np.int64))
        return len(self.maps) - 1

    def load(self, rank: Any, words: Any, **fields: Any) -> np.ndarray:
        """Place values of `words` words each, in order, per rank; returns their space-coded addresses."""
        names = ("kind", "tensor", "k0", "n0", "lines", "tag")
        arrays = np.broadcast_arrays(
            np.asarray(rank, np.int64),
            np.asarray(words, np.int64),
            *[np.asarray(fields[f], np.int64) for f in names],
        )
        rank, words = arrays[0].reshape(-1), arrays[1].reshape(-1)
        order = np.argsort(rank, kind="stable")
        ends = np.cumsum(words[order])
        begins = ends - words[order]
        first = np.searchsorted(rank[order], np.arange(len(self.words)))
        offset = np.append(begins, ends[-1:] if len(ends) else 0)[first]
        address = np.empty_like(begins)
        address[order] = begins - offset[rank[order]] + self.words[rank[order]]
        np.add.at(self.words, rank, words)
        coded = address | (WEIGHTS << SPACE_SHIFT)
        part = {name: array.reshape(-1) for name, array in zip(names, arrays[2:], strict=True)}
        self.parts.append({"chip": rank, "addr": coded, "words": words, **part})
        return coded


def tag(uid: Any, line: Any) -> Any:
    """The tag of line `line` of the block's value `uid`."""
    return TAG.pack(uid, line)
