"""Lowering of matmuls: tiles on MXM planes and write-backs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from compiler.errors import CompileError
from compiler.graph.graph import Node
from compiler.lower.collective import partials, reduce, scale_words, statistic
from compiler.lower.context import Lowering
from compiler.lower.layout import NO_RANK, Demand, Lines, lay
from compiler.lower.ops.chains import column_tiles, drain_kernels, emptied_by, turns
from compiler.lower.ops.parted import lower_parted
from compiler.lower.redundant import copied
from compiler.lower.rows import tag
from compiler.lower.rule import Handed, LoweringRule
from compiler.program.instructions.matmul import MatmulKernel
from compiler.program.isa import F32_LANES, TILE, TILE_ROWS, Op, ceil_div
from compiler.program.ranges import ramp


def lower_matmuls(low: Lowering, nodes: list[Node]) -> None:
    """The matmuls of one input together, so that q, k and v (or gate and up) fill tiles side by side."""
    source, _ = low.lines(nodes[0].inputs[0], nodes[0])
    if source.dtype != "f16":
        raise CompileError(
            "lower",
            f"{nodes[0].path}: matmul",
            f"its input is {source.dtype}, must be fp16",
            "Round it first (rms_norm, prescale, glu, attention and round16 return fp16).",
        )
    if any(node.attributes.get("starts") for node in nodes):
        lower_parted(low, nodes, source)
        return
    low.gather(source, low.group.needs(source.lines, low.multipliers(nodes[0].inputs[0].value)))
    copies = {node.index: copied(low, node, source) for node in nodes}
    if _idle(low, nodes, copies).any():
        copies = dict.fromkeys(copies)
    low.rows_dealt |= any(ranks is not None for ranks in copies.values())
    apart = [node for node in nodes if copies[node.index] is not None or _is_taken_whole(low, node)]
    others = [node for node in nodes if node not in apart]
    for together in (*([node] for node in apart), *([others] if others else [])):
        _side_by_side(low, together, source, copies[together[0].index])


def _idle(
    low: Lowering, nodes: list[Node], copies: Mapping[int, np.ndarray | None]
) -> Bool[np.ndarray, " ranks"]:
    """Ranks that have the input and would multiply nothing, as the others compute all that was theirs."""
    value = nodes[0].inputs[0].value
    out = low.multipliers(value)
    if low.demands.everywhere(value) or all(ranks is None for ranks in copies.values()):
        return np.zeros_like(out)
    for node in nodes:
        ranks = copies[node.index]
        for demand in low.demands.pieces(node.outputs[0]) if ranks is None else ():
            out[demand.owners(low.group.ranks)] = False
        if ranks is not None:
            out[ranks] = False
    return out


def _is_taken_whole(low: Lowering, node: Node) -> bool:
    """Whether a reader, a norm, takes all lines of the result's value together."""
    rule = low.demands.rule
    found = low.demands.readers(node.outputs[0])
    return any(rule(reader).handed(low.demands, reader) is Handed.WHOLE for reader, _ in found)


def _side_by_side(low: Lowering, nodes: list[Node], source: Lines, copies: np.ndarray | None) -> None:
    """The results of some matmuls as one value. copies: ranks that each compute all of it; None: dealt."""
    demands: list[tuple[Demand, int]] = []
    tensor: list[int] = []
    for which, node in enumerate(nodes):
        for demand in low.demands.pieces(node.outputs[0]):
            demands.append((demand, demand.view.start))
            tensor.append(which)
    owner, columns, segments, piece = lay(demands, "f32", low.group.ranks)
    owner = owner if copies is None else np.zeros_like(owner)
    chunks = column_tiles(low, owner, low.chip.planes)
    owner = owner if copies is None else np.full_like(owner, NO_RANK)
    out = low.value("f32", owner, columns, first=chunks[0], count=chunks[1])
    if copies is not None:
        out.held[copies] = True
    _multiply(low, nodes, source, out, np.array(tensor)[piece])
    for (demand, _), segment in zip(demands, segments, strict=True):
        low.where[demand.view] = (out, segment)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chains:
    """Products that share an accumulator: one chain per column tile and K part, int64 by chain.

    chunk: column tile (a range of `out.first`, `out.count`); part: K part; first, width: its lines; rank,
    place, plane, slot: where it accumulates; begin, length: its k tiles.
    """

    chunk: np.ndarray
    part: np.ndarray
    first: np.ndarray
    width: np.ndarray
    rank: np.ndarray
    place: np.ndarray
    plane: np.ndarray
    slot: np.ndarray
    begin: np.ndarray
    length: np.ndarray


def _chains(low: Lowering, source: Lines, out: Lines) -> _Chains:
    parts = low.group.k_parts
    begin, length = low.group.k_part(int(ceil_div(source.lines, 2)))
    chunk = np.repeat(np.arange(len(out.first)), parts)
    part = np.tile(np.arange(parts), len(out.first))
    live = length[part] > 0
    chunk, part = chunk[live], part[live]
    rank = out.owner[out.first[chunk]] // parts * parts + part
    if out.owner[0] == NO_RANK:
        copies = np.flatnonzero(out.held[: low.group.ranks, 0])
        rank = np.repeat(copies, len(chunk))
        chunk, part = (np.tile(one, len(copies)) for one in (chunk, part))
    first = out.first[chunk]
    place = turns(low, rank) % low.drains.shape[1]
    return _Chains(
        chunk=chunk,
        part=part,
        first=first,
        width=out.count[chunk],
        rank=rank,
        place=place,
        plane=place % low.chip.planes,
        slot=place // low.chip.planes,
        begin=begin[part],
        length=length[part],
    )


def _multiply(low: Lowering, nodes: list[Node], source: Lines, out: Lines, tensor: np.ndarray) -> None:
    """MM rows, k tile by k tile of each chain, and the write-backs that end the chains."""
    codes, scales = _slots(low, nodes, source, out, tensor)
    chains = _chains(low, source, out)
    chain = np.repeat(np.arange(len(chains.chunk)), chains.length)  # of each product
    k = chains.begin[chain] + ramp(chains.length)
    width, first, rank = chains.width[chain], chains.first[chain], chains.rank[chain]
    product = np.repeat(np.arange(len(chain)), width)  # of each preloaded line of a tile
    line = first[product] + ramp(width)
    uid = low.weight_uid()
    tags = tag(uid, k[product] * out.lines + line)
    address = low.weights.load(
        rank[product],
        F32_LANES,
        kind=TILE,
        tensor=codes[line],
        k0=k[product] * TILE_ROWS,
        n0=line * F32_LANES,
        lines=1,
        tag=tags,
    )
    begin = np.cumsum(width) - width
    k_lines = np.minimum(2, source.lines - 2 * k)
    aux = np.array([-1, *(low.kernels.index(MatmulKernel(k_lines=i)) for i in (1, 2))])[k_lines]
    products = low.rows.add(
        Op.MM,
        rank=rank,
        pin=chains.plane[chain],
        n=width,
        aux=aux,
        dst=chains.slot[chain],
        src_tag=source.tag(2 * k),
        src2=address[begin],
        src2_tag=tags[begin],
        dst_tag=out.tag(first),
    )
    last = _write_back(low, nodes, out, chains, scales)
    low.rows.edge(products, last[chain])
    earlier = emptied_by(low, chains.rank, chains.place, last)[chain]
    reused = earlier >= 0
    low.rows.edge(earlier[reused], products[reused])


def _slots(
    low: Lowering, nodes: list[Node], source: Lines, out: Lines, tensor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The code and scale slots of every output line: each matmul sees its own columns only."""
    rows = np.full(ceil_div(source.lines, 2) * TILE_ROWS, -1)
    rows[: len(source.columns)] = source.columns
    codes, scales = [], []
    for which, node in enumerate(nodes):
        columns = np.where(np.repeat(tensor, F32_LANES) == which, out.columns, -1)
        codes.append(low.slot(node.inputs[1].value, rows, columns))
        scales.append(low.slot(node.inputs[2].value, None, columns))
    return np.array(codes)[tensor], np.array(scales)[tensor]


def _write_back(
    low: Lowering, nodes: list[Node], out: Lines, chains: _Chains, scales: np.ndarray
) -> np.ndarray:
    """WB rows of the chains; with several K parts they leave wide partials that `collective` adds."""
    fields = {
        "rank": chains.rank,
        "pin": chains.plane,
        "n": chains.width,
        "src3": chains.slot,
        "src3_tag": out.tag(chains.first),
    }
    if low.group.k_parts == 1:
        address, tags = scale_words(low, out, chains.rank, chains.chunk, scales)
        normed = statistic(low, nodes)
        aux = drain_kernels(low, chains.length, wide=False, normed=normed >= 0)
        return low.rows.add(
            Op.WB,
            aux=aux,
            src_tag=normed,
            src2=address,
            src2_tag=tags,
            dst_tag=out.tag(chains.first),
            **fields,
        )
    live = np.unique(chains.part)
    made, place = partials(low, out, live)
    at = place[chains.chunk, np.searchsorted(live, chains.part)]
    begin = made.base[chains.chunk] + 4 * chains.width * at
    aux = drain_kernels(low, chains.length, wide=True, normed=False)
    wide = low.rows.add(Op.WB, aux=aux, dst_tag=made.value.tag(begin), **fields)
    reduce(low, nodes, out, made, scales)
    return wide


RULE = LoweringRule(op="matmul", joint=lower_matmuls)
SCALED = LoweringRule(
    op="matmul_scaled", joint=lower_matmuls
)  # what the scale words hold makes no difference
