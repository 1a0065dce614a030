"""Ground truth: small problems whose best placements are proved, kept in truth.json beside this file.

Trays of four chips, blocks on whole trays: chains, diamonds and layers of experts with random numbers.
`benchmarks/placement_truth.py` makes the file again, by exhaustive search and by CP-SAT.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from compiler.place.cost import CostModel
from compiler.place.problem import Need, Shards
from fabric.catalog import chip_spec
from fabric.chip import Sourced
from fabric.rack import Rack, build_rack
from fabric.topology import Level, RackSpec

FILE = Path(__file__).with_name("truth.json")
TP = 4
Shape = Literal["chain", "diamonds", "experts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvedProblem:
    """A problem by its numbers: its optimum, the tray of each block there, and who proved it.

    room: words of a chip. needs: of each block, as `Need` has them but one count of words for all ranks.
    """

    name: str
    shape: Shape
    trays: int
    alpha: int
    room: int
    before: tuple[tuple[int, ...], ...]
    needs: tuple[dict[str, int], ...]
    optimum: int = -1
    at: tuple[int, ...] = ()
    proved_by: tuple[str, ...] = ()

    def cost(self) -> CostModel:
        """The cost model of the problem on its rack."""
        shards = Shards(
            names=tuple(f"b{i}" for i in range(len(self.needs))),
            kinds=tuple(range(len(self.needs))),
            before=self.before,
            tp=TP,
            room=self.room,
            need=self._need,
        )
        return CostModel(shards, rack(self.trays), self.alpha)

    def _need(self, kind: int, ranks: int) -> Need:
        """On fewer chips than a tray has, each does and holds more."""
        need = self.needs[kind]
        each = {name: -(-need[name] * TP // ranks) for name in ("words", "work", "busy", "handed")}
        rounds = need["rounds"] if ranks > 1 else 0
        return Need(
            words=(each["words"],) * ranks,
            work=each["work"],
            busy=each["busy"],
            rounds=rounds,
            sent=need["sent"],
            handed=each["handed"],
            sources=ranks,
        )


def rack(trays: int) -> Rack:
    """Trays of four chips, two cables between every two trays; numbers as in the LPX rack."""
    made = "made up for ground truth, after the lpx rack"
    names = ("forward_ns", "tray.size", "tray.lanes", "tray.hop_ns", "rack.size", "rack.lanes", "rack.hop_ns")
    levels = (
        Level(name="tray", kind="all-to-all", size=TP, lanes=8, hop_ns=350),
        Level(name="rack", kind="dragonfly", size=trays, links=2, lanes=4, hop_ns=350),
    )
    return build_rack(
        RackSpec(
            name=f"truth-{trays}",
            chip="lp30",
            forward_ns=50,
            levels=levels,
            sources=tuple(Sourced(field=name, confidence="assumed", source=made) for name in names),
        ),
        chip_spec("lp30"),
    )


def cases() -> list[ProvedProblem]:
    """Every case of the file."""
    return [_case(entry) for entry in json.loads(FILE.read_text())["cases"]]


def drawn(shape: Shape, blocks: int, trays: int, alpha: int, seed: int) -> ProvedProblem:
    """A case without its optimum: numbers of a seed, room for the blocks and a third more."""
    random = Random(f"{shape} {blocks} {trays} {seed}")
    needs = tuple(
        {
            "words": random.randrange(200, 1000),
            "work": (work := random.randrange(300, 3000)),
            "busy": work * random.randrange(40, 90) // 100,
            "rounds": random.randrange(0, 3),
            "sent": random.randrange(1, 30),
            "handed": random.randrange(4, 40),
        }
        for _ in range(blocks)
    )
    words = [need["words"] for need in needs]
    return ProvedProblem(
        name=f"{shape}-{blocks}-{trays}-a{alpha}",
        shape=shape,
        trays=trays,
        alpha=alpha,
        room=max(sum(words) * 4 // (3 * trays), max(words)),
        before=_reads(shape, blocks),
        needs=needs,
    )


def _reads(shape: Shape, blocks: int) -> tuple[tuple[int, ...], ...]:
    """What each block reads: a root, two readers and one that reads both (experts: three readers)."""
    if shape == "chain":
        return ((), *((i,) for i in range(blocks - 1)))
    width = 2 if shape == "diamonds" else 3
    reads: list[tuple[int, ...]] = [()]
    while len(reads) < blocks:
        root = len(reads) - 1
        middle = min(width, blocks - len(reads))
        reads += [(root,)] * middle
        if len(reads) < blocks:
            reads.append(tuple(range(root + 1, root + 1 + middle)))
    return tuple(reads)


def _case(entry: dict[str, Any]) -> ProvedProblem:
    lists: dict[str, Any] = {name: tuple(entry[name]) for name in ("needs", "at", "proved_by")}
    lists["before"] = tuple(tuple(reads) for reads in entry["before"])
    return ProvedProblem(**{**entry, **lists})
