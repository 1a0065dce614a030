"""Errors in a run with real math: frames that bring another line, bits of weights that are flipped.

Hardware: an error that FEC or ECC cannot correct is seen at the word that has it; the schedule goes on, since
nothing in it can stop, and the token is taken again when its step has ended. Its KV is written again then.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compiler.program.isa import Columns, is_transfer
from compiler.program.program import Program
from lpu.decode.generate import BatchIds, BatchResult
from lpu.link.error import LinkError
from lpu.link.link import link
from lpu.run.machine import Machine
from lpu.run.pack.layout import Packed
from lpu.run.pack.pack import pack
from lpu.upsets.rates import Replays

VARIANTS = 4  # of frames that bring another line
MOST_TRIED = 64


@dataclass(slots=True)
class Struck:
    """A machine whose steps meet errors, drawn by a seed; `decode` takes a token.

    replay: an attempt that met an error is taken again. attempts: of each token so far; hits: of each attempt
    that met some, how many frames and words.
    """

    machine: Machine
    spoiled: Sequence[Machine]
    replays: Replays
    seed: int
    replay: bool = True
    attempts: list[int] = field(default_factory=list[int])
    hits: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    _random: np.random.Generator = field(init=False)
    _state: Any = field(init=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._state = self.machine.start()

    def decode(self, tokens: BatchIds, at: BatchIds) -> BatchResult:
        """One step, as often as it takes."""
        self.attempts.append(0)
        while True:
            self.attempts[-1] += 1
            frames, words = drawn(self.replays, self._random)
            machine = self._met(frames, words)
            logits, chosen, self._state = machine.step(self._state, tokens, at)
            if frames + words == 0 or not self.replay:
                return np.asarray(logits), np.asarray(chosen)

    def _met(self, frames: int, words: int) -> Machine:
        """The machine as an attempt with this many errors finds it."""
        if frames + words:
            self.hits.append((frames, words))
        machine = self.machine
        if frames and self.spoiled:
            machine = self.spoiled[int(self._random.integers(len(self.spoiled)))]
        return flipped_bit(machine, self._random) if words or (frames and not self.spoiled) else machine


def drawn(replays: Replays, random: np.random.Generator) -> tuple[int, int]:
    """Frames and words of one attempt that have an error: binomial, each by itself."""
    exposure = replays.exposure
    frames = random.binomial(exposure.frames, replays.frame_loss)
    return int(frames), int(random.binomial(exposure.words, replays.word_upset))


def attempts_of(replays: Replays, tokens: int, seed: int) -> list[int]:
    """Attempts of tokens by the same draws, without math."""
    random = np.random.default_rng(seed)
    out: list[int] = []
    for _ in range(tokens):
        out.append(1)
        while sum(drawn(replays, random)):
            out[-1] += 1
    return out


def flipped_bit(machine: Machine, random: np.random.Generator) -> Machine:
    """The machine with the sign of one weight flipped, as an upset of its word does."""
    tiles = machine.image.tiles
    at = tuple(int(random.integers(size)) for size in tiles.shape)
    while int(tiles[at]) & 0x7F == 0:
        at = tuple(int(random.integers(size)) for size in tiles.shape)
    other = copy(machine)
    other.image = machine.image._replace(tiles=tiles.at[at].set(tiles[at] ^ 0x80))
    return other


def spoiled(machine: Machine, program: Program, seed: int) -> list[Machine]:
    """Machines in whose schedule one transfer brings what another of its chip sent; none without transfers.

    Their tables have the shapes of the machine's own, so nothing is compiled for them.
    """
    manifest = program.manifest
    context = manifest.longest
    rows, loads = program.expand(context), program.loads()
    random = np.random.default_rng([seed, 1])
    found: list[Machine] = []
    moved = np.flatnonzero(is_transfer(rows.op))
    for row in random.permutation(moved)[:MOST_TRIED].tolist():
        like = moved[(rows.chip[moved] == rows.chip[row]) & (rows.n[moved] == rows.n[row])]
        like = like[(rows.t0[like] <= rows.t0[row]) & (rows.src[like] != rows.src[row])]
        like = like[rows.op[like] == rows.op[row]]
        if not len(like):
            continue
        packed = _packed(machine, program, loads, _bringing(rows, row, int(like[-1])))
        if packed is not None and packed.layout == machine.entries[context].layout:
            found.append(_with(machine, context, packed))
        if len(found) == VARIANTS:
            break
    return found


def _bringing(rows: Columns, row: int, other: int) -> Columns:
    """The rows with one that takes what another one takes."""
    src = rows.src.copy()
    src[row] = rows.src[other]
    return replace(rows, src=src)


def _packed(machine: Machine, program: Program, loads: Any, rows: Columns) -> Packed | None:
    try:
        flow = link(program.manifest, loads, rows)
    except LinkError:
        return None
    return pack(flow, machine.loaded.plan, machine.stores.of_kernel)


def _with(machine: Machine, context: int, packed: Packed) -> Machine:
    entries = {**machine.entries, context: packed}
    return Machine(
        machine.loaded, machine.stores, entries, (machine.clips, machine.overflow), whole=machine.whole
    )
