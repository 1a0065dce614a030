"""What moves before a remapped program can run: weights over FPGA lanes, KV over links, by cycles."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from compiler.errors import bug
from compiler.program.isa import WORD_BYTES, ceil_div
from compiler.program.program import Program
from fabric.host import RESERVOIR
from fabric.numbering import Numbering
from fabric.paths import shortest_path
from fabric.rack import Rack
from lpu.remap.pieces import HeldWords, KVRegion, by_name, kv_of, weights_of

Origin = Literal["DDR5", "host", "link", "SRAM"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Words that move over one lane or link, from cycle t0 on; they are there at cycle t1.

    source: DDR5 or host over the FPGA lane of chip b, a link from chip a, or other words of the chip itself.
    """

    what: str
    source: Origin
    a: int
    b: int
    words: int
    t0: int
    t1: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemapMoves:
    """All transfers, in order of cycles, and the KV that is lost.

    kept_bytes: weights and KV that stay where they are. lost: KV regions whose chip or words are broken, or
    that other chips hold in another form, by name; then no KV moves, as every token is taken again.
    """

    transfers: tuple[Transfer, ...]
    kept_bytes: int
    lost: tuple[str, ...]
    lost_bytes: int

    @property
    def cycles(self) -> int:
        """The cycle at which the last word is there."""
        return max((one.t1 for one in self.transfers), default=0)

    def bytes_from(self, source: Origin) -> int:
        """Bytes that come from there; over several links each counts once."""
        some = [one for one in self.transfers if one.source == source]
        onward = {(one.what, one.a) for one in some} if source == "link" else set[tuple[str, int]]()
        return sum(one.words for one in some if (one.what, one.b) not in onward) * WORD_BYTES

    def by_chip(self) -> dict[int, int]:
        """Bytes that each chip takes in, over lanes and links."""
        out: dict[int, int] = {}
        for one in self.transfers:
            if one.source != "SRAM":
                out[one.b] = out.get(one.b, 0) + one.words * WORD_BYTES
        return dict(sorted(out.items()))

    def by_link(self) -> dict[tuple[int, int], int]:
        """Bytes over each link."""
        out: dict[tuple[int, int], int] = {}
        for one in self.transfers:
            if one.source == "link":
                out[one.a, one.b] = out.get((one.a, one.b), 0) + one.words * WORD_BYTES
        return dict(sorted(out.items()))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        names: tuple[Origin, ...] = ("DDR5", "host", "link", "SRAM")
        return {
            "cycles": self.cycles,
            "bytes": {name: self.bytes_from(name) for name in names},
            "kept_bytes": self.kept_bytes,
            "lost_kv_bytes": self.lost_bytes,
            "bytes_by_chip": {str(chip): count for chip, count in self.by_chip().items()},
            "bytes_by_link": {f"{a}-{b}": count for (a, b), count in self.by_link().items()},
            "transfers": [[o.what, o.source, o.a, o.b, o.words, o.t0, o.t1] for o in self.transfers],
        }

    def verify(self, rack: Rack) -> None:
        """Raise CompileError if a lane has two transfers at once, or words leave before they are there."""
        free: dict[tuple[str, int, int], int] = {}
        there: dict[tuple[str, int], int] = {}
        for one in sorted(self.transfers, key=lambda t: t.t0):
            if one.source == "link" and rack.link(one.a, one.b) < 0:
                raise bug("moves", one.what, f"takes link {one.a}-{one.b}, which is not there")
            key = (one.source if one.source in ("link", "SRAM") else "lane", one.a, one.b)
            if free.get(key, 0) > one.t0:
                raise bug("moves", one.what, f"begins at cycle {one.t0}, {key} is free at {free[key]}")
            free[key] = _leaves(one, rack)
            if one.source == "link" and there.get((one.what, one.a), 0) > one.t0:
                raise bug("moves", one.what, f"leaves chip {one.a} at {one.t0}, before it is there")
            there[one.what, one.b] = one.t1


def _leaves(one: Transfer, rack: Rack) -> int:
    """The cycle at which the lane or link is free again."""
    return one.t1 - int(rack.links.hop_cycles[rack.link(one.a, one.b)]) if one.source == "link" else one.t1


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBefore:
    """What lay in memory before the faults: weights by what they are, KV regions, where weights come from."""

    weights: dict[str, list[HeldWords]]
    kv: dict[KVRegion, HeldWords]
    source: Origin

    @staticmethod
    def of(parent: Program) -> "MemoryBefore":
        """The memory of a program."""
        return MemoryBefore(weights=by_name(weights_of(parent)), kv=kv_of(parent), source=_source(parent))


def moves_between(before: MemoryBefore, child: Program, numbers: Numbering) -> RemapMoves:
    """What moves from the memory of a program to that of another of the same model, on a broken rack.

    numbers: the chips of the rack that work, which KV moves over.
    """
    rack = numbers.given
    assert rack.damage is not None
    damage = rack.damage
    gone = set(damage.lost)

    def works(one: HeldWords) -> bool:
        return one.chip not in gone and not one.lies_in(damage.bad)

    lanes = _Lanes(numbers, before.source)
    kept = 0
    for one in weights_of(child):
        there = [old for old in before.weights.get(one.name, []) if old.chip == one.chip and works(old)]
        kept += one.words if there else 0
        if not there:
            lanes.load(one)
        elif all((old.first, old.order) != (one.first, one.order) for old in there):
            lanes.shift(one)
    after = kv_of(child)
    lost = [one for region, one in after.items() if region not in before.kv or not works(before.kv[region])]
    for region, one in after.items() if not lost else ():  # else all of it is made again
        old = before.kv[region]
        if old.chip != one.chip:
            lanes.carry(one, old.chip)
        else:
            kept += one.words
            if old.first != one.first:
                lanes.shift(one)
    transfers = tuple(sorted(lanes.transfers, key=lambda t: (t.t0, t.b, t.a, t.what)))
    found = RemapMoves(
        transfers=transfers,
        kept_bytes=kept * WORD_BYTES,
        lost=tuple(one.name for one in lost),
        lost_bytes=sum(one.words for one in lost) * WORD_BYTES,
    )
    found.verify(rack)
    return found


def _source(program: Program) -> Origin:
    """Where weights come from: the DDR5 of the tray if that holds the weights of the whole model."""
    words = int(program.manifest.region_table()[:, 2, 1].sum())
    return "DDR5" if RESERVOIR.holds(words * WORD_BYTES) else "host"


class _Lanes:
    """When each FPGA lane, link and SRAM is free: on each one transfer after another, all side by side."""

    def __init__(self, numbers: Numbering, source: Origin) -> None:
        self.source: Origin = source
        self.numbers, self.rack = numbers, numbers.given
        self.number = {chip: i for i, chip in enumerate(numbers.chips.tolist())}
        self.slot = RESERVOIR.slot_cycles(self.rack.chip.clock_hz, source == "DDR5")
        self.transfers: list[Transfer] = []
        self._free: dict[tuple[int, ...], int] = {}

    def load(self, one: HeldWords) -> None:
        """Weights over the FPGA lane of their chip."""
        self._add(one, self.source, -1, one.chip, (one.chip,), one.words * self.slot)

    def shift(self, one: HeldWords) -> None:
        """Words to another place of the same chip: each is read and written once by half of the ports."""
        ports = max(self.rack.chip.activation_ports // 2, 1)
        self._add(one, "SRAM", one.chip, one.chip, (one.chip, one.chip, 0), int(ceil_div(one.words, ports)))

    def carry(self, one: HeldWords, source: int) -> None:
        """Words over the links of the shortest path, each chip storing all before it forwards."""
        ready, links = 0, self.rack.links
        path = shortest_path(self.numbers.rack, self.number[source], self.number[one.chip])
        for a, b in pairwise(self.numbers.named(path)):
            row = self.rack.link(a, b)
            cycles = int(ceil_div(one.words, int(links.lanes[row]))) * int(links.slot_cycles[row])
            hop = int(links.hop_cycles[row])
            ready = self._add(one, "link", a, b, (a, b), cycles, ready, hop) + self.rack.forward_cycles

    def _add(
        self,
        one: HeldWords,
        source: Origin,
        a: int,
        b: int,
        unit: tuple[int, ...],
        cycles: int,
        ready: int = 0,
        hop: int = 0,
    ) -> int:
        t0 = max(ready, self._free.get(unit, 0))
        self._free[unit] = t0 + cycles
        self.transfers.append(
            Transfer(what=one.name, source=source, a=a, b=b, words=one.words, t0=t0, t1=t0 + cycles + hop)
        )
        return t0 + cycles + hop
