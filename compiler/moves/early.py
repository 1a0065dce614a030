"""KV between SRAM and DDR5 outside steps: a full section of a context out, a block of a prompt in."""

from compiler.moves.handover import compile_egress, compile_ingest
from compiler.program.program import Program
from fabric.bridge import BridgeSpec
from fabric.host import LPUS_OF_FPGA, RESERVOIR


def section_out(program: Program) -> Program:
    """The program that takes a full section of one sequence out of SRAM, over the lanes of all chips."""
    kept = program.manifest.options.spill
    assert kept is not None
    return compile_egress(program, kept, _lanes(program), overlap=True)


def block_in(program: Program, tokens: int) -> Program:
    """The program that brings this many tokens of one sequence out of DDR5, over the lanes of all chips.

    Raises CompileError for a program that takes no KV from outside.
    """
    return compile_ingest(program, tokens, _lanes(program), overlap=True)


def _lanes(program: Program) -> BridgeSpec:
    """The lane of each chip to the DDR5 of its FPGA; all that is asked for is there when it is due."""
    chips = program.manifest.chips
    return BridgeSpec(
        name="ddr5",
        lpu_bytes_per_second=RESERVOIR.lane,
        rack_bytes_per_second=RESERVOIR.ddr5 // LPUS_OF_FPGA * chips,
        rack_lpus=chips,
        latency_ns=0,
    )


def rest_cycles(program: Program) -> int:
    """Cycles between two steps in which a full section of every sequence goes out, one after another."""
    return max(section_out(program).manifest.cycles.values()) * program.manifest.sequences
