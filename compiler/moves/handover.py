"""KV and states between GPUs and LPUs as programs: one call per layer, one row per region, over host lanes.

Each region that a decode program appends to takes its tokens of a layer's message (ingest) or gives them
(egress) over the lane of its chip; a state of fixed size goes whole, whatever the number of tokens.
The lanes of one layer's chips run side by side, each one row at a time.
Source: facts/afd.md sections 3.1 to 3.3 (layer-wise streaming; into fixed slots here).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from compiler.errors import CompileError, OptionError
from compiler.lower.rows import Kernels
from compiler.moves.regions import kv_regions, renewed, state_regions
from compiler.program.instructions.attention import AttentionKernel, is_ring
from compiler.program.instructions.host import HandoverKernel
from compiler.program.isa import COLUMNS, TAGS, Columns, Op
from compiler.program.manifest import Move, Slot
from compiler.program.program import LOADS, Block, Call, Loads, Program
from compiler.program.store import sealed
from compiler.timing import timing
from fabric.bridge import BridgeSpec
from fabric.link import ns_to_cycles


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handover:
    """What is asked for. ready: cycle by layer from which on its slot may begin; None: one after another."""

    decode: Program
    tokens: int
    bridge: BridgeSpec
    kind: Literal["ingest", "egress"]
    ready: tuple[int, ...] | None

    @property
    def op(self) -> Op:
        """The opcode of its rows."""
        return Op.KVIN if self.kind == "ingest" else Op.KVOUT

    @property
    def context(self) -> int:
        """The bucket whose rows name the regions: they are the same in all."""
        return max(self.decode.manifest.contexts)


def compile_ingest(
    decode: Program,
    tokens: int,
    bridge: BridgeSpec,
    arrivals: Sequence[int] | None = None,
    *,
    overlap: bool = False,
) -> Program:
    """The program that writes `tokens` consecutive tokens of one sequence into the KV of a decode program.

    arrivals: for each layer the cycle at which a GPU has its K and V; its slot begins as soon as they can be
    there (the bridge's latency later) and the lanes of its chips are free, so layers on other chips overlap.
    None: slots one after another, cycle 0 is when the first word arrives. overlap: all is there at cycle 0,
    and layers on other chips come at the same time. What the GPUs' own links carry is not bounded here.
    Raises CompileError.
    """
    ready = (0,) * len(_keeping(decode)) if overlap else None
    if arrivals is not None:
        if min(arrivals, default=0) < 0:
            raise OptionError(
                "ingest", "arrivals", f"begin at {min(arrivals)}, must be at least 0", "Give cycles."
            )
        latency = ns_to_cycles(bridge.latency_ns, decode.manifest.clock_hz)
        ready = tuple(int(cycle) + latency for cycle in arrivals)
    return _compile(_Handover(decode=decode, tokens=tokens, bridge=bridge, kind="ingest", ready=ready))


def compile_egress(decode: Program, tokens: int, bridge: BridgeSpec, *, overlap: bool = False) -> Program:
    """The program that reads `tokens` consecutive tokens of one sequence out of the KV of a decode program.

    overlap: layers on other chips at the same time, instead of slots one after another.
    Raises CompileError.
    """
    ready = (0,) * len(_keeping(decode)) if overlap else None
    return _compile(_Handover(decode=decode, tokens=tokens, bridge=bridge, kind="egress", ready=ready))


def layer_slots(decode: Program, tokens: int, bridge: BridgeSpec) -> tuple[int, ...]:
    """Cycles of the slot of each layer that `compile_ingest` would give it. Raises CompileError."""
    over = _Handover(decode=decode, tokens=tokens, bridge=bridge, kind="ingest", ready=None)
    keeping = _keeping(decode)
    blocks, made = _blocks(over, keeping, Kernels())
    return tuple(blocks[made[call.block]].cycles[over.context] for call in keeping)


def _compile(over: _Handover) -> Program:
    keeping, kernels = _keeping(over.decode), Kernels()
    blocks, made = _blocks(over, keeping, kernels)
    return _program(over, kernels, blocks, _calls(over, keeping, made, blocks))


def _blocks(over: _Handover, keeping: list[Call], kernels: Kernels) -> tuple[list[Block], dict[int, int]]:
    """The blocks of a hand-over, and by block of the decode program which of them it has."""
    _check(over, len(keeping))
    made: dict[int, int] = {}
    blocks: list[Block] = []
    for call in keeping:
        if call.block not in made:
            block = _block(over, over.decode.blocks[call.block], kernels)
            same = [i for i, one in enumerate(blocks) if _alike(one, block, over.context)]
            made[call.block] = same[0] if same else len(blocks)
            blocks += [] if same else [block]
    lines = {_heads(block.columns[over.context], kernels) for block in blocks} - {0}
    if len(lines) > 1:
        reason = f"layers have {min(lines)} to {max(lines)} of them"
        raise CompileError(over.kind, "KV regions", reason, "Use a model whose layers have equal KV heads.")
    return blocks, made


def _heads(rows: Columns, kernels: Kernels) -> int:
    """Rows that move KV."""
    return sum(isinstance(kernels.items[aux], HandoverKernel) for aux in rows.aux.tolist())


def _alike(one: Block, other: Block, context: int) -> bool:
    """Whether two blocks have the same rows."""
    rows, others = one.columns[context], other.columns[context]
    return all(np.array_equal(getattr(rows, name), getattr(others, name)) for name in COLUMNS + TAGS)


def _check(over: _Handover, layers: int) -> None:
    """Raise OptionError for a program or a number of tokens that there is no hand-over for."""
    manifest, most = over.decode.manifest, over.context
    if manifest.waves is not None:
        reason = f"keeps KV of {manifest.waves.users} groups of users, a hand-over knows 1"
        remedy = "Compile with --objective latency."
        raise OptionError(over.kind, "--objective throughput", reason, remedy)
    if not layers:
        raise OptionError(over.kind, "program", "keeps nothing of 0 layers", "Give one that decodes.")
    kernels = [k for k in manifest.kernels if isinstance(k, AttentionKernel)]
    if rings := [k for k in kernels if k.reach and is_ring(k, most)]:
        reason = f"keeps the last {rings[0].capacity} tokens of layers that see {rings[0].reach}"
        remedy = f"Compile with --context {rings[0].capacity} or less."
        raise OptionError(over.kind, "program", f"{reason}; a hand-over knows whole contexts", remedy)
    if not 1 <= over.tokens <= most:
        reason = f"are {over.tokens}, the longest context is {most}"
        raise OptionError(over.kind, "tokens", reason, f"Give 1 to {most}.")
    if over.ready is not None and len(over.ready) != layers:
        reason = f"are {len(over.ready)}, the program has {layers} layers"
        raise OptionError(over.kind, "arrivals", reason, "Give one for each layer.")


def _keeping(decode: Program) -> list[Call]:
    """The calls that append to KV or renew states, in the order of the layers."""
    context = max(decode.manifest.contexts)
    parts = [block.columns[context] for block in decode.blocks]
    keeps = [bool((rows.op == Op.KVW).any()) or len(renewed(rows)) > 0 for rows in parts]
    return [call for call in decode.calls if keeps[call.block]]


def _block(over: _Handover, block: Block, kernels: Kernels) -> Block:
    """One row per region of a block: of KV in order of lines, then of states; on each chip in that order."""
    manifest, rows = over.decode.manifest, block.columns[over.context]
    slot = over.bridge.slot_cycles(manifest.clock_hz)
    known = over.kind, block.name, rows, manifest.kernels, kernels
    moved = kv_regions(*known, over.tokens, slot).then(state_regions(*known, slot))
    hold = np.zeros(len(moved.n), np.int64)
    for aux in np.unique(moved.aux).tolist():
        own = moved.aux == aux
        hold[own] = timing(over.op, moved.n[own], kernels.items[aux], manifest.chip, manifest.rows)[0]
    t0 = _before(moved.chip, hold)
    lane = 2 * manifest.chip.planes + manifest.chip.vxm_chains + (over.kind == "egress")
    same = {"op": int(over.op), "unit": lane}
    columns = {name: np.full(len(hold), same.get(name, -1), np.int64) for name in COLUMNS + TAGS}
    columns |= {"chip": moved.chip, "t0": t0, "t1": t0 + hold, "src3": moved.line}
    columns |= {"aux": moved.aux, "n": moved.n}
    at = "dst" if over.kind == "ingest" else "src2"
    columns |= {at: moved.word, at + "_tag": moved.tag}
    return Block(
        name=block.name,
        columns={over.context: Columns(**columns)},
        cycles={over.context: int(columns["t1"].max())},
        loads=Loads(**{name: np.zeros(0, np.int64) for name in LOADS}),
        maps=(),
        slots=(),
    )


def _before(rank: np.ndarray, hold: np.ndarray) -> np.ndarray:
    """Cycles of the earlier entries of the same rank, of each entry."""
    order = np.argsort(rank, kind="stable")
    before = np.cumsum(hold[order]) - hold[order]
    first = np.searchsorted(rank[order], rank[order])
    out = np.empty(len(rank), np.int64)
    out[order] = before - before[first]
    return out


def _calls(
    over: _Handover, keeping: list[Call], made: dict[int, int], blocks: list[Block]
) -> tuple[Call, ...]:
    """A call per layer, on the chips and KV bases of the decode program's, and the cycle of its slot."""
    free: dict[int, int] = {}  # by chip, when its lane is
    end = 0
    calls: list[Call] = []
    for layer, call in enumerate(keeping):
        block = blocks[made[call.block]]
        rows = block.columns[over.context]
        chips = [call.chips[rank] for rank in rows.chip]
        base = end
        if over.ready is not None:
            base = max(over.ready[layer], *(free.get(chip, 0) for chip in chips))
        end = base + block.cycles[over.context]
        for chip, done in zip(chips, rows.t1.tolist(), strict=True):
            free[chip] = max(free.get(chip, 0), base + done)
        calls.append(
            Call(
                block=made[call.block],
                name=call.name,
                chips=call.chips,
                weight_base=call.weight_base,
                kv_base=call.kv_base,
                shared_base=call.shared_base,
                tag=call.tag,
                tensors=(),
                base={over.context: base},
            )
        )
    return tuple(calls)


def _program(over: _Handover, kernels: Kernels, blocks: list[Block], calls: tuple[Call, ...]) -> Program:
    decode, context = over.decode.manifest, over.context
    slots = tuple(Slot(call.name, call.base[context], blocks[call.block].cycles[context]) for call in calls)
    move = Move(
        kind=over.kind,
        program=decode.digest,
        tokens=over.tokens,
        bridge=replace(over.bridge, sources=()),
        layers=len(calls),
        ready=over.ready,
        slots=slots,
    )
    of_bridge = tuple(replace(one, field=f"bridge.{one.field}") for one in over.bridge.sources)
    manifest = replace(
        decode,
        body=move,
        contexts=(context,),
        cycles={context: max(slot.base + slot.cycles for slot in slots)},
        kernels=tuple(kernels.items),
        sources=decode.sources + of_bridge,
        search=(),
        prefill=0,
        logits=(),
        token=None,
    )
    return sealed(Program(manifest=manifest, blocks=tuple(blocks), calls=calls))
