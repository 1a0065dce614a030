"""A prompt in chunks: what the chunks of a prefill program take together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from compiler.program.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """Chunks one after another in one context bucket. interval: cycles from one to the next."""

    chunks: int
    interval: int
    cycles: int

    @property
    def total(self) -> int:
        """Cycles from the first chunk to the end of the last."""
        return (self.chunks - 1) * self.interval + self.cycles

    def __str__(self) -> str:
        if self.interval == self.cycles:
            return f"{self.chunks} x {self.cycles:,}"
        return f"({self.chunks} - 1) x {self.interval:,} + {self.cycles:,}"


def chunk_runs(manifest: Manifest, buckets: Sequence[int]) -> tuple[Chunks, ...]:
    """The chunks of prompts by the bucket that each runs in: another one waits for an empty pipeline."""
    return tuple(
        Chunks(chunks=len([*run]), interval=_interval(manifest, bucket), cycles=manifest.cycles[bucket])
        for bucket, run in groupby(buckets)
    )


def prompt_cycles(manifest: Manifest, buckets: Sequence[int]) -> int:
    """Cycles of all chunks."""
    return sum(run.total for run in chunk_runs(manifest, buckets))


def whole_prompt(manifest: Manifest, tokens: int) -> tuple[Chunks, ...]:
    """The chunks of a prompt of this many tokens, each in the shortest bucket that holds it."""
    chunk = manifest.chunk
    ends = [*range(chunk, tokens, chunk), tokens]
    return chunk_runs(manifest, [min(c for c in manifest.contexts if c >= end) for end in ends])


def _interval(manifest: Manifest, bucket: int) -> int:
    """Cycles from one chunk to the next: where they do not follow each other, those of a chunk."""
    return manifest.waves.contexts[bucket].interval if manifest.waves else manifest.cycles[bucket]
