"""The host lanes: lines of a hop's message and answer, KV and states of a layer, weights from DDR5."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from compiler.program.instructions.attention import AttentionKernel, KVKernel, kv_region_words
from compiler.program.instructions.cold import ColdTileKernel, tile_words
from compiler.program.instructions.fetched import fetched_lines
from compiler.program.isa import (
    HOST_IN,
    HOST_OUT,
    KV,
    TRANSIENT,
    WEIGHTS,
    Count,
    Holds,
    Instruction,
    Kernel,
    Lines,
    Op,
    Operand,
    ceil_div,
    same,
)

Wire = Literal["fp8", "fp16", "f32"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeKernel(Kernel):
    """Lines from the host in format `wire`; host_slot: cycles of a word on the lane."""

    family: ClassVar[str] = "take"
    wire: Wire
    host_slot: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveKernel(Kernel):
    """Lines to the host in format `wire`; host_slot: cycles of a word on the lane."""

    family: ClassVar[str] = "give"
    wire: Wire
    host_slot: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverKernel(KVKernel):
    """Tokens of one KV region over the lane; host_slot: cycles of a word on it."""

    family: ClassVar[str] = "handover"
    host_slot: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class StateMoveKernel(Kernel):
    """States of one sequence over the lane: `kept` words of each line; `cached` sequences lie there."""

    family: ClassVar[str] = "state_move"
    kept: Count
    cached: Count
    host_slot: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadKernel(Kernel):
    """Words from DDR5 over the lane; host_slot: cycles of a word on it."""

    family: ClassVar[str] = "load"
    host_slot: Count


LaneKernel = (
    TakeKernel | GiveKernel | HandoverKernel | StateMoveKernel | LoadKernel | AttentionKernel | ColdTileKernel
)


def wire_words(n: Lines, k: LaneKernel, rows: int) -> Lines:
    """Words that rows move over the host lane of their chip, in `k.host_slot` cycles each."""
    if isinstance(k, LoadKernel):
        return n
    if isinstance(k, ColdTileKernel):
        return tile_words(k) + 0 * n
    if isinstance(k, AttentionKernel):
        return rows * fetched_lines(k) + 0 * n
    if isinstance(k, HandoverKernel):
        return n * k.kv_words
    if isinstance(k, StateMoveKernel):
        return n * k.kept
    return rows * (ceil_div(n, 2) if k.wire == "fp8" else n)


def moved_region(n: Lines, k: HandoverKernel | StateMoveKernel) -> Lines:
    """Words of the region that a row moves tokens or states of."""
    return n * k.kept * k.cached if isinstance(k, StateMoveKernel) else kv_region_words(n, k)


def _given(k: GiveKernel) -> int:
    return Holds.F16 if k.wire == "fp16" else Holds.F32


INSTRUCTIONS = (
    Instruction(
        op=Op.TAKE,
        name="TAKE",
        unit=HOST_IN,
        kernel=TakeKernel,
        reads=(),
        write=Operand("dst", TRANSIENT, same, Holds.F16),
        numbers=(("src3", "line"),),
    ),
    Instruction(
        op=Op.GIVE,
        name="GIVE",
        unit=HOST_OUT,
        kernel=GiveKernel,
        reads=(Operand("src", TRANSIENT, same, _given),),
        write=None,
        numbers=(("src3", "line"),),
    ),
    Instruction(
        op=Op.KVIN,
        name="KVIN",
        unit=HOST_IN,
        kernel=HandoverKernel,
        forms=(StateMoveKernel,),
        reads=(),
        write=Operand("dst", KV, moved_region),
        moves="ingest",
        numbers=(("n", "tokens"), ("src3", "line")),
    ),
    Instruction(
        op=Op.KVOUT,
        name="KVOUT",
        unit=HOST_OUT,
        kernel=HandoverKernel,
        forms=(StateMoveKernel,),
        reads=(Operand("src2", KV, moved_region),),
        write=None,
        moves="egress",
        numbers=(("n", "tokens"), ("src3", "line")),
    ),
    Instruction(
        op=Op.LOAD,
        name="LOAD",
        unit=HOST_IN,
        kernel=LoadKernel,
        reads=(),
        write=Operand("dst", WEIGHTS, same, tagged=False),
        moves="switch",
        numbers=(("n", "words"), ("src3", "from word")),
    ),
)
