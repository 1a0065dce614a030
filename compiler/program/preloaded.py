"""What lies at a word of the weight space, in words: a tensor's name and which of its rows and columns."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from compiler.program.isa import (
    ANGLES,
    F32_LANES,
    FACTOR,
    GAIN,
    SCALE,
    SHIFTED,
    STACKS,
    TABLE,
    TILE,
    TILE16,
    TILE_ROWS,
)
from compiler.program.program import Call, Program

MOST_RUNS = 2  # of consecutive rows or columns that are written out


class Preloaded:
    """The preloaded values of one call, by chip and first word."""

    def __init__(self, program: Program, call: Call) -> None:
        block = program.blocks[call.block]
        self._loads = program.placed(call, block.loads)
        self._tensors, self._slots, self._maps = call.tensors, block.slots, block.maps
        places = zip(self._loads.chip.tolist(), self._loads.addr.tolist(), strict=True)
        self._at = {place: i for i, place in enumerate(places)}

    def part(self, chip: int, address: int, words: int) -> str:
        """The tensors whose values lie in these words, empty if none of the call's begins there."""
        found: list[int] = []
        end = address + words
        while address < end and (chip, address) in self._at:
            found.append(self._at[chip, address])
            address += max(int(self._loads.words[found[-1]]), 1)  # of an illegal program none may be claimed
        groups: dict[tuple[int, int], list[int]] = {}
        for load in found:
            groups.setdefault((int(self._loads.tensor[load]), int(self._loads.k0[load])), []).append(load)
        return " + ".join(self._tensor(tensor, loads) for (tensor, _), loads in groups.items())

    def _tensor(self, tensor: int, loads: Sequence[int]) -> str:
        """Values of one tensor that lie one after another."""
        kind, name = int(self._loads.kind[loads[0]]), self._tensors[tensor]
        rows, columns = self._slots[tensor]
        lines = {
            TABLE: int(self._loads.lines[loads[0]]),
            **dict.fromkeys(STACKS, int(self._loads.lines[loads[0]])),
            TILE: 1,
            TILE16: 1,
            SCALE: 1,
            GAIN: 1,
            SHIFTED: 1,
            FACTOR: 1,
        }.get(kind, 0)
        wide = [self._entries(columns, int(self._loads.n0[load]), F32_LANES * lines) for load in loads]
        if kind == ANGLES or not lines:
            return name
        across = runs(np.concatenate(wide))
        if kind == TABLE:
            return f"{name}[:, {across}]"
        if kind not in (TILE, *STACKS, TILE16):
            return f"{name}[{across}]"
        name = f"{name}[expert]" if kind in STACKS else name
        return f"{name}[{runs(self._entries(rows, int(self._loads.k0[loads[0]]), TILE_ROWS))}, {across}]"

    def _entries(self, index: int, first: int, count: int) -> Int[np.ndarray, " positions"]:
        """Which rows or columns the padded positions are, -1 for padding."""
        return np.arange(first, first + count) if index < 0 else self._maps[index][first : first + count]


def runs(entries: Int[np.ndarray, " positions"]) -> str:
    """Numbers as ranges: `0:32+64:96`; padding is left out, and all after the first few ranges."""
    real = entries[entries >= 0]
    parts = np.split(real, np.flatnonzero(np.diff(real) != 1) + 1) if len(real) else []
    texts = [f"{int(part[0])}:{int(part[-1]) + 1}" for part in parts]
    more = len(texts) - MOST_RUNS
    return "+".join(texts[:MOST_RUNS] + ([f"{more} more"] if more > 0 else [])) or "padding"
