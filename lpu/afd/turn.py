"""One turn of a request: what its first token and each later one take, part by part, and what crosses."""

from dataclasses import dataclass, field
from typing import Any

from lpu.gpu.units import PS_PER_SECOND, Part, total, weakest


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """first: parts of the time to the first token. step: parts of the mean time of each token after it.

    later: parts between the first token and the second, besides. tokens: new ones of each sequence. reused:
    tokens of a sequence whose KV was there before. crossed: bytes over the bridge by name, of the whole turn
    and batch.
    """

    number: int
    first: tuple[Part, ...]
    step: tuple[Part, ...]
    tokens: int
    reused: int
    crossed: dict[str, int] = field(default_factory=dict[str, int])
    later: tuple[Part, ...] = ()

    @property
    def ttft(self) -> int:
        """Time to the first token in picoseconds."""
        return total(self.first)

    @property
    def tpot(self) -> int:
        """Mean time per later token in picoseconds."""
        return total(self.step)

    @property
    def end_to_end(self) -> int:
        """From the prompt to the last token, in picoseconds."""
        return self.ttft + (total(self.later) if self.tokens > 1 else 0) + (self.tokens - 1) * self.tpot

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "turn": self.number + 1,
            "ttft_seconds": self.ttft / PS_PER_SECOND,
            "tpot_seconds": self.tpot / PS_PER_SECOND,
            "end_to_end_seconds": self.end_to_end / PS_PER_SECOND,
            "ttft_kind": weakest(self.first),
            "tpot_kind": weakest(self.step),
            "end_to_end_kind": weakest(self.first + self.later + self.step),
            "ttft": [part.to_json() for part in self.first],
            "later": [part.to_json() for part in self.later],
            "tpot": [part.to_json() for part in self.step],
            "new_tokens": self.tokens,
            "reused_tokens": self.reused,
            "crossed_bytes": self.crossed,
        }
