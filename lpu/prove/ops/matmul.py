"""Products: a tile adds some rows of some columns; exact sums add up in any order until they are rounded."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from compiler.program.instructions.matmul import WIDE_PER_F32, WriteBackKernel, in_tree
from compiler.program.isa import SCALE, TILE_ROWS, Holds, Op
from lpu.prove.known import Known
from lpu.prove.lines import PRODUCT, HalfRun, Partial, Preload, Product, StackRun, TileRun, TreeNode, Vector
from lpu.prove.ops.taken import of_kind, of_tensor, vectors
from lpu.prove.refused import RefusedError, need
from lpu.prove.rule import Proved, RowOperands


def _mm(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lane k of the input meets row k of the tiles, or no weight."""
    value, lanes = vectors(known, row.src, Holds.F16, "its input")
    tiles = row.preloads
    if not isinstance(tiles, TileRun) or len(tiles.tiles) != row.n:
        raise RefusedError(f"reads no {row.n} tiles side by side")
    ks, width = known.lanes.joined(lanes, TILE_ROWS), known.terms.width(value)
    for codes, _ in tiles.tiles:
        depth = known.terms.shape(codes)[0]
        if depth != width:
            raise RefusedError(f"{known.show(codes)} has {depth} rows, its input {width} lanes")
    if not known.lanes.within(tiles.rows, ks):
        raise RefusedError(f"rows of {known.show(tiles.tiles[0][0])} meet other lanes of {known.show(value)}")
    return (Product(PRODUCT, value, tiles.tiles, tiles.rows),)


@dataclass(frozen=True, slots=True)
class _Sum:
    """One line of a sum: some columns of a matrix times a value, over sets of rows."""

    value: int
    codes: int
    columns: int
    ks: tuple[int, ...]


def scale_of(known: Known, codes: int, columns: int, scale: Preload) -> int:
    """The scales of these columns of a matrix."""
    name = known.show(codes)
    tensor, (have_columns,) = of_tensor(known, (scale,), SCALE, 1)
    need(have_columns == columns, f"{known.show(tensor)} lies at other columns than {name}")
    wide, have = known.terms.width(codes), known.terms.width(tensor)
    need(wide == have, f"{known.show(tensor)} has {have} scales for {wide} columns of {name}")
    return tensor


def _scale(known: Known, found: _Sum, scale: Preload) -> tuple[int, int]:
    """(scales of a sum's own columns, of how many heads they are: 1 of a plain matrix)."""
    name = known.show(found.codes)
    tensor, (columns,) = of_tensor(known, (scale,), SCALE, 1)
    need(columns == found.columns, f"{known.show(tensor)} lies at other columns than {name}")
    wide, have = known.terms.width(found.codes), known.terms.width(tensor)
    need(have % wide == 0, f"{known.show(tensor)} has {have} scales for {wide} columns of {name}")
    return tensor, have // wide


def _of_head(known: Known, found: _Sum, heads: int) -> None:
    """The columns of a line are all of one head, and the sum takes each row of its matrix once."""
    name, wide = known.show(found.codes), known.terms.width(found.codes)
    depth = known.terms.shape(found.codes)[0] // heads
    head = known.lanes.group(found.columns, wide)
    rows = known.lanes.span(found.ks)
    need(
        rows == (head * depth, (head + 1) * depth),
        f"columns of head {head} of {name} are summed over rows {rows[0]} .. {rows[1] - 1}",
    )


def _rounded(known: Known, found: _Sum, scale: Preload, normed: int) -> Vector:
    """A finished sum: every row of the matrix once, its columns' own scales, a statistic if there is one."""
    depth = known.terms.shape(found.codes)[0]
    name = known.show(found.codes)
    tensor, heads = _scale(known, found, scale)
    if heads > 1:
        need(normed < 0, "applies a statistic to a product by heads")
        _of_head(known, found, heads)
        made = known.terms.head_matmul(found.value, found.codes, tensor)
        return Vector(Holds.F32, made, found.columns)
    whole = known.lanes.cover_once(found.ks, depth)
    need(whole, f"the sum does not take each of the {depth} rows of {name} once")
    return Vector(Holds.F32, known.terms.matmul(found.value, found.codes, tensor, normed), found.columns)


def _leaf(known: Known, found: _Sum, scale: Preload) -> TreeNode:
    """A contract part: consecutive rows, each once."""
    tensor, heads = _scale(known, found, scale)
    need(heads == 1, f"{known.show(found.codes)} is of {heads} heads, a contract part of one matrix")
    span = known.lanes.span(found.ks)
    return TreeNode(Holds.NODE, found.value, found.codes, tensor, found.columns, span)


def _tree(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Neighbouring nodes of the contract's tree, added as it says; with all of them the product."""
    of_kind(row.src, Holds.NODE, "its operand")
    sizes = row.kernel.sizes
    need(len(row.src) == row.n * len(sizes), "its operand has another number of lines")
    need(sum(sizes) == row.kernel.leaves, f"its nodes begin at no {row.kernel.leaves} leaves")
    ends = list(accumulate(sizes))
    for end, size in zip(ends, sizes, strict=True):
        need(
            in_tree(end - size, size, row.kernel.leaves),
            f"parts {end - size} .. {end - 1} are no node of the tree",
        )
    return tuple(
        _joined(known, row, [row.src[line + row.n * i] for i in range(len(sizes))]) for line in range(row.n)
    )


def _joined(known: Known, row: RowOperands, nodes: list[TreeNode]) -> Vector | TreeNode:
    first = nodes[0]
    starts = first.starts
    for node, size in zip(nodes, row.kernel.sizes, strict=True):
        need(
            node._replace(starts=()) == first._replace(starts=()), "adds parts of several products or columns"
        )
        need(len(node.starts) == size + 1, f"takes a node of {len(node.starts) - 1} parts for one of {size}")
        if node is not first:
            need(
                node.starts[0] == starts[-1],
                f"a part that begins at row {node.starts[0]} follows row {starts[-1]}",
            )
            starts += node.starts[1:]
    if not row.kernel.whole:
        return first._replace(starts=starts)
    depth = known.terms.shape(first.codes)[-2]
    need(starts[0] == 0 and starts[-1] == depth, f"its parts are rows {starts[0]} .. {starts[-1]} of {depth}")
    made = known.terms.matmul(first.value, first.codes, first.scale, -1, starts)
    return Vector(Holds.F32, made, first.columns)


def statistic(known: Known, row: RowOperands, lines: tuple[Any, ...]) -> int:
    """The term of the statistic that a row applies, -1 for none."""
    if not row.kernel.normed:
        return -1
    of_kind(lines, Holds.STAT, "its statistic")
    (one,) = lines
    need(one.gain >= 0, "its statistic is not for products of a shifted gain")
    return known.terms.rms_stat(one.value, one.gain, one.eps)


def scales_read(row: RowOperands) -> tuple[Preload, ...]:
    """The words of scales that a row reads, one for each of its lines."""
    if isinstance(row.preloads, TileRun | StackRun | HalfRun) or len(row.preloads) != row.n:
        raise RefusedError(f"reads no {row.n} scales")
    return row.preloads


def _left(known: Known, row: RowOperands, sums: list[_Sum], normed: int) -> tuple[Any, ...]:
    """The sums as wide partials, or rounded."""
    part = isinstance(row.kernel, WriteBackKernel) and row.kernel.part
    if row.kernel.wide:
        need(not part, "leaves a contract part wide")
        need(normed < 0, "applies a statistic to a partial sum")
        return tuple(
            Partial(Holds.WIDE, one.value, one.codes, one.columns, one.ks, i)
            for one in sums
            for i in range(WIDE_PER_F32)
        )
    pairs = zip(sums, scales_read(row), strict=True)
    if part:
        need(normed < 0, "applies a statistic to a part of a sum")
        return tuple(_leaf(known, one, scale) for one, scale in pairs)
    return tuple(_rounded(known, one, scale, normed) for one, scale in pairs)


def write_back(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """What the tiles of an accumulator add up to, as it is or rounded."""
    count = len(row.products)
    says = row.kernel.products
    need(count > 0 and count == says, f"finds {count} products in its accumulator, says {says}")
    first = row.products[0]
    need(len(first.tiles) == row.n, f"reads {row.n} lines where a product has {len(first.tiles)}")
    for one in row.products:
        if one.value != first.value or one.tiles != first.tiles:
            raise RefusedError("its accumulator holds products of several matrices, inputs or columns")
    ks = tuple(sorted(one.ks for one in row.products))
    sums = [_Sum(first.value, codes, columns, ks) for codes, columns in first.tiles]
    return _left(known, row, sums, statistic(known, row, row.src))


def _red(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Partials of the same columns added up, as they are or rounded; one that comes twice counts twice."""
    of_kind(row.src, Holds.WIDE, "its operand")
    need(len(row.src) == WIDE_PER_F32 * row.n * row.kernel.parts, "its operand has another number of lines")
    parts = row.kernel.parts
    sums: list[_Sum] = []
    for line in range(row.n):
        added = [row.src[WIDE_PER_F32 * (part * row.n + line) :][:WIDE_PER_F32] for part in range(parts)]
        first = added[0][0]
        for quarters in added:
            whole = quarters[0]._replace(quarter=0)
            need(whole[:-2] == first[:-2], "adds partials of several matrices, inputs or columns")
            for i, one in enumerate(quarters):
                need(
                    one == whole._replace(quarter=i),
                    "reads a line whose quarters are not one result in order",
                )
        ks = tuple(sorted(k for quarters in added for k in quarters[0].ks))
        sums.append(_Sum(first.value, first.codes, first.columns, ks))
    return _left(known, row, sums, statistic(known, row, row.src2))


PROOF = (
    Proved(op=Op.MM, rule=_mm),
    Proved(op=Op.RED, rule=_red),
    Proved(op=Op.TREE, rule=_tree),
)
