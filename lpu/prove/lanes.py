"""Lane maps: which index of a vector each lane of a line holds, -1 for zero; compared as numbers."""

import numpy as np
from jaxtyping import Int

from compiler.program.isa import F16_LANES, F32_LANES
from lpu.prove.refused import need

Map = Int[np.ndarray, " positions"]


class LaneMaps:
    """All lane maps by number: a line's, the rows or columns of a tile, a set of k."""

    def __init__(self) -> None:
        self.all: list[Map] = []
        self._number: dict[bytes, int] = {}
        self._joined: dict[tuple[int, ...], int] = {}
        self._whole: dict[tuple[int, tuple[int, ...]], bool] = {}
        self._spans: dict[tuple[int, tuple[int, ...]], tuple[int, int]] = {}

    def number(self, entries: Map) -> int:
        """The number of a map."""
        key = np.ascontiguousarray(entries, np.int64).tobytes()
        found = self._number.setdefault(key, len(self.all))
        if found == len(self.all):
            self.all.append(entries)
        return found

    def joined(self, maps: tuple[int, ...], size: int) -> int:
        """Maps one after another as one of `size` lanes, padded."""
        key = (size, *maps)
        if key not in self._joined:
            every = [self.all[one] for one in maps]
            count = sum(map(len, every))
            need(count <= size, f"{count} lanes in a line of {size}")
            every.append(np.full(size - count, -1))
            self._joined[key] = self.number(np.concatenate(every))
        return self._joined[key]

    def pieces(self, maps: tuple[int, ...], lanes: int) -> tuple[int, ...]:
        """Maps one after another, cut into lines of `lanes` lanes, the last padded."""
        every = self.concatenated(maps)
        return tuple(
            self.joined((self.number(every[at : at + lanes]),), lanes) for at in range(0, len(every), lanes)
        )

    def count(self, size: int) -> int:
        """The map of `size` lanes that holds 0 .. size-1."""
        return self.number(np.arange(size))

    def line(self, number: int, width: int) -> int:
        """The map of f32 line `number` of a vector that lies in order."""
        return self.number(cut(None, F32_LANES * number, F32_LANES, width))

    def half_line(self, number: int, width: int) -> int:
        """The map of fp16 line `number` of a vector that lies in order."""
        return self.number(cut(None, F16_LANES * number, F16_LANES, width))

    def of_heads(self, heads: tuple[int, ...], head_dim: int) -> int:
        """The map of these heads, densely."""
        return self.number((np.array(heads)[:, None] * head_dim + np.arange(head_dim)).reshape(-1))

    def concatenated(self, maps: tuple[int, ...]) -> Map:
        """The entries of maps one after another."""
        return np.concatenate([self.all[one] for one in maps]) if maps else np.zeros(0, np.int64)

    def cover_once(self, maps: tuple[int, ...], width: int) -> bool:
        """Whether the real entries of all maps together are 0 .. width-1, each once."""
        key = (width, maps)
        if key not in self._whole:
            every = self.concatenated(maps)
            every = np.sort(every[every >= 0])
            self._whole[key] = len(every) == width and bool((every == np.arange(width)).all())
        return self._whole[key]

    def span(self, maps: tuple[int, ...]) -> tuple[int, int]:
        """First and end of the consecutive indices whose each is in these maps once."""
        key = (-1, maps)
        if key not in self._spans:
            every = self.concatenated(maps)
            every = np.sort(every[every >= 0])
            need(
                len(every) > 0 and bool((np.diff(every) == 1).all()),
                "a sum does not take consecutive rows once",
            )
            self._spans[key] = int(every[0]), int(every[-1]) + 1
        return self._spans[key]

    def group(self, number: int, size: int) -> int:
        """Which run of `size` indices all real lanes of a map are of."""
        real = self.all[number]
        found = np.unique(real[real >= 0] // size)
        need(len(found) == 1, f"a line holds columns of {len(found)} heads")
        return int(found[0])

    def apart(self, maps: tuple[int, ...], count: int, lanes: int) -> tuple[int, ...]:
        """Which heads of `lanes` lie in these lines, each on lines of its own; `count` of them."""
        each = -(-lanes // F16_LANES)
        need(len(maps) == count * each, f"{len(maps)} lines are not {count} heads of {lanes} lanes")
        return tuple(self.heads(maps[i * each : (i + 1) * each], 1, lanes)[0] for i in range(count))

    def within(self, part: int, whole: int) -> bool:
        """Whether every lane of a map is that of another, or padding."""
        one, other = self.all[part], self.all[whole]
        return part == whole or (len(one) == len(other) and bool(((one == other) | (one < 0)).all()))

    def heads(self, maps: tuple[int, ...], count: int, head_dim: int) -> tuple[int, ...]:
        """Which heads of `head_dim` lie densely in these lines, whole and in order; `count` of them."""
        every = self.concatenated(maps)
        real = every[: count * head_dim]
        need(len(real) == count * head_dim, f"{len(every)} lanes hold no {count} heads of {head_dim}")
        first = real[::head_dim]
        expected = (first[:, None] + np.arange(head_dim)).reshape(-1)
        aligned = bool((first >= 0).all() and (first % head_dim == 0).all())
        need(
            aligned and bool((real == expected).all()) and bool((every[count * head_dim :] == -1).all()),
            f"its lines do not hold {count} whole heads of {head_dim} lanes",
        )
        return tuple((first // head_dim).tolist())


def cut(entries: Map | None, first: int, count: int, size: int) -> Int[np.ndarray, " part"]:
    """Positions first .. first+count-1 of a map of an axis of `size`; no map is the identity; else -1."""
    if entries is None:
        found = np.arange(first, first + count)
        return np.where(found < size, found, -1)
    part = entries[first : first + count]
    return np.concatenate([part, np.full(count - len(part), -1)])
