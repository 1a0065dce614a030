"""Memory: the words of transients, KV and weights on each chip, around those that are bad."""

from dataclasses import dataclass, replace
from math import lcm

import numpy as np

from compiler.errors import CapacityError
from compiler.lower.rope_table import angle_words
from compiler.program.isa import WORD_BYTES, ceil_div
from compiler.program.manifest import Region, Regions
from compiler.scheduled import Scheduled
from fabric.faults.fault import BadWords
from fabric.rack import Rack

MOST_USERS = 1 << 20  # of a model that keeps no KV


@dataclass(frozen=True, slots=True, kw_only=True)
class SramMap:
    """Words of each region on each chip; they lie in this order from address 0.

    arenas: copies of the transient words, one wave in each; users: copies of the KV words. bad: words that
    hold nothing; KV begins behind those that it would hold (kv_from), weights of a block go round them.
    """

    transient: np.ndarray
    kv: np.ndarray
    weights: np.ndarray
    arenas: np.ndarray | int = 1
    users: int = 1
    bad: tuple[BadWords, ...] = ()
    kv_from: np.ndarray | None = None

    def __str__(self) -> str:
        arenas = np.broadcast_to(self.arenas, self.transient.shape)
        lines = [f"words of {len(self.transient)} chips, {self.users} users"]
        columns = (
            ("transient", self.transient),
            ("arenas", arenas),
            ("KV", self.kv),
            ("weights", self.weights),
        )
        for name, words in columns:
            fullest = f"most {words.max()} on chip {words.argmax()}"
            lines.append(f"  {name:<10} least {words.min()}, {fullest}, {words.sum()} in all")
        return "\n".join(lines)

    @property
    def kv_base(self) -> np.ndarray:
        """First KV word by chip."""
        return self.transient * self.arenas if self.kv_from is None else self.kv_from

    @property
    def weight_base(self) -> np.ndarray:
        """First weight word by chip."""
        return self.kv_base + self.kv * self.users

    def clear(self, chips: list[int], at: np.ndarray, words: np.ndarray | int) -> np.ndarray:
        """The first words from `at` on, by chip, at which this many words lie clear of the bad ones."""
        return _clear(self.bad, chips, at, words)

    def regions(self) -> tuple[Regions, ...]:
        """What the SRAM of each chip is divided into."""
        zero = np.zeros_like(self.transient)
        columns = (zero, self.kv_base, self.kv_base, self.kv * self.users, self.weight_base, self.weights)
        bounds = np.stack(columns, axis=-1).reshape(-1, 3, 2).tolist()
        return tuple(Regions(*(Region(*pair) for pair in chip)) for chip in bounds)


def sram_map(rack: Rack, scheduled: Scheduled, *others: Scheduled) -> SramMap:
    """Where transients, KV and weights lie, with room for the transients of `others` too.

    Raises CapacityError if a chip is too small.
    """
    transient, kv, weights = (np.zeros(rack.chips, np.int64) for _ in range(3))
    for chips in scheduled.assignment.groups:
        weights[list(chips)] += angle_words(scheduled.plan.graph)
    for call in scheduled.calls:
        made = scheduled.templates[call.template]
        kv[list(call.chips[: len(made.kv_words)])] += made.kv_words
        weights[list(call.chips[: len(made.weight_words)])] += made.weight_words
    for each in (scheduled, *others):
        for call in each.calls:
            made = each.templates[call.template]
            touched = list(call.chips[: len(made.transient_words)])
            transient[touched] = np.maximum(transient[touched], made.transient_words)
    rows = lcm(*(each.plan.graph.batch for each in (scheduled, *others)))
    transient = ceil_div(transient, rows) * rows
    arenas = 1 if scheduled.waves is None else scheduled.waves.arenas
    users = 1 if scheduled.waves is None else scheduled.options.users
    bad = () if rack.damage is None else rack.damage.bad
    if bad:
        return _around(
            rack, scheduled, SramMap(transient=transient, kv=kv, weights=weights, arenas=arenas), bad
        )
    left = rack.chip.sram_words - transient * arenas - weights
    if users is None:
        users = _most_users(rack, SramMap(transient=transient, kv=kv, weights=weights, arenas=arenas))
    worst = int(np.argmin(left - kv * users))
    if left[worst] < kv[worst] * users:
        needs = int(kv[worst] * users - left[worst]) + rack.chip.sram_words
        raise CapacityError(
            "allocate",
            f"chip {worst}",
            f"needs {needs * WORD_BYTES} bytes, a chip has {rack.chip.sram_words * WORD_BYTES}",
            "Raise --tp or --pp, or shorten the context or the batch."
            if users == 1
            else f"Give fewer --users than {users}, or shorten the context or the batch.",
        )
    return SramMap(transient=transient, kv=kv, weights=weights, arenas=arenas, users=users)


def _around(rack: Rack, scheduled: Scheduled, sram: SramMap, bad: tuple[BadWords, ...]) -> SramMap:
    """The map that leaves out bad words. Raises CapacityError if a chip is too small without them."""
    every, low = list(range(rack.chips)), sram.transient * sram.arenas
    for chip, first, stop in bad:
        if first < low[chip]:
            raise CapacityError(
                "allocate",
                f"chip {chip}",
                f"its transients take words 0 to {low[chip] - 1}, words {first} to {stop - 1} are bad",
                "Give it no work: name the chip as a fault.",
            )
    asked = None if scheduled.waves is None else scheduled.options.users
    most = _most_users(rack, sram)
    worst, needs = 0, 0
    tried = [asked or 1] if scheduled.waves is None or asked else [*range(most, max(most - 64, 1), -1), 1]
    for users in tried:
        kv_from = _clear(bad, every, low, sram.kv * users)
        found = replace(sram, users=users, bad=bad, kv_from=kv_from)
        ends = _ends(scheduled, found)
        worst = int(np.argmax(ends))
        needs = int(ends[worst])
        if needs <= rack.chip.sram_words:
            return replace(found, weights=np.where(sram.weights > 0, ends - found.weight_base, 0))
    raise CapacityError(
        "allocate",
        f"chip {worst}",
        f"needs {needs * WORD_BYTES} bytes around its bad words, "
        f"a chip has {rack.chip.sram_words * WORD_BYTES}",
        "Raise --tp or --pp, or shorten the context or the batch.",
    )


def _most_users(rack: Rack, sram: SramMap) -> int:
    """Groups of users whose KV would fit if no words were bad."""
    left = rack.chip.sram_words - sram.transient * sram.arenas - sram.weights
    return max(1, int((left[sram.kv > 0] // sram.kv[sram.kv > 0]).min(initial=MOST_USERS)))


def _ends(scheduled: Scheduled, sram: SramMap) -> np.ndarray:
    """The word after the last weight of each chip, placed as `_calls` does."""
    at = sram.weight_base.copy()
    tables = angle_words(scheduled.plan.graph)
    for chips in scheduled.assignment.groups:
        own = list(chips)
        at[own] = sram.clear(own, at[own], tables) + tables
    for call in scheduled.calls:
        made = scheduled.templates[call.template]
        own = list(call.chips[: len(made.weight_words)])
        at[own] = sram.clear(own, at[own], made.weight_words) + made.weight_words
    return at


def users_that_fit(rack: Rack, scheduled: Scheduled) -> int:
    """Groups of users whose KV fits beside scheduled waves. Raises CapacityError if there is none."""
    return sram_map(rack, scheduled).users


def _clear(
    bad: tuple[BadWords, ...], chips: list[int], at: np.ndarray, words: np.ndarray | int
) -> np.ndarray:
    """bad: ascending."""
    if not bad:
        return at
    out, sizes = at.copy(), np.broadcast_to(words, at.shape)
    where = {chip: i for i, chip in enumerate(chips)}
    for chip, first, stop in bad:
        i = where.get(chip, -1)
        if i >= 0 and out[i] < stop and out[i] + sizes[i] > first:
            out[i] = stop
    return out
