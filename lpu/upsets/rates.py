"""The closed form of replays: how often a step meets an error, and how many cycles a token then takes."""

import math
from dataclasses import dataclass
from typing import Any

from compiler.program.isa import WORD_BYTES
from compiler.program.program import Program
from lpu.energy.events import events

SWEEP = (1e-12, 1e-15, 1e-18)
"""Frame losses after FEC that are always shown. Source: facts faults.md 4.2; none of an LPX is public."""
YEAR_SECONDS = 365 * 24 * 3600
MOST_SHOWN = 4  # attempts of the distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What of a step can meet an error, exact for the stated machine.

    frames: over links, a word of 320 bytes each, every hop counted. words: that rows read from SRAM or write
    there. cycles: of an attempt; of waves, until the user's next turn.
    """

    frames: int
    words: int
    cycles: int
    clock_hz: int

    @staticmethod
    def of(program: Program, context: int) -> "Exposure":
        """That of a step of a context bucket."""
        manifest = program.manifest
        frames = words = 0
        for call in program.calls:
            found = events(program.expand_call(call, context), manifest).totals()
            frames += found["link_bytes"] // WORD_BYTES
            words += (found["installed_bytes"] + found["stream_bytes"]) // WORD_BYTES
        waves = manifest.waves
        cycles = manifest.cycles[context]
        if waves is not None:
            cycles = waves.contexts[context].turn * waves.contexts[context].interval
        return Exposure(frames=frames, words=words, cycles=cycles, clock_hz=manifest.clock_hz)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replays:
    """What rates of errors do to tokens: frame_loss of a frame after FEC, word_upset of a word after ECC.

    An attempt fails if one of its frames or words does, each by itself; a token takes attempts until one does
    not fail. So its attempts are geometric, and this alone makes two tokens differ in cycles.
    """

    exposure: Exposure
    frame_loss: float
    word_upset: float

    @property
    def fails(self) -> float:
        """The probability that an attempt fails: 1 - (1 - q)^frames (1 - u)^words."""
        frames = self.exposure.frames * math.log1p(-self.frame_loss)
        return -math.expm1(frames + self.exposure.words * math.log1p(-self.word_upset))

    @property
    def mean_cycles(self) -> float:
        """Cycles of a token on average."""
        return self.exposure.cycles / (1 - self.fails)

    def share(self, attempts: int) -> float:
        """The probability that a token takes this many attempts."""
        return self.fails ** (attempts - 1) * (1 - self.fails)

    def within(self, share: float) -> int:
        """Cycles that at least this share of tokens stay within."""
        if self.fails == 0:
            return self.exposure.cycles
        attempts = math.ceil(math.log1p(-share) / math.log(self.fails) - 1e-12)
        return max(attempts, 1) * self.exposure.cycles

    @property
    def replays_per_year(self) -> float:
        """Replays in a year of steps without a pause."""
        steps = YEAR_SECONDS * self.exposure.clock_hz / self.exposure.cycles
        return steps * self.fails

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "frame_loss": self.frame_loss,
            "word_upset": self.word_upset,
            "attempt_fails": self.fails,
            "mean_cycles": self.mean_cycles,
            "replays_per_year": self.replays_per_year,
            "shares": {str(k): self.share(k) for k in range(1, MOST_SHOWN + 1)},
            "cycles_within": {str(share): self.within(share) for share in (0.5, 0.99, 0.999, 0.999999)},
        }
