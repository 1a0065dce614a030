"""The rows of a stage as a modulo scheduling problem: resources, holds, chains, and the bound they set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from compiler.lower.rows import Kernels, Rows
from compiler.program.instruction_set import INSTRUCTIONS, unit_classes
from compiler.program.isa import DRAIN, LINK, MXM, PRODUCTS, VXM, Kernel, Op, ceil_div
from compiler.program.packed import RANKS, alike, by_kind
from compiler.route.route import Router
from compiler.schedule.list_schedule import RESOURCE, Times, dependencies
from compiler.throughput.modulo import PlacedRows, Problem, Tiles
from compiler.timing import timing
from fabric.chip import ChipSpec

CLASS_NAMES = {MXM: "MXM planes", DRAIN: "drains", VXM: "VXM chains", LINK: "link lanes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Instances that are alike: the chains of a rank, one plane or drain of it, or the lanes to a peer."""

    kind: int
    rank: int
    pin: int
    peer: int
    instances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one wave asks of a class of units of a rank, or of a link: cycles of all its instances together.

    No interval is shorter than their quotient, whichever plane (drain, chain, lane) each row takes.
    """

    cycles: int
    instances: int
    kind: int
    rank: int
    peer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRows:
    """The rows of a stage, the problem of placing them, its resources, what a wave asks of each class.

    least: no interval is shorter with the planes that the rows have been given.
    """

    rows: Rows
    planes: int
    problem: Problem
    resources: tuple[Resource, ...]
    loads: tuple[Load, ...]
    least: int

    def times(self, placed: PlacedRows) -> tuple[Rows, Times]:
        """The rows on their accumulators, and when and where each runs."""
        kind = np.array([one.kind for one in self.resources], np.int64)[self.problem.resource]
        dst, src3 = self.rows.dst.copy(), self.rows.src3.copy()
        for tiles, slot in zip(self.problem.tiles, placed.accumulator, strict=True):
            dst[list(tiles.products)] = slot
            src3[tiles.drain] = slot
        unit = np.select(
            [kind == LINK, kind == MXM, kind == DRAIN],
            [-1, self.rows.pin, self.planes + self.rows.pin],
            2 * self.planes + placed.instance,
        )
        return replace(self.rows, dst=dst, src3=src3), Times(
            t0=placed.start,
            t1=placed.start + np.array(self.problem.latency, np.int64),
            unit=unit,
            lane=np.where(kind == LINK, placed.instance, -1),
            lanes=np.where(kind == LINK, np.array(self.problem.width, np.int64), -1),
        )


def stage_rows(rows: Rows, kernels: Kernels, router: Router, chip: ChipSpec, batch: int) -> StageRows:
    """Give chains and attention chunks their planes, evenly, and say what there is to place."""
    op = rows.op
    reused = (op[rows.edges[:, 0]] == Op.WB) & np.isin(op[rows.edges[:, 1]], PRODUCTS)
    rows = replace(rows, edges=rows.edges[~reused])  # accumulators are chosen as chains are placed
    hold, latency, width = _timed(rows, kernels, router, chip, batch)
    chain = np.full(len(rows), -1)
    closes = rows.edges[np.isin(op[rows.edges[:, 0]], PRODUCTS) & (op[rows.edges[:, 1]] == Op.WB)]
    chain[closes[:, 0]] = closes[:, 1]
    chain[closes[:, 1]] = closes[:, 1]
    rows = replace(rows, pin=_planes(rows, chain, hold, chip.planes))
    names, resource = _resources(rows)
    resources = tuple(_resource(int(name), router, chip) for name in names)
    edges = dependencies(rows, kernels)
    before: list[list[int]] = [[] for _ in range(len(rows))]
    after: list[list[int]] = [[] for _ in range(len(rows))]
    for one, other in edges.tolist():
        before[other].append(one)
        after[one].append(other)
    asked = np.bincount(resource, hold * width, len(names)).astype(np.int64).tolist()
    least = max(
        (int(ceil_div(cycles, one.instances)) for cycles, one in zip(asked, resources, strict=True)),
        default=0,
    )
    return StageRows(
        rows=rows,
        planes=chip.planes,
        problem=Problem(
            hold=hold.tolist(),
            latency=latency.tolist(),
            resource=resource.tolist(),
            width=width.tolist(),
            before=before,
            after=after,
            instances=[one.instances for one in resources],
            movable=[one.kind in (MXM, VXM) for one in resources],
            tiles=_tiles(rows, chain, chip.planes),
            places=chip.planes * (int(rows.rank.max(initial=0)) + 1),
            accumulators=chip.accumulators,
        ),
        resources=resources,
        loads=loads_of(rows, kernels, router, chip, batch),
        least=max(least, int(hold.max(initial=1))),
    )


def _timed(
    rows: Rows, kernels: Kernels | Sequence[Kernel], router: Router, chip: ChipSpec, batch: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(hold, latency, lanes) of every row.

    A transfer takes as many lanes as divide its link's, so that transfers pack, and waste the fewest slots.
    """
    hold, latency = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    width = np.ones(len(rows), np.int64)
    for op, aux, which in by_kind(rows.op, rows.aux):
        if INSTRUCTIONS[op].unit != LINK:
            hold[which], latency[which] = timing(op, rows.n[which], kernels[aux], chip, batch)
            continue
        for mine in (which[same] for same in alike(RANKS.pack(rows.rank[which], rows.peer[which]))):
            edge = router.link(int(rows.rank[mine[0]]), int(rows.peer[mine[0]]))
            words = rows.n[mine] * batch
            width[mine] = _lanes(words, edge.lanes)
            slots = ceil_div(words, width[mine])
            hold[mine] = slots * edge.slot_cycles
            forward = router.rack.forward_cycles if op == Op.FORWARD else 0
            latency[mine] = hold[mine] + edge.hop_cycles + forward
    return hold, latency, width


def _lanes(words: np.ndarray, lanes: int) -> np.ndarray:
    """Of the divisors of `lanes` the largest that leaves the fewest slots empty."""
    divisors = np.array([d for d in range(lanes, 0, -1) if lanes % d == 0])
    empty = ceil_div(words[:, None], divisors) * divisors - words[:, None]
    return divisors[np.argmin(empty, axis=1)]


def _planes(rows: Rows, chain: np.ndarray, hold: np.ndarray, planes: int) -> np.ndarray:
    """The plane of every MXM row and drain: the longest first, each to the plane that has least to do."""
    mxm = np.flatnonzero(unit_classes()[rows.op] == MXM)
    item = np.where(chain >= 0, chain, np.arange(len(rows)))
    size = np.bincount(item[mxm], hold[mxm], len(rows)).astype(np.int64)
    items = np.flatnonzero(size)
    items = items[np.lexsort((items, -size[items]))]
    load = [[0] * planes for _ in range(int(rows.rank.max(initial=0)) + 1)]
    plane = rows.pin.copy()
    for one, rank, cycles in zip(
        items.tolist(), rows.rank[items].tolist(), size[items].tolist(), strict=True
    ):
        best = min(range(planes), key=load[rank].__getitem__)
        load[rank][best] += cycles
        plane[one] = best
    return np.where(chain >= 0, plane[chain], plane)


def _resources(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """(resource names, resource of every row); a name is rank, class and plane or peer."""
    kinds = unit_classes()[rows.op]
    which = np.select([kinds == LINK, kinds == VXM], [rows.peer, 0], rows.pin)
    return np.unique(RESOURCE.pack(rows.rank, kinds, which), return_inverse=True)


def _resource(name: int, router: Router, chip: ChipSpec) -> Resource:
    rank, kind, which = RESOURCE.unpack(name)
    if kind == LINK:
        lanes = router.link(rank, which).lanes
        return Resource(kind=kind, rank=rank, pin=-1, peer=which, instances=lanes)
    count = chip.vxm_chains if kind == VXM else 1
    return Resource(kind=kind, rank=rank, pin=which, peer=-1, instances=count)


def _tiles(rows: Rows, chain: np.ndarray, planes: int) -> tuple[Tiles, ...]:
    products = np.flatnonzero((chain >= 0) & np.isin(rows.op, PRODUCTS))
    products = products[np.argsort(chain[products], kind="stable")]
    drains, first = np.unique(chain[products], return_index=True)
    parts = np.split(products, first[1:]) if len(products) else []
    return tuple(
        Tiles(
            products=tuple(part.tolist()),
            drain=int(drain),
            place=int(rows.rank[drain] * planes + rows.pin[drain]),
        )
        for drain, part in zip(drains, parts, strict=True)
    )


def loads_of(
    rows: Rows, kernels: Kernels | Sequence[Kernel], router: Router, chip: ChipSpec, batch: int
) -> tuple[Load, ...]:
    """What a wave asks of every class of units of a rank, and of every link, over all its instances."""
    hold, _, width = _timed(rows, kernels, router, chip, batch)
    names, resource = _resources(replace(rows, pin=np.zeros_like(rows.pin)))
    asked = np.bincount(resource, hold * width, len(names)).astype(np.int64).tolist()
    found = [_resource(int(name), router, chip) for name in names]
    return tuple(
        Load(
            cycles=cycles,
            instances=chip.planes if one.kind in (MXM, DRAIN) else one.instances,
            kind=one.kind,
            rank=one.rank,
            peer=one.peer,
        )
        for one, cycles in zip(found, asked, strict=True)
    )
