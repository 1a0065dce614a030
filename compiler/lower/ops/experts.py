"""Lowering of experts: each is cut over ranks of the group, a slot is one that the rows chose.

Gate and up of a slot lie in pairs of 40 columns in one line, up without a gate in 80; each rank has those
columns of the hidden vector whose rows of the down projection it multiplies. All slots add into the same
sums. Where slices of all ranks are too thin, gate and up of an expert are cut over a share of them:
`compiler.lower.ops.expert_tables`.
"""

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node
from compiler.lower.collective import scale_words
from compiler.lower.context import Lowering
from compiler.lower.layout import Lines, spans_of
from compiler.lower.ops.chains import column_tiles, drain_kernels, emptied_by, even_turns, turns
from compiler.lower.ops.cold import cold_products
from compiler.lower.ops.dealt import RowTiles, Way, row_tiles
from compiler.lower.ops.expert_biases import biases_of
from compiler.lower.ops.expert_tables import MOST_OF_SRAM, Table, operands_of, owners, reading, tables_of
from compiler.lower.ops.parted import lower_dealt
from compiler.lower.rows import tag
from compiler.lower.rule import LoweringRule
from compiler.program.instructions.experts import WeightedGluKernel
from compiler.program.isa import COLD, F16_LANES, F32_LANES, PAIRS, STACK, TILE_ROWS, Op, ceil_div
from compiler.program.ranges import ramp
from models.contract.experts.slots import slots_of


def lower_experts(low: Lowering, node: Node) -> None:
    """Slots, gate and up of each, the weighted activation, and one sum over the down projections of all."""
    source, _ = low.lines(operands_of(node).a, node)
    readers = reading(low, node)
    if source.dtype == "f16":
        low.gather(source, np.repeat(readers[:, None], source.lines, axis=1))
    if source.dtype != "f16" or not source.held[: low.group.ranks][readers].all():
        raise CompileError(
            "lower",
            f"{node.path}: experts ({node.source})",
            f"its {source.lines} input lines are not fp16 on all of {low.group.ranks} chips",
            "Let experts read what prescale returns.",
        )
    starts = node.attributes["starts"]
    tables = tables_of(low, node, int(ceil_div(source.lines, TILE_ROWS // F16_LANES)))
    hidden = [_hidden(low, node, source, table, starts) for table in tables]
    tiles = row_tiles(hidden[0][0], starts)

    def multiply(way: Way, out: Lines, written: np.ndarray) -> None:
        _down(low, node, hidden, tables, tiles, way, out, written)

    lower_dealt(low, node, [one for some in hidden for one in some], tiles, multiply, spread=True)


def _hidden(low: Lowering, node: Node, source: Lines, table: Table, starts: tuple[int, ...]) -> list[Lines]:
    """The weighted activations of each slot, where the rows of the down projection are that meet them."""
    width, counted = starts[-1], table.count if operands_of(node).biases is not None else 0
    kernel = WeightedGluKernel(activation=node.attributes["activation"], biases=counted)
    spans = spans_of(width, kernel.columns, starts)
    owner = table.rank + owners(spans, starts, table.ranks)
    part = np.searchsorted(starts, spans[:, 0], side="right") - 1
    lane = np.arange(kernel.columns)
    gate = np.where(lane < spans[:, 1:], spans[:, :1] + lane, -1)
    ways = range(F32_LANES // kernel.columns)  # the gate and up, or up
    both = np.concatenate([np.where(gate < 0, -1, gate + width * way) for way in ways], axis=1).reshape(-1)
    planes = low.chip.planes
    if table.ranks == low.group.ranks:
        # By the slots of a decode step, so that a chunk finds the same tiles.
        decoding = slots_of(operands_of(node).weights.width, node.attributes["chosen"], low.cached)
        planes = int(ceil_div(planes, decoding))
    first, count = column_tiles(low, owner, planes)
    run = np.flatnonzero((np.diff(owner, prepend=-1) != 0) | (np.diff(part, prepend=-1) != 0))
    size = np.diff(np.append(run, len(owner)))  # f32 lines of each run of one part on one rank
    halves = ceil_div(size * kernel.columns, F16_LANES)
    begin = np.cumsum(halves) - halves
    columns = np.full((int(halves.sum()), F16_LANES), -1)
    for at, lines, half in zip(run, size, begin, strict=True):
        real = gate[at : at + lines].reshape(-1)
        columns[half:].reshape(-1)[: len(real)] = real
    sums = _gate_up(low, node, source, table, (owner, both, first, count))
    biases = biases_of(low, node, (table.first, table.count), owner, both, run)
    glu = low.kernels.index(kernel)
    out: list[Lines] = []
    for slot, value in enumerate(sums):
        hidden = low.value(
            "f16", np.repeat(owner[run], halves), columns.reshape(-1), first=begin, count=halves
        )
        low.rows.add(
            Op.WGLU,
            rank=owner[run],
            n=size,
            aux=glu,
            src_tag=value.tag(run),
            src2_tag=table.lines.tag(slot),
            dst_tag=hidden.tag(begin),
            **biases,
        )
        out.append(hidden)
    return out


def _gate_up(
    low: Lowering,
    node: Node,
    source: Lines,
    table: Table,
    laid: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> list[Lines]:
    """Gate and up of each slot. laid: owner by line, column by lane, first line and lines of each tile."""
    owner, columns, first, count = laid
    rank, chunk, k_tiles = owner[first], np.arange(len(first)), int(ceil_div(source.lines, 2))
    rows = np.full(k_tiles * TILE_ROWS, -1)
    rows[: len(source.columns)] = source.columns
    which, k = np.divmod(np.arange(len(first) * k_tiles), k_tiles)  # column tile and k tile of each product
    tags = tag(low.weight_uid(), k * len(owner) + first[which])
    address = low.weights.load(
        rank[which],
        table.count * (1 if table.cold else F32_LANES * count[which]),
        kind=COLD if table.cold else STACK,
        tensor=table.stack(low, operands_of(node).gate_up.value, rows, columns),
        k0=k * TILE_ROWS,
        n0=first[which] * F32_LANES,
        lines=count[which],
        tag=tags,
    )
    lines = np.minimum(2, source.lines - 2 * k)
    kernels = table.fetched(low, lines, count[which]) if table.cold else table.kernels(low, lines)
    normed = operands_of(node).statistic
    statistic = -1 if normed is None else low.lines(normed, node)[0].tag(0)
    scales = np.full(len(owner), low.slot(operands_of(node).gate_up_scale.value, None, columns))
    words: tuple[np.ndarray, np.ndarray] | None = None
    out: list[Lines] = []
    load = np.zeros((low.group.ranks, low.chip.planes), np.int64)
    for slot, expert in enumerate(table.experts.tolist()):
        value = low.value("f32", owner, columns, first=first, count=count)
        words = words or scale_words(low, value, rank, chunk, scales)
        place = even_turns(low, rank, count, load) % low.drains.shape[1]
        plane, accumulator = place % low.chip.planes, place // low.chip.planes
        of = {
            "rank": rank[which],
            "pin": plane[which],
            "n": count[which],
            "aux": kernels if table.cold else kernels[slot, lines],
            "dst": accumulator[which],
            "src_tag": source.tag(2 * k),
            "src3_tag": tags,
            "dst_tag": value.tag(first[which]),
        }
        if table.cold:
            products = cold_products(low, table, np.full(len(which), slot), of, address)
        else:
            named = table.lines.tag(slot) if expert < 0 else -1
            products = low.rows.add(Op.XMM, src2_tag=named, src3=address, **of)
        last = low.rows.add(
            Op.WB,
            rank=rank,
            pin=plane,
            n=count,
            aux=drain_kernels(low, np.full(len(first), k_tiles), wide=False, normed=normed is not None),
            src_tag=statistic,
            src2=words[0],
            src2_tag=words[1],
            src3=accumulator,
            src3_tag=value.tag(first),
            dst_tag=value.tag(first),
        )
        _in_order(low, products, last, which, (rank, place))
        out.append(value)
    return out


def _in_order(
    low: Lowering,
    products: np.ndarray,
    last: np.ndarray,
    chain: np.ndarray,
    where: tuple[np.ndarray, np.ndarray],
) -> None:
    """Products before the write-back of their chain, and after the one that empties their accumulator."""
    low.rows.edge(products, last[chain])
    earlier = emptied_by(low, *where, last)[chain]
    reused = earlier >= 0
    low.rows.edge(earlier[reused], products[reused])


def _down(
    low: Lowering,
    node: Node,
    hidden: list[list[Lines]],
    tables: list[Table],
    tiles: RowTiles,
    way: Way,
    out: Lines,
    written: np.ndarray,
) -> None:
    """Products of all slots in one chain for each part and column tile, written back to `written`."""
    parts = len(tiles.begin)
    chunk, part = np.divmod(np.arange(len(way.tile_first) * parts), parts)
    rank, written = way.rank.reshape(-1), written.reshape(-1)
    place = turns(low, rank) % low.drains.shape[1]
    plane, accumulator = place % low.chip.planes, place // low.chip.planes
    chain = np.repeat(np.arange(len(chunk)), tiles.count[part])
    k = tiles.begin[part[chain]] + ramp(tiles.count[part])
    width, first = way.tile_count[chunk[chain]], way.tile_first[chunk[chain]]
    stacks = [
        _down_stack(low, node, hidden[i][0], table, tiles, out, (rank[chain], part[chain], k, width, first))
        for i, table in enumerate(tables)
    ]
    names = np.array([low.weight_uid() for _ in range(parts)])[part]
    sums = tag(names, way.tile_first[chunk])
    products: list[np.ndarray] = []
    of_chain: list[np.ndarray] = []
    where = {"rank": rank[chain], "pin": plane[chain], "n": width, "dst": accumulator[chain]}
    where["dst_tag"] = sums[chain]
    for table, values, (address, tags, paired) in zip(tables, hidden, stacks, strict=True):
        of = where | {"src3_tag": tags}
        if table.cold:  # all slots of a chain before the next, which may take its accumulator
            each, slot = np.divmod(np.arange(len(chain) * len(values)), len(values))
            sources = np.stack([value.tag(tiles.line[k]) for value in values], axis=-1)
            of |= {"src_tag": sources, "aux": table.fetched(low, tiles.lines[k], width)}
            of = {name: column.reshape(len(chain), -1) for name, column in of.items()}
            spread = {name: np.broadcast_to(one, sources.shape).reshape(-1) for name, one in of.items()}
            products.append(cold_products(low, table, slot, spread, address[each]))
            of_chain.append(chain[each])
            continue
        kernels = table.kernels(low, tiles.lines, paired=paired)
        for slot, expert in enumerate(table.experts.tolist()):
            of |= {"aux": kernels[slot, tiles.lines[k]], "src_tag": values[slot].tag(tiles.line[k])}
            named = table.lines.tag(slot) if expert < 0 else -1
            products.append(low.rows.add(Op.XMM, src2_tag=named, src3=address, **of))
            of_chain.append(chain)
    scales = np.full(out.lines, low.slot(operands_of(node).down_scale.value, None, out.columns))
    words, names_of_words = scale_words(low, out, rank, chunk, scales)
    last = low.rows.add(
        Op.WB,
        rank=rank,
        pin=plane,
        n=way.tile_count[chunk],
        aux=drain_kernels(
            low, sum(map(len, hidden)) * tiles.count[part], wide=False, normed=False, part=True
        ),
        src2=words,
        src2_tag=names_of_words,
        src3=accumulator,
        src3_tag=sums,
        dst_tag=written,
    )
    _in_order(low, np.concatenate(products), last, np.concatenate(of_chain), (rank, place))


def _down_stack(
    low: Lowering,
    node: Node,
    source: Lines,
    table: Table,
    tiles: RowTiles,
    out: Lines,
    of: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, bool]:
    """(addresses, tags) of a table's down projections, and whether tiles of a line are halves.

    of: rank, part, k tile, lines, first line of each.
    """
    rank, part, k, width, first = of
    starts, parts = node.attributes["starts"], np.arange(len(tiles.begin))
    real = np.searchsorted(starts, source.columns, side="right") - 1
    codes = np.array(
        [
            table.stack(
                low, operands_of(node).down.value, np.where(real == one, source.columns, -1), out.columns
            )
            for one in parts
        ]
    )
    uids = np.array([low.weight_uid() for _ in parts])
    tags = tag(uids[part], k * out.lines + first)
    whole = F32_LANES * table.count * width
    half = (tiles.lines[k] == 1) & (not table.cold and _in_halves(low, table.count, rank, whole))
    address = low.weights.load(
        rank,
        table.count if table.cold else np.where(half, whole // 2, whole),
        kind=COLD if table.cold else np.where(half, PAIRS, STACK),
        tensor=codes[part],
        k0=tiles.line[k] * F16_LANES,
        n0=first * F32_LANES,
        lines=width,
        tag=tags,
    )
    return address, tags, bool(half.any())


def _in_halves(low: Lowering, experts: int, rank: np.ndarray, words: np.ndarray) -> bool:
    """Whether tiles of a single line share their words by two experts: where whole ones leave no room."""
    part, of = MOST_OF_SRAM
    full = low.weights.words + np.bincount(rank, words, len(low.weights.words))
    return experts % 2 == 0 and bool(full.max() * of > low.chip.sram_words * part)


RULE = LoweringRule(op="experts", lower=lower_experts, everywhere=True, active=reading)
