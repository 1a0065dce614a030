"""A full section of a context out of SRAM into DDR5, between two steps, before the next bucket begins."""

from compiler.moves.handover import compile_egress
from compiler.program.program import Program
from fabric.bridge import BridgeSpec
from fabric.host import LPUS_OF_FPGA, RESERVOIR


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


def rest_cycles(program: Program) -> int:
    """Cycles between two steps in which a full section of every sequence goes out, one after another."""
    return max(section_out(program).manifest.cycles.values()) * program.manifest.sequences
