"""What a step fetches from DDR5, early KV and experts: whether in time, whether DDR5 holds it."""

import numpy as np

from compiler.errors import CapacityError, CompileError
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.instructions.cold import ColdTileKernel
from compiler.program.instructions.experts import SlotsKernel
from compiler.program.isa import COLD, F32_LANES, TAG_SHIFT, WORD_BYTES, Op
from compiler.program.program import Program
from fabric.host import RESERVOIR, hubs
from fabric.rack import Rack


def fetched(program: Program, rack: Rack) -> Program:
    """The program itself, whose early KV and experts fit DDR5 and come within the limit of its options.

    Raises CapacityError, or CompileError with both rates.
    """
    manifest = program.manifest
    if manifest.options.spill is None and manifest.options.cold is None:
        return program
    _fits(program, rack)
    limit, longest = manifest.options.step_limit, manifest.longest
    taken = manifest.cycles[longest] * 1e6 / manifest.clock_hz
    if limit is not None and taken > limit:
        reason = f"takes {taken:.1f} us, the limit is {limit:g}; {_too_slow(program, taken, limit)}"
        tokens = "" if manifest.options.spill is None else "--spill, "
        less = "" if manifest.options.cold is None else " Experts in SRAM need no fetch."
        remedy = f"Raise {tokens}--tp or --step-limit.{less}"
        raise CompileError("spill", f"a step at context {longest}", reason, remedy)
    return program


def _too_slow(program: Program, taken: float, limit: float) -> str:
    """What one lane after another would have to give, and what it gives; times in microseconds."""
    size = lane_bytes(program)
    rest = max(taken - size * 1e6 / RESERVOIR.lane, 0.0)
    if limit <= rest:
        return f"all but its fetches takes {rest:.1f}"
    rate = size / (limit - rest) / 1e3
    given, options = f"{RESERVOIR.lane / 1e9:g}", program.manifest.options
    named = (("early KV", options.spill), ("experts", options.cold))
    what = " and ".join(name for name, value in named if value is not None)
    return f"its {size} bytes of {what} would need {rate:.3f} GB/s on a lane, which gives {given}"


def lane_bytes(program: Program) -> int:
    """Bytes over the busiest lane of every call, one call after another, in a step of the longest context."""
    manifest, total = program.manifest, 0
    by_block: dict[int, int] = {}
    for call in program.calls:
        if call.block not in by_block:
            rows = program.blocks[call.block].columns[manifest.longest]
            mine = np.flatnonzero(np.isin(rows.op, (Op.FETCH, Op.FETCHX)))
            held = np.bincount(rows.chip[mine], (rows.t1 - rows.t0)[mine]) if len(mine) else np.zeros(1)
            by_block[call.block] = int(held.max())
        total += by_block[call.block]
    fetching = (k for k in manifest.kernels if isinstance(k, AttentionKernel | ColdTileKernel))
    slots = [k.host_slot for k in fetching if k.host_slot]
    return total // slots[0] * WORD_BYTES if slots else 0


def cold_tables(program: Program) -> list[SlotsKernel]:
    """The slots for experts that lie in DDR5, in order of these."""
    kernels, out = program.manifest.kernels, set[int]()
    for block in program.blocks:
        rows = block.columns.get(program.manifest.longest)
        if rows is None or not (rows.op == Op.FETCHX).any():
            continue
        named = np.unique(rows.src_tag[rows.op == Op.FETCHX] >> TAG_SHIFT)
        made = (rows.op == Op.SLOTS) & np.isin(rows.dst_tag >> TAG_SHIFT, named)
        out.update(np.unique(rows.aux[made]).tolist())
    found = [kernel for aux in out if isinstance(kernel := kernels[aux], SlotsKernel)]
    return sorted(found, key=lambda one: one.first)


def _fits(program: Program, rack: Rack) -> None:
    """Raise CapacityError if early KV and experts of the chips of an FPGA are more than its DDR5."""
    kept = _kept(program)
    trays = rack.levels[0].groups if rack.levels and rack.levels[0].kind != "links" else ()
    for chips in hubs(trays, rack.chips):
        if (size := sum(kept.get(chip, 0) for chip in chips)) > RESERVOIR.capacity:
            raise CapacityError(
                "spill",
                f"chips {chips[0]} to {chips[-1]}",
                f"keep {size} bytes outside SRAM, the DDR5 of their FPGA has {RESERVOIR.capacity}",
                "Raise --spill or --pp, lower --cold, or shorten the context or the batch.",
            )


def _kept(program: Program) -> dict[int, int]:
    """Bytes of early KV and experts of each chip that keeps any."""
    out: dict[int, int] = {}
    kernels = program.manifest.kernels
    for call in program.calls:
        rows = program.blocks[call.block].columns[program.manifest.longest]
        for row in np.flatnonzero(rows.op == Op.KVW).tolist():
            kernel, chip = kernels[int(rows.aux[row])], call.chips[int(rows.chip[row])]
            assert isinstance(kernel, AttentionKernel)
            size = kernel.cached * kernel.reservoir * kernel.kv_words * WORD_BYTES
            out[chip] = out.get(chip, 0) + size
        loads = program.blocks[call.block].loads
        for load in np.flatnonzero(loads.kind == COLD).tolist():
            chip = call.chips[int(loads.chip[load])]
            size = int(loads.words[load]) * F32_LANES * int(loads.lines[load]) * WORD_BYTES
            out[chip] = out.get(chip, 0) + size
    return out
