"""Products with tiles that lie in DDR5: each is fetched for its slot, a few at a time on each lane.

Which tile a slot takes is known when the router has chosen, and a choice may want one of DDR5 for every slot:
so the tiles of all slots come in every step, one after another in the order of their products. A copy gives
its room to the one that comes `COPIES` later.
"""

from dataclasses import replace

import numpy as np

from compiler.lower.context import Lowering
from compiler.lower.layout import Lines
from compiler.lower.ops.expert_tables import Table
from compiler.program.instructions.cold import ColdTileKernel, copy_lines
from compiler.program.isa import Op

COPIES = 4  # of tiles on a chip at a time: those that come in beside one that is multiplied


def cold_products(
    low: Lowering, table: Table, slot: np.ndarray, of: dict[str, np.ndarray], address: np.ndarray
) -> np.ndarray:
    """Rows that multiply tiles of slots, in the order in which the lanes bring them; `of`: their fields.

    address: of the places of the tiles in DDR5.
    """
    places = {"src3": address, "src3_tag": of["src3_tag"]}
    copies, fetches = np.empty_like(slot), np.empty_like(slot)
    rank, aux = of["rank"], of["aux"]
    turn = _turns(rank)
    before: dict[bytes, Lines] = {}
    for at in range(int(turn.max(initial=-1)) + 1):
        mine = np.flatnonzero(turn == at)
        copy = _copy(low, rank[mine], aux[mine], before)
        if at >= COPIES:
            low.passing.add(copy.uid)
        copies[mine] = copy.tag(copy.first)
        fetches[mine] = low.rows.add(
            Op.FETCHX,
            rank=rank[mine],
            n=of["n"][mine],
            aux=aux[mine],
            src_tag=table.lines.tag(slot[mine]),
            dst_tag=copies[mine],
            **{name: value[mine] for name, value in places.items()},
        )
    products = low.rows.add(Op.XMF, src2_tag=copies, src3=address, **of)
    _in_turn(low, rank, fetches, products)
    return products


def _turns(rank: np.ndarray) -> np.ndarray:
    """The place of each among those of its rank."""
    order = np.argsort(rank, kind="stable")
    turn = np.empty_like(rank)
    turn[order] = np.arange(len(rank)) - np.searchsorted(rank[order], rank[order])
    return turn


def _copy(low: Lowering, rank: np.ndarray, aux: np.ndarray, before: dict[bytes, Lines]) -> Lines:
    """Room for a tile on each of these ranks; values of one shape share their arrays."""
    kernels = [low.kernels[one] for one in aux.tolist()]
    count = np.array([copy_lines(one) for one in kernels if isinstance(one, ColdTileKernel)])
    key = np.stack([rank, count]).tobytes()
    if key in before:
        copy = replace(before[key], uid=low.uids)
        low.uids += 1
        low.values.append(copy)
        return copy
    first = np.cumsum(count) - count
    before[key] = low.value("bare", np.repeat(rank, count), first=first, count=count)
    return before[key]


def _in_turn(low: Lowering, rank: np.ndarray, fetches: np.ndarray, products: np.ndarray) -> None:
    """A tile comes when the one that lay in its room has been multiplied."""
    for one, *rows in zip(rank.tolist(), fetches.tolist(), products.tolist(), strict=True):
        low.lanes.setdefault(one, []).append((rows[0], rows[1]))
    new = np.bincount(rank)
    edges = [
        (low.lanes[one][i - COPIES][1], low.lanes[one][i][0])
        for one in np.flatnonzero(new).tolist()
        for i in range(max(len(low.lanes[one]) - int(new[one]), COPIES), len(low.lanes[one]))
    ]
    if edges:
        low.rows.edge(*np.array(edges).T)
