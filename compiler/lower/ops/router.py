"""Lowering of a router: its product with fp16 weights, and what each expert counts, both on every rank.

Every rank computes the same, so nothing is exchanged, and each knows which experts the step takes.
"""

from functools import partial

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import in_natural_order
from compiler.lower.rows import tag
from compiler.lower.rule import LoweringRule
from compiler.program.instructions.experts import HALF_TILE_WORDS, HalfKernel, RankKernel, ShareKernel
from compiler.program.isa import F32_LANES, SCALE, TILE16, TILE_ROWS, Op, ceil_div
from models.contract.vocabulary.route import named
from models.routing import Routing


def lower_matmul16(low: Lowering, node: Node) -> None:
    """An MM16 row for each line of columns."""
    source, _ = low.lines(node.inputs[0], node)
    total, ranks = node.inputs[0].width, low.group.ranks
    width = low.graph.values[node.outputs[0]].shape[-1]
    if source.dtype != "f16":
        raise CompileError(
            "lower",
            f"{node.path}: matmul16 ({node.source})",
            f"its {total} input columns are {source.dtype}, must be fp16",
            "Let a router read what prescale returns.",
        )
    if not source.held[:ranks].all():  # taken from host lanes, a line by a chip
        low.gather(source, np.ones((ranks, source.lines), bool))
    lines, tiles = int(ceil_div(width, F32_LANES)), int(ceil_div(source.lines, 2))
    columns = np.arange(lines * F32_LANES)
    columns = np.where(columns < width, columns, -1)
    line = np.arange(lines)
    out = low.value("f32", np.zeros(lines, np.int64), columns, first=line, count=np.ones_like(line))
    out.held[:ranks] = True
    rows = np.full(tiles * TILE_ROWS, -1)
    rows[: len(source.columns)] = source.columns
    rank, at = np.divmod(np.arange(ranks * lines), lines)
    weights = low.weight_uid()
    tile = np.tile(np.arange(tiles), len(rank))
    address = low.weights.load(
        np.repeat(rank, tiles),
        HALF_TILE_WORDS,
        kind=TILE16,
        tensor=low.slot(node.inputs[1].value, rows, columns),
        k0=tile * TILE_ROWS,
        n0=np.repeat(at, tiles) * F32_LANES,
        lines=1,
        tag=tag(weights, np.repeat(at, tiles) * tiles + tile),
    )
    low.rows.add(
        Op.MM16,
        rank=rank,
        pin=at % low.chip.planes,
        n=1,
        aux=low.kernels.index(HalfKernel(k_lines=source.lines)),
        src_tag=source.tag(0),
        src2=address[::tiles],
        src2_tag=tag(weights, at * tiles),
        dst_tag=out.tag(at),
    )
    in_natural_order(low, node.outputs[0], out, width)


def lower_route(low: Lowering, node: Node) -> None:
    """A RANK row for each line of experts, and a SHARE row."""
    logits, _ = low.lines(node.inputs[0], node)
    operands = named(node.inputs, node.attributes.get("normed", True))
    statistic = None if operands.statistic is None else low.lines(operands.statistic, node)[0]
    columns_of_router, ranks, lines = node.inputs[0].width, low.group.ranks, logits.lines
    line, count = np.arange(lines), np.full(lines, 2)
    ranked = low.value("f32", np.zeros(2 * lines, np.int64), first=2 * line, count=count)
    ranked.held[:ranks] = True
    rank, at = np.divmod(np.arange(ranks * lines), lines)
    uid, routing = low.weight_uid(), node.attributes["routing"]
    vectors = np.array([low.slot(one.value, None, logits.columns) for one in operands[2:] if one is not None])
    words = lines * len(vectors)
    word = np.tile(np.arange(words), ranks)
    scales = low.weights.load(
        np.repeat(np.arange(ranks), words),
        1,
        kind=SCALE,
        tensor=vectors[word // lines],
        k0=0,
        n0=word % lines * F32_LANES,
        lines=1,
        tag=tag(uid, word),
    )
    biased = len(vectors) > 1
    ranked_as = partial(rank_kernel, routing, columns_of_router, biased=biased, normed=statistic is not None)
    kernels = [low.kernels.index(ranked_as(first)) for first in range(lines)]
    low.rows.add(
        Op.RANK,
        rank=rank,
        n=1,
        aux=np.array(kernels)[at],
        src_tag=logits.tag(0),
        src2_tag=-1 if statistic is None else statistic.tag(0),
        src3=scales[rank * words],
        src3_tag=tag(uid, 0),
        dst_tag=ranked.tag(2 * at),
    )
    every = low.graph.values[node.outputs[0]].shape[-1]
    shares = int(ceil_div(every, F32_LANES))
    columns = np.arange(shares * F32_LANES)
    columns = np.where(columns < every, columns, -1)
    out = low.value(
        "f32", np.zeros(shares, np.int64), columns, first=np.zeros(1, np.int64), count=np.array([shares])
    )
    out.held[:ranks] = True
    kernel = ShareKernel(
        experts=columns_of_router,
        renormalise=routing.renormalise,
        shared=routing.shared,
        gated=routing.gated,
        scores=routing.score == "sigmoid",
        scale=routing.scale,
    )
    low.rows.add(
        Op.SHARE,
        rank=np.arange(ranks),
        n=shares,
        aux=low.kernels.index(kernel),
        src_tag=ranked.tag(0),
        dst_tag=out.tag(0),
    )
    in_natural_order(low, node.outputs[0], out, every)


def rank_kernel(routing: Routing, columns: int, first: int, biased: bool, normed: bool = True) -> RankKernel:
    """The kernel that ranks the line `first` of this many columns; sigmoids have a bias, others may."""
    return RankKernel(
        experts=columns,
        gated=routing.gated,
        chosen=routing.chosen,
        first=first,
        sigmoid=routing.score == "sigmoid",
        groups=routing.groups,
        keep=routing.keep,
        biased=biased and routing.score == "softmax",
        normed=normed,
    )


MATMUL16 = LoweringRule(op="matmul16", lower=lower_matmul16, everywhere=True)
ROUTE = LoweringRule(op="route", lower=lower_route, everywhere=True, shares=True)
