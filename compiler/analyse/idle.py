"""What a block takes without some of its slots for experts: the other rows, scheduled anew."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int

from compiler.analyse.dataflow import edges
from compiler.analyse.holds import holds, link_rows
from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.instructions.experts import SlotsKernel
from compiler.program.isa import DRAIN, LINK, MXM, TAG_SHIFT, VXM, Columns, Op, by_opcode, is_transfer
from compiler.program.manifest import Manifest
from compiler.schedule.improve import Jobs, improve
from compiler.schedule.list_schedule import RESOURCE

_UNITS = by_opcode([(op, record.unit) for op, record in INSTRUCTIONS.items()], 0)
_LINE = (1 << TAG_SHIFT) - 1


def idle_rows(
    columns: Columns, manifest: Manifest, taken: Mapping[SlotsKernel, int]
) -> Bool[np.ndarray, " rows"]:
    """The rows of slots from `taken` on, of each table: products, activations, transfers, fetches."""
    made, weighs = np.flatnonzero(columns.op == Op.SLOTS), np.flatnonzero(columns.op == Op.WGLU)
    most: dict[int, int] = {}
    for row in made.tolist():
        kernel = manifest.kernels[int(columns.aux[row])]
        assert isinstance(kernel, SlotsKernel)
        most[int(columns.dst_tag[row] >> TAG_SHIFT)] = taken[kernel]

    def beyond(tags: Int[np.ndarray, " some"]) -> Bool[np.ndarray, " some"]:
        limit = np.array([most[one] for one in (tags >> TAG_SHIFT).tolist()], np.int64)
        return (tags & _LINE) >= limit

    idle = weighs[beyond(columns.src2_tag[weighs])]
    fetched = np.flatnonzero(columns.op == Op.FETCHX)
    values = np.unique(np.concatenate([columns.src_tag[idle], columns.dst_tag[idle]]) >> TAG_SHIFT)
    out = np.isin(columns.dst_tag >> TAG_SHIFT, values) | np.isin(columns.src_tag >> TAG_SHIFT, values)
    out[fetched] = beyond(columns.src_tag[fetched])
    return out


def cycles_of(columns: Columns, manifest: Manifest, given: int, keep: Bool[np.ndarray, " rows"]) -> int:
    """The cycles of a block with the rows that `keep` names alone; its units and lanes are as they were."""
    pairs = edges(columns, manifest.kernels, manifest.chip.planes, given)
    number = np.cumsum(keep) - 1
    pairs = number[pairs[keep[pairs].all(axis=1)]]
    hold, latency = holds(columns, manifest)[keep], (columns.t1 - columns.t0)[keep]
    some = columns.take(keep)
    transfer = is_transfer(some.op)
    jobs = Jobs(
        edges=pairs,
        resource=(resource := _resources(some, manifest)),
        hold=hold,
        latency=latency,
        width=np.where(transfer, some.aux, 1),
        free=_free(some, resource, manifest),
    )
    first = jobs.forwards(np.arange(len(some)))
    return jobs.cycles(improve(jobs, first, lambda _: True)[0])


def _resources(some: Columns, manifest: Manifest) -> Int[np.ndarray, " rows"]:
    unit = _UNITS[some.op]
    pin = np.select(
        [unit == LINK, unit == MXM, unit == DRAIN],
        [some.peer, some.unit, some.unit - manifest.chip.planes],
        0,
    )
    return RESOURCE.pack(some.chip, unit, pin)


def _free(some: Columns, resource: Int[np.ndarray, " rows"], manifest: Manifest) -> dict[int, int]:
    """Of each resource a bit for each instance: chains of a chip, lanes of a link, else one."""
    names, first = np.unique(resource, return_index=True)
    links = link_rows(manifest, some.chip[first], some.peer[first])
    lanes, unit = manifest.link_table()[:, 2], _UNITS[some.op[first]]
    count = np.where(unit == VXM, manifest.chip.vxm_chains, 1)
    count = np.where(unit == LINK, lanes[np.maximum(links, 0)] if len(lanes) else 1, count)
    return {name: (1 << many) - 1 for name, many in zip(names.tolist(), count.tolist(), strict=True)}
