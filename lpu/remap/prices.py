"""How bytes reach an LPU from outside the schedule: the lane to its FPGA, the DDR5 behind it, the host."""

from dataclasses import dataclass

from fabric.chip import WORD_BYTES
from fabric.rack import Rack

LPUS_OF_FPGA = 8  # Source: SemiAnalysis, "The Inference Kingdom Expands", 2026-03-24 (confidence B)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservoir:
    """The hub of a tray, in bytes and bytes per second.

    lane: one LPU to its FPGA, one 100G lane (B, SemiAnalysis). ddr5: of one FPGA, shared by its LPUs (D, 4
    channels of DDR5-6400). capacity: DDR5 behind the FPGAs of a tray (A, NVIDIA product page: to 256 GB).
    host: into one tray from the rest of the rack, one 400G port (assumed: not published).
    """

    lane: int = 12_500_000_000
    ddr5: int = 204_800_000_000
    capacity: int = 256_000_000_000
    host: int = 50_000_000_000

    def slot_cycles(self, rack: Rack, copy: bool) -> int:
        """Cycles of a word into one LPU while all LPUs of its FPGA take words.

        copy: from the tray's own DDR5, else from the host through it.
        """
        rate = min(self.lane, (self.ddr5 if copy else self.host) // LPUS_OF_FPGA)
        return -(-WORD_BYTES * rack.chip.clock_hz // rate)

    def holds(self, image_bytes: int) -> bool:
        """Whether the DDR5 of every tray has room for the weights of the whole model."""
        return image_bytes <= self.capacity


RESERVOIR = Reservoir()
INSTRUCTION_BYTES = 32  # of a row in an instruction queue; assumed: not published
