"""A step of a program as a Chrome/Perfetto trace: a process per chip, a thread per unit and per link lane."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compiler.analyse.holds import holds, is_transfer
from compiler.program.instruction_set import name_of
from compiler.program.program import Program
from lpu.outputs.ours import sealed_gzip, sealed_json, sealed_trace
from lpu.outputs.write import check_writable, write_file, write_json
from lpu.report.chips import Ranges, chosen_chips
from lpu.report.occupancy import call_of_rows
from lpu.report.perfetto import Power, encoded, timeline
from lpu.screen import plain

FIRST_LANE = 1000  # thread number of the first link lane; units come before
LANES = 128  # thread numbers set aside per link
PERFETTO, ZIPPED = (".pftrace", ".perfetto-trace", ".pb"), ".gz"
PS_PER_SECOND = 10**12
PS_PER_US = 10**6
Asked = Sequence[int] | Ranges


def trace(program: Program, context: int, chips: Asked | None = None) -> dict[str, Any]:
    """The trace as JSON values, equal for equal programs; `chips` are those of the first group if not given.

    `ts` and `dur` are microseconds, cut to whole picoseconds; `args` holds exact cycles.
    An event lasts as long as the unit or lane is held; its result is committed at `t1_cycle`.
    """
    manifest = program.manifest
    chosen = _chosen(program, chips)
    about = {"digest": manifest.digest, "rack": manifest.rack, "clock_hz": manifest.clock_hz}
    cycles = manifest.cycles[context]
    return {
        "displayTimeUnit": "ns",
        "otherData": {"schema": "lpu-trace/1", "context": context, "cycles": cycles, **about},
        "traceEvents": list(_events(program, context, chosen)),
    }


def write_trace(
    path: str | Path,
    program: Program,
    context: int,
    chips: Asked | None = None,
    powers: Callable[[Sequence[int]], Mapping[int, Power]] | None = None,
) -> None:
    """Write the trace, whole or not at all: Perfetto's own format in a file named `.pftrace`, else JSON.

    powers: of chips, for counters of Perfetto's format. Both are compressed where `.gz` follows.
    Raises FileError.
    """
    name = str(path)
    packed = name.endswith(ZIPPED)
    if name.removesuffix(ZIPPED).endswith(PERFETTO):
        check_writable(path)
        chosen = _chosen(program, chips)
        body = encoded(timeline(program, context, chosen, powers(chosen) if powers else None))
        write_file(path, sealed_gzip(body) if packed else sealed_trace(body))
    elif packed:
        write_file(path, sealed_gzip(sealed_json(trace(program, context, chips))))
    else:
        write_json(path, trace(program, context, chips))


def _chosen(program: Program, chips: Asked | None) -> list[int]:
    """The chips that are asked for, those of the first group if none are."""
    manifest = program.manifest
    return chosen_chips(manifest.groups[0] if chips is None else chips, manifest.chips, plain(manifest.rack))


def _events(program: Program, context: int, chips: list[int]) -> Iterator[dict[str, Any]]:
    """Names of processes and threads, then the events, by chip, thread and cycle."""
    manifest, columns = program.manifest, program.expand(context)
    rows = np.flatnonzero(np.isin(columns.chip, chips))
    hold = holds(columns, manifest)
    calls = call_of_rows(program, context)
    moved = is_transfer(columns.op)
    lanes = np.where(moved, columns.aux, 1)[rows]
    row = np.repeat(rows, lanes)
    lane = np.arange(len(row)) - np.repeat(np.cumsum(lanes) - lanes, lanes) + columns.lane[row]
    thread = np.where(moved[row], FIRST_LANE + columns.peer[row] * LANES + lane, columns.unit[row])
    order = np.lexsort((row, columns.t0[row], thread, columns.chip[row]))
    places = np.unique(np.stack([columns.chip[row], thread], axis=-1), axis=0).tolist()
    for chip in chips:
        yield {"name": "process_name", "ph": "M", "pid": chip, "args": {"name": f"chip {chip}"}}
    for chip, number in places:
        name = _thread_name(number, manifest.chip.planes, manifest.chip.vxm_chains)
        yield {"name": "thread_name", "ph": "M", "pid": chip, "tid": number, "args": {"name": name}}
        yield {
            "name": "thread_sort_index",
            "ph": "M",
            "pid": chip,
            "tid": number,
            "args": {"sort_index": number},
        }
    clock = manifest.clock_hz
    for at in order.tolist():
        i = int(row[at])
        start, end = int(columns.t0[i]), int(columns.t0[i] + hold[i])
        block = program.calls[int(calls[i])].name
        begin = _picoseconds(start, clock)
        yield {
            "name": f"{name_of(int(columns.op[i]))} {block}",
            "cat": block,
            "ph": "X",
            "pid": int(columns.chip[i]),
            "tid": int(thread[at]),
            "ts": begin / PS_PER_US,
            "dur": (_picoseconds(end, clock) - begin) / PS_PER_US,
            "args": {"row": i, "t0_cycle": start, "hold_cycles": end - start, "t1_cycle": int(columns.t1[i])},
        }


def _picoseconds(cycle: int, clock_hz: int) -> int:
    return cycle * PS_PER_SECOND // clock_hz


def _thread_name(number: int, planes: int, chains: int) -> str:
    if number >= FIRST_LANE:
        peer, lane = divmod(number - FIRST_LANE, LANES)
        return f"link to {peer} lane {lane}"
    if number < planes:
        return f"MXM plane {number}"
    if number < 2 * planes:
        return f"drain {number - planes}"
    chain = number - 2 * planes
    return f"VXM chain {chain}" if chain < chains else ("host lane in", "host lane out")[chain - chains]
