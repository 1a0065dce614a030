"""Stages: which groups of chips run which block, so that every chip's SRAM suffices."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from compiler.errors import LESS_KV, CapacityError, OptionError
from compiler.graph.graph import Graph
from compiler.program.isa import WORD_BYTES, ceil_div
from fabric.rack import Rack

MOST_TURNS = 8  # each turn needs templates of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Words that a block takes (weights and KV) on each chip of the `span` neighbouring groups it runs on.

    step: this many neighbouring ranks share a context: they are turned among themselves. layer: of the model;
    blocks of one layer on the same chips are scheduled together. beside, lent: by rank, how many chips beside
    it keep stripes of its heads' contexts, and the words of each; nothing where none does. ranks: how many of
    the chips it runs on, the first ones; 0: all.
    """

    name: str
    words: np.ndarray
    transient: int
    span: int = 1
    step: int = 1
    layer: str = ""
    beside: tuple[int, ...] = ()
    lent: tuple[int, ...] = ()
    ranks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a block runs: its first group, and how far its ranks are turned within the groups."""

    group: int
    turn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What there is: groups of `tp` chips, `words` per chip for weights and KV of `capacity` words in all.

    most: words that there would be for them without any transients. bad: group, rank and count of words of
    chips that hold nothing any more.
    """

    rack: str
    groups: int
    tp: int
    words: int
    capacity: int
    most: int = 0
    bad: tuple[tuple[int, int, int], ...] = ()


def assign(sizes: Sequence[Size], room: Room, pp: int | None) -> list[Stage]:
    """The stage of each block, in pipeline order; as few groups as fit, or exactly `pp`.

    Raises CapacityError naming the block or group with bytes needed and available.
    """
    for size in sizes:
        _fits(f"block {size.name}", int(size.words.max()), room, f"--tp above {room.tp}")
    if pp is None:
        stages = _first_fit(sizes, room, turns=1)
        by_layer = _whole_layers(sizes, room)
        more = groups_used(by_layer, sizes) - groups_used(stages, sizes)  # hand-overs that this costs
        if groups_used(by_layer, sizes) <= room.groups and more < _divided(sizes, stages):
            return by_layer
        if groups_used(stages, sizes) > room.groups:
            stages = _first_fit(sizes, room, turns=min(MOST_TURNS, room.tp))
        used = groups_used(stages, sizes)
        if used > room.groups:
            words = sum(int(size.words.sum()) for size in sizes)
            needed, there = compared(words, room.words * room.groups * room.tp)
            error = CapacityError(
                "stages",
                f"rack {room.rack}",
                f"the model needs {used * room.tp} chips in groups of {room.tp} "
                f"({needed} of weights and KV), the rack has {room.groups * room.tp} ({there} for them)",
                f"Use a rack of {used * room.tp} chips or more{LESS_KV}.",
            )
            error.chips = used * room.tp
            error.overfull = words > room.capacity * room.groups * room.tp
            raise error
        return stages
    most = min(room.groups, len(sizes))
    if pp > most:
        raise OptionError(
            "stages",
            f"--pp {pp}",
            f"there are {room.groups} groups of {room.tp} chips and {len(sizes)} blocks",
            f"Give --pp {most} or less.",
        )
    wide = [size for size in sizes if size.span > 1]
    if wide:
        raise OptionError(
            "stages",
            f"--pp {pp}",
            f"block {wide[0].name} fills {wide[0].span} groups of {room.tp} chips by itself",
            f"Leave --pp to the compiler, or raise --tp above {room.tp}.",
        )
    numbers = _balanced(sizes, pp)
    for group in range(pp):
        parts = [size.words for size, stage in zip(sizes, numbers, strict=True) if stage == group]
        words = int(np.sum(parts, axis=0).max())
        _fits(f"group {group}", words, room, f"--pp above {pp} or --tp above {room.tp}")
    return [Stage(group=group) for group in numbers]


def hold_weights(graph: Graph, rack: Rack) -> None:
    """Raise CapacityError where all chips of a rack are too few for the codes of the weights, a byte each.

    No tp and no placement takes less, so that none of them has to be tried.
    """
    read = {view.value for node in graph.nodes for view in node.inputs}
    weights = sum(
        math.prod(value.shape)
        for value in graph.values
        if value.kind == "param" and value.dtype == "uint8" and value.index in read
    )
    chip_bytes = rack.chip.sram_words * WORD_BYTES
    chips = int(ceil_div(weights, chip_bytes))
    if chips > rack.chips:
        error = CapacityError(
            "stages",
            f"rack {rack.name}",
            f"{weights / 1e6:,.1f} MB of weights need {chips} chips of {chip_bytes / 1e6:.1f} MB or more, "
            f"the rack has {rack.chips}",
            f"Use a rack of at least {chips} chips: no --tp fits {rack.name}.",
        )
        error.chips = chips
        raise error


def groups_used(stages: Sequence[Stage], sizes: Sequence[Size]) -> int:
    """How many groups of the rack have a block."""
    return max(stage.group + size.span for stage, size in zip(stages, sizes, strict=True))


def _fits(subject: str, words: int, room: Room, raising: str) -> None:
    if words > room.words:
        raise CapacityError(
            "stages",
            subject,
            "needs {} per chip, a chip has {}".format(
                *compared(words + room.capacity - room.words, room.capacity)
            ),
            f"Raise {raising}, or shorten the context or the batch.",
        )


def megabytes(words: int, digits: int = 1) -> str:
    """Words of SRAM as a person reads them."""
    return f"{words * WORD_BYTES / 1e6:,.{digits}f} MB"


def compared(needed: int, there: int) -> tuple[str, str]:
    """Two unlike counts of words, with as many digits as tell them apart."""
    digits = next(n for n in range(1, 10) if n == 9 or megabytes(needed, n) != megabytes(there, n))
    return megabytes(needed, digits), megabytes(there, digits)


def _first_fit(sizes: Sequence[Size], room: Room, turns: int) -> list[Stage]:
    """Each block begins where the last one began if it fits, else in the next group that has room.

    A block that spans several groups may begin so much earlier that it ends where the last block began.
    Blocks that load few of their ranks (attention with more ranks than KV heads) are turned to the emptiest
    chips.
    """
    used = np.zeros((room.groups + sum(size.span for size in sizes), room.tp), np.int64)
    for group, rank, words in room.bad:
        used[group, rank] += words
    stages: list[Stage] = []
    last = 0
    added: dict[tuple[int, int], np.ndarray] = {}  # by array of words, which blocks of a kind share
    for size in sizes:
        if (key := (id(size.words), size.step)) not in added:
            added[key] = _turns(size, size.span * room.tp, turns)
        at = max(0, last - size.span + 1)
        while True:
            loaded = used[at : at + size.span].reshape(-1) + added[key]
            fullest = loaded.max(axis=1)
            turn = int(fullest.argmin())
            if fullest[turn] <= room.words:
                break
            at += 1
        used[at : at + size.span] = loaded[turn].reshape(size.span, room.tp)
        stages.append(Stage(group=at, turn=turn))
        last = at
    return stages


def _divided(sizes: Sequence[Size], stages: Sequence[Stage]) -> int:
    """How often a group ends within a layer."""
    pairs = zip(pairwise(sizes), pairwise(stages), strict=True)
    return sum(a.layer == b.layer != "" and at.group != to.group for (a, b), (at, to) in pairs)


def _whole_layers(sizes: Sequence[Size], room: Room) -> list[Stage]:
    """The same, blocks of a layer never on different groups where one group holds them."""
    runs, joined = _joined(sizes, room)
    stages = _first_fit(joined, room, turns=1)
    return [stage for stage, run in zip(stages, runs, strict=True) for _ in run]


def _joined(sizes: Sequence[Size], room: Room) -> tuple[list[list[Size]], list[Size]]:
    """The blocks that are not to be divided: of one layer, where one group holds them; each as one block."""
    runs: list[list[Size]] = []
    for size in sizes:
        last = runs[-1] if runs else []
        alike = bool(last) and size.layer == last[-1].layer != "" and size.span == last[-1].span == 1
        alike = alike and size.step == last[-1].step
        if alike and int(np.sum([one.words for one in [*last, size]], axis=0).max()) <= room.words:
            last.append(size)
        else:
            runs.append([size])
    return runs, [replace(run[0], words=np.sum([size.words for size in run], axis=0)) for run in runs]


def spread(sizes: Sequence[Size], room: Room, least: int) -> Iterator[list[Stage]]:
    """Others, dealt evenly over `least` groups, then over more and more: whole layers, then blocks."""
    if any(size.span > 1 for size in sizes):
        return
    runs, joined = _joined(sizes, room)
    for whole, parts in ((joined, runs), (list(sizes), [[size] for size in sizes])):
        words = np.stack([size.words for size in whole])
        for groups in range(least, min(room.groups, len(whole)) + 1):
            numbers = _balanced(whole, groups)
            held = np.zeros((groups, room.tp), np.int64)
            np.add.at(held, numbers, words)
            if held.max() <= room.words:
                yield [Stage(group=at) for at, part in zip(numbers, parts, strict=True) for _ in part]


def turned(ranks: int, turn: int, step: int) -> np.ndarray:
    """The place of each rank: `turn` places on, round and round its own `step`, then whole steps on."""
    rank = np.arange(ranks)
    return (rank // step + turn // step) % (ranks // step) * step + (rank + turn) % step


def _turns(size: Size, ranks: int, turns: int) -> np.ndarray:
    """Words that a block adds to each chip when it is turned by 0, 1, ...: [turns, ranks]."""
    out = np.zeros((turns, ranks), np.int64)
    for turn in range(turns):
        out[turn, turned(ranks, turn, size.step)] = size.words
    return out


def _balanced(sizes: Sequence[Size], pp: int) -> list[int]:
    """Contiguous runs of nearly equal words, at least one block each."""
    weights = np.array([max(int(size.words.max()), 1) for size in sizes], np.int64)
    middle = np.cumsum(weights) * 2 - weights
    stages = np.minimum(middle * pp // (2 * int(weights.sum())), pp - 1).tolist()
    for i in range(len(stages)):
        before = stages[i - 1] if i else 0
        stages[i] = min(max(stages[i], before, pp - (len(stages) - i)), before + (1 if i else 0))
    return stages
