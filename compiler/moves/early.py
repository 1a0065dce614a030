"""Early KV in DDR5: which section of a context SRAM keeps, what lanes bring in a step, what goes out between.

A bucket is a multiple of the tokens that SRAM keeps: all but its last section lies in DDR5, behind the lane
of the chip that keeps that section of the same region. No step appends to it: when a section is full, it goes
out between two steps (`section_out`), and the next bucket begins.
"""

from dataclasses import replace

import numpy as np

from compiler.errors import CapacityError, CompileError, OptionError
from compiler.lower.kv_blocks import block_of
from compiler.moves.handover import compile_egress
from compiler.options import CompileOptions
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.isa import WORD_BYTES, Op
from compiler.program.program import Program
from compiler.source import Traced
from fabric.bridge import BridgeSpec
from fabric.host import LPUS_OF_FPGA, RESERVOIR, hubs
from fabric.rack import Rack

MOST_SECTIONS = 64  # of a context: each is a bucket of its own


def spilled(model: Traced, options: CompileOptions) -> Traced:
    """The model with a bucket for every section of its context. Raises OptionError if it has none."""
    kept = options.spill
    if kept is None:
        return model
    source, block, name = model.source, block_of(model.graph), f"--spill {kept}"
    longest = max(source.contexts)
    if source.chunk > 1 or source.cached != source.tokens.shape[0]:
        raise OptionError("options", name, "a step takes one token of each sequence", "Leave --spill out.")
    if kept % block or longest % kept:
        reason = f"contexts of {longest} tokens, in blocks of {block}, are cut into sections of {kept}"
        remedy = f"Give a multiple of {block} that divides {longest}, or another --context."
        raise OptionError("options", name, reason, remedy)
    if longest // kept > MOST_SECTIONS:
        reason = f"cuts {longest} tokens into {longest // kept} sections, the most are {MOST_SECTIONS}"
        raise OptionError("options", name, reason, f"Give {longest // MOST_SECTIONS} or more.")
    if any(context % kept for context in source.contexts):
        reason = f"contexts are {', '.join(map(str, source.contexts))}, a bucket is a multiple of {kept}"
        raise OptionError("options", name, reason, "Give the longest context only.")
    sections = tuple(range(kept, longest + 1, kept))
    return replace(model, source=replace(source, contexts=sections, resident=kept))


def fetched(program: Program, rack: Rack) -> Program:
    """The program itself, whose early KV fits the DDR5 and comes within the limit that its options state.

    Raises CapacityError, or CompileError with both rates.
    """
    manifest = program.manifest
    if manifest.options.spill is None:
        return program
    _fits(program, rack)
    limit, longest = manifest.options.step_limit, manifest.longest
    taken = manifest.cycles[longest] * 1e6 / manifest.clock_hz
    if limit is not None and taken > limit:
        reason = f"takes {taken:.1f} us, the limit is {limit:g}; {_too_slow(program, taken, limit)}"
        remedy = "Raise --spill, --tp or --step-limit."
        raise CompileError("spill", f"a step at context {longest}", reason, remedy)
    return program


def _too_slow(program: Program, taken: float, limit: float) -> str:
    """What one lane after another would have to give, and what it gives; times in microseconds."""
    size = lane_bytes(program)
    rest = max(taken - size * 1e6 / RESERVOIR.lane, 0.0)
    if limit <= rest:
        return f"all but its fetches takes {rest:.1f}"
    rate = size / (limit - rest) / 1e3
    given = f"{RESERVOIR.lane / 1e9:g}"
    return f"its {size} bytes of early KV would need {rate:.3f} GB/s on a lane, which gives {given}"


def section_out(program: Program) -> Program:
    """The program that takes a full section of one sequence out of SRAM, over the lanes of all chips."""
    manifest = program.manifest
    kept = manifest.options.spill
    assert kept is not None
    bridge = BridgeSpec(
        name="ddr5",
        lpu_bytes_per_second=RESERVOIR.lane,
        rack_bytes_per_second=RESERVOIR.ddr5 // LPUS_OF_FPGA * manifest.chips,
        rack_lpus=manifest.chips,
        latency_ns=0,
    )
    return compile_egress(program, kept, bridge, overlap=True)


def lane_bytes(program: Program) -> int:
    """Bytes over the busiest lane of every call, one call after another, in a step of the longest context."""
    manifest, total = program.manifest, 0
    by_block: dict[int, int] = {}
    for call in program.calls:
        if call.block not in by_block:
            rows = program.blocks[call.block].columns[manifest.longest]
            mine = np.flatnonzero(rows.op == Op.FETCH)
            held = np.bincount(rows.chip[mine], (rows.t1 - rows.t0)[mine]) if len(mine) else np.zeros(1)
            by_block[call.block] = int(held.max())
        total += by_block[call.block]
    slots = [k.host_slot for k in manifest.kernels if isinstance(k, AttentionKernel) and k.host_slot]
    return total // slots[0] * WORD_BYTES if slots else 0


def _fits(program: Program, rack: Rack) -> None:
    """Raise CapacityError if the early KV of the chips of an FPGA is more than its DDR5."""
    kept = _kept(program)
    trays = rack.levels[0].groups if rack.levels and rack.levels[0].kind != "links" else ()
    for chips in hubs(trays, rack.chips):
        if (size := sum(kept.get(chip, 0) for chip in chips)) > RESERVOIR.capacity:
            raise CapacityError(
                "spill",
                f"chips {chips[0]} to {chips[-1]}",
                f"keep {size} bytes of early KV, the DDR5 of their FPGA has {RESERVOIR.capacity}",
                "Raise --spill or --pp, or shorten the context or the batch.",
            )


def _kept(program: Program) -> dict[int, int]:
    """Bytes of early KV of each chip that keeps any."""
    out: dict[int, int] = {}
    kernels = program.manifest.kernels
    for call in program.calls:
        rows = program.blocks[call.block].columns[program.manifest.longest]
        for row in np.flatnonzero(rows.op == Op.KVW).tolist():
            kernel, chip = kernels[int(rows.aux[row])], call.chips[int(rows.chip[row])]
            assert isinstance(kernel, AttentionKernel)
            size = kernel.cached * kernel.reservoir * kernel.kv_words * WORD_BYTES
            out[chip] = out.get(chip, 0) + size
    return out
