"""What a program says of itself besides its rows: the machine, the memory map, what it leaves, its origin.

Records only; `compiler/program/store.py` alone turns them into JSON and back.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.options import CompileOptions
from compiler.program.instructions.attention import KVFormat
from compiler.program.instructions.host import Wire
from compiler.program.isa import Kernel
from fabric.bridge import BridgeSpec
from fabric.chip import ChipSpec, Sourced
from fabric.host import Reservoir
from models.version import CONTRACT

SCHEMA = f"lpu-program/2, contract {CONTRACT}"
HOPS = 1  # the one context of a program of hops, which read no KV


class Region(NamedTuple):
    """Words of SRAM: the first one, and how many."""

    base: int
    words: int


class Regions(NamedTuple):
    """What the SRAM of one chip is divided into."""

    transient: Region
    kv: Region
    weights: Region


class Link(NamedTuple):
    """One directed link: from chip a to chip b, its lanes, cycles of a hop, and of a word on one lane."""

    a: int
    b: int
    lanes: int
    hop_cycles: int
    slot_cycles: int


class LevelWiring(NamedTuple):
    """A level of the rack: its name, how its groups are wired, and the chips of each of them."""

    name: str
    kind: str
    groups: tuple[tuple[int, ...], ...]


class Place(NamedTuple):
    """Where a result lies when a step ends: chip and word."""

    chip: int
    address: int


class LogitsLine(NamedTuple):
    """Where one line of logits lies when a step ends; `line` counts padded lines of the vocabulary."""

    chip: int
    address: int
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """Which model a program was compiled from.

    config: the numbers of a family's model, None for a module of the user's own. kv: format of the cache.
    parameters: digest of the names and shapes of all weights; weights: where they come from, weights_digest:
    what they are.
    """

    name: str = ""
    config: dict[str, Any] | None = None
    kv: KVFormat = "fp16"
    parameters: str = ""
    weights: str = ""
    weights_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """What of the rack is broken: its faults by name, and the chips that are lost with them.

    parent: digest of the program that ran before them.
    """

    faults: tuple[str, ...]
    lost: tuple[int, ...]
    parent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A `tp` that the search tried: the cycles of its step, or why it has none."""

    tp: int
    cycles: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step at a time."""

    kind: Literal["step"] = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveContext:
    """How often a new wave enters, per context bucket.

    turn: intervals after which one user may step again; 1 for chunks of a prompt. bound: no shorter interval;
    bound_of: why.
    """

    interval: int
    turn: int
    bound: int
    bound_of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waves:
    """A new step of other users may enter every interval; of a prefill program, the next chunk of a prompt.

    users: groups of `rows` sequences whose KV is kept. arenas, arena_words: copies and words of the
    transients by chip; user_words: words of one user's KV by chip. tags: values of a wave.
    """

    users: int
    arenas: tuple[int, ...]
    arena_words: tuple[int, ...]
    user_words: tuple[int, ...]
    tags: int
    contexts: dict[int, WaveContext]
    kind: Literal["waves"] = "waves"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What crosses the host lanes for one hop, one way: [rows, width] in a format of the wire."""

    rows: int
    width: int
    wire: Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One hop: its call, the cycle at which that begins, its cycles, what comes in and what goes out.

    nodes: of the model's graph, that it computes.
    """

    name: str
    call: int
    base: int
    cycles: int
    inputs: Message
    outputs: Message
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hops:
    """The LPU side of attention/FFN disaggregation: hops that run one at a time, behind a bridge.

    host_slot: cycles of a word on the host lane of a chip.
    """

    hops: tuple[Hop, ...]
    bridge: BridgeSpec
    host_slot: int
    kind: Literal["hops"] = "hops"


class Slot(NamedTuple):
    """When the message of one layer crosses: the call's name, its first cycle, its cycles."""

    name: str
    base: int
    cycles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """KV of one sequence over the host lanes, in ("ingest") or out ("egress") of a decode program's memory.

    program: digest of the decode program. tokens: of one sequence. ready: cycle by layer before which its
    slot may not begin; None: slots one after another.
    """

    kind: Literal["ingest", "egress"]
    program: str
    tokens: int
    bridge: BridgeSpec
    layers: int
    ready: tuple[int, ...] | None
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Weights of the program `after` from the DDR5 of the trays into SRAM, over the lane of each chip.

    before, after: digests of the programs that run until cycle `stop`, and then. held: the regions of
    `before`, which nothing is written to before that. keeps: whether users go on with the KV of `before`.
    The DDR5 of an FPGA has the weight regions of its chips one after another, as they will lie in SRAM.
    """

    before: str
    after: str
    stop: int
    held: tuple[Regions, ...]
    reservoir: Reservoir
    keeps: bool = False
    kind: Literal["switch"] = "switch"


Body = Step | Waves | Hops | Move | Switch


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a program says of itself. `body` is its kind and what only programs of that kind have.

    inputs: sha256 of what was compiled. rows: of a step; sequences: of the KV cache; chunk: rows of each
    sequence that a step takes, 1 to decode; prefill: chunk of the prefill program with the same memory image,
    0 for none. capacity: tokens of KV per region and sequence. cycles: of a step, by context bucket. kernels:
    what `aux` of a row indexes. regions: by chip. logits, token, vocab: what a step leaves (none, None and 0
    where it leaves no token). groups: of chips that have work. sources: of every number of the machine.
    broken: faults of the rack, which `links` is without. digest: of the program, see
    `compiler/program/store.py`.
    """

    model: ModelIdentity
    options: CompileOptions
    rack: str
    chips: int
    chip: ChipSpec
    forward_cycles: int
    links: tuple[Link, ...]
    levels: tuple[LevelWiring, ...]
    sources: tuple[Sourced, ...]
    rows: int
    sequences: int
    chunk: int
    prefill: int
    capacity: int
    contexts: tuple[int, ...]
    cycles: dict[int, int]
    kernels: tuple[Kernel, ...]
    regions: tuple[Regions, ...]
    logits: tuple[LogitsLine, ...]
    token: Place | None
    vocab: int
    groups: tuple[tuple[int, ...], ...]
    body: Body
    search: tuple[Candidate, ...] = ()
    broken: Broken | None = None
    versions: dict[str, str] = field(default_factory=dict[str, str])
    schema: str = SCHEMA
    inputs: str = ""
    digest: str = ""

    @property
    def kind(self) -> str:
        """The kind of program: "step", "waves", "hops", "ingest", "egress" or "switch"."""
        return self.body.kind

    @property
    def clock_hz(self) -> int:
        """Cycles of the schedule clock in a second."""
        return self.chip.clock_hz

    @property
    def tp(self) -> int:
        """Chips per group."""
        return self.options.tp or 1

    @property
    def bridge(self) -> BridgeSpec | None:
        """The bridge of a program that uses the host lanes."""
        return self.body.bridge if isinstance(self.body, Hops | Move) else None

    @property
    def waves(self) -> Waves | None:
        """The waves of a throughput program."""
        return self.body if isinstance(self.body, Waves) else None

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The hops of a program of hops; none of others."""
        return self.body.hops if isinstance(self.body, Hops) else ()

    @property
    def longest(self) -> int:
        """The largest context bucket."""
        return max(self.contexts)

    def link_table(self) -> Int[np.ndarray, "links 5"]:
        """The links as rows of numbers, in the order of `Link`."""
        return _link_table(self.links)

    def region_table(self) -> Int[np.ndarray, "chips 3 2"]:
        """Base and words of each region (transient, kv, weights) of each chip."""
        return np.array(self.regions, np.int64).reshape(-1, 3, 2)


@lru_cache(maxsize=4)
def _link_table(links: tuple[Link, ...]) -> Int[np.ndarray, "links 5"]:
    """The table of `Manifest.link_table`: made once, asked for by every block of a report."""
    table = np.fromiter(chain.from_iterable(links), np.int64, 5 * len(links)).reshape(-1, 5)
    table.setflags(write=False)
    return table
