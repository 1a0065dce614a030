"""Mode pd: GPUs prefill, KV goes to the LPUs layer by layer behind the prefill, the LPUs decode.

A turn's first token is the LPUs' step of the last token of its prompt. Source: facts/afd.md section 3.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compiler.handover import compile_egress, compile_ingest
from compiler.program.manifest import Move, Slot
from compiler.program.program import Call, Program
from lpu.afd.turn import Turn
from lpu.check.check import require
from lpu.check.memory_image import check_handover
from lpu.gpu.request import Part, Request, cycles_ps, picoseconds
from lpu.gpu.share import GpuShare
from lpu.run.step_inputs import bucket_of

Policy = Literal["recompute", "copy-back"]
POLICIES: tuple[Policy, ...] = ("recompute", "copy-back")
"""How GPUs get the KV of what the LPUs decoded: they prefill those tokens again, or the LPUs send it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """When the layers of a turn's KV are there: picoseconds after the prefill began.

    computed: on the GPUs. sent: when the NICs are done with it. arrived: at the FPGAs, all bytes. begins,
    ends: of the slot in which the chips of the layer take it; a slot is as many cycles as its rows, whatever
    arrives. chips: of each layer, those that take it.
    """

    computed: tuple[int, ...]
    sent: tuple[int, ...]
    arrived: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    chips: tuple[tuple[int, ...], ...]

    @property
    def exposed(self) -> int:
        """Picoseconds from the end of the prefill to the last word in SRAM."""
        return max(self.ends) - self.computed[-1]

    @property
    def hidden(self) -> float:
        """The share of the hand-over, from the first layer's bytes to the last word, behind the prefill."""
        return 1 - self.exposed / (max(self.ends) - self.computed[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a turn has to do, in tokens of each sequence.

    prefix: tokens whose KV the GPUs have. prefilled: those that they compute. handed: those whose KV goes to
    the LPUs, which take the last token of the prompt themselves. returned: decoded ones that come back.
    """

    prefix: int
    prefilled: int
    handed: int
    returned: int


def work(request: Request, policy: Policy, number: int) -> Work:
    """The work of a turn: GPUs lack the KV of what the LPUs took in the turn before it."""
    before, brings = request.before(number), request.brings(number)
    if not number:
        known = request.cached_tokens
        return Work(prefix=known, prefilled=brings - 1 - known, handed=brings - 1, returned=0)
    again = request.new_tokens if policy == "recompute" else 0
    return Work(
        prefix=before - 1 - request.new_tokens,
        prefilled=brings + again,
        handed=brings,
        returned=request.new_tokens - again,
    )


def stream(
    computed: Sequence[int],
    wire: int,
    latency: int,
    slots: Sequence[int],
    chips: Sequence[tuple[int, ...]],
) -> Handover:
    """Layers in a row over the NICs (`wire` each), the latency, and their slots on their chips."""
    sent: list[int] = []
    begins: list[int] = []
    ends: list[int] = []
    taken: dict[int, int] = {}
    for ready, takes, where in zip(computed, slots, chips, strict=True):
        sent.append(max(sent[-1] if sent else 0, ready) + wire)
        begins.append(max(sent[-1] + latency, *(taken.get(chip, 0) for chip in where)))
        ends.append(begins[-1] + takes)
        taken.update(dict.fromkeys(where, ends[-1]))
    return Handover(
        computed=tuple(computed),
        sent=tuple(sent),
        arrived=tuple(moment + latency for moment in sent),
        begins=tuple(begins),
        ends=tuple(ends),
        chips=tuple(chips),
    )


def turns(
    request: Request, share: GpuShare, decode: Program, policy: Policy, check: bool = True
) -> tuple[tuple[Turn, ...], tuple[Handover, ...]]:
    """The turns of a request in time, and the hand-over of each.

    check: the programs that move KV too. Raises HazardError if one breaks a rule.
    """
    found = [_turn(request, share, decode, policy, number, check) for number in range(request.turns)]
    return tuple(turn for turn, _ in found), tuple(handover for _, handover in found)


def _turn(
    request: Request, share: GpuShare, decode: Program, policy: Policy, number: int, check: bool
) -> tuple[Turn, Handover]:
    todo = work(request, policy, number)
    ingest = compile_ingest(decode, todo.handed, share.bridge)
    egress = compile_egress(decode, todo.returned, share.bridge) if todo.returned else None
    if check:
        require(check_handover(decode, ingest, egress))
    handover = _handover(share, ingest, todo, request.batch)
    last = request.before(number) + request.brings(number) - 1
    steps = [_step(decode, last + i) for i in range(request.new_tokens)]
    later = steps[1:] or steps
    token = request.batch * _token_bytes(share) * share.config.layers
    turn = Turn(
        number=number,
        first=(
            Part(name="queue", picoseconds=picoseconds(request.queue_seconds), basis="assumed"),
            *_returned(share, egress, todo.returned, request.batch),
            Part(name="prefill", picoseconds=handover.computed[-1], basis=share.basis),
            Part(name="hand-over, exposed", picoseconds=handover.exposed, basis="modelled"),
            Part(name="first token", picoseconds=steps[0], basis="exact"),
        ),
        step=(Part(name="LPU step", picoseconds=sum(later) // len(later), basis="exact"),),
        tokens=request.new_tokens,
        reused=todo.prefix + todo.returned,
        crossed={"kv_down": todo.handed * token, "kv_up": todo.returned * token},
    )
    return turn, handover


def _handover(share: GpuShare, ingest: Program, todo: Work, batch: int) -> Handover:
    layers, clock = share.config.layers, ingest.manifest.clock_hz
    layer = share.prefill_layer(todo.prefilled, todo.prefix + todo.returned, batch)
    begin = share.embed(batch * todo.prefilled)
    return stream(
        [begin + layer * (i + 1) for i in range(layers)],
        share.wire(batch * todo.handed * _token_bytes(share), batch),
        share.latency,
        [batch * cycles_ps(cycles, clock) for _, _, cycles in _slots(ingest)],
        [_chips(ingest, call) for call in ingest.calls],
    )


def _slots(program: Program) -> tuple[Slot, ...]:
    """The slot of each layer's message."""
    assert isinstance(program.manifest.body, Move)
    return program.manifest.body.slots


def _chips(ingest: Program, call: Call) -> tuple[int, ...]:
    """The chips that a layer's rows are on."""
    (context,) = ingest.manifest.contexts
    return tuple(sorted(set(ingest.expand_call(call, context).chip.tolist())))


def _returned(share: GpuShare, egress: Program | None, tokens: int, batch: int) -> tuple[Part, ...]:
    """Reading decoded KV out of SRAM and sending it, before the prefill that needs it."""
    if egress is None:
        return ()
    clock, slots = egress.manifest.clock_hz, _slots(egress)
    given = batch * sum(cycles_ps(cycles, clock) for _, _, cycles in slots)
    wired = share.latency + share.wire(batch * tokens * _token_bytes(share) * share.config.layers, batch)
    return (
        Part(name="kv read from SRAM", picoseconds=given, basis="exact"),
        Part(name="kv to the GPUs", picoseconds=wired, basis="modelled"),
    )


def _token_bytes(share: GpuShare) -> int:
    """K and V of one token and layer."""
    return 2 * share.config.kv_heads * share.config.head_dim * (1 if share.kv == "fp8" else 2)


def _step(decode: Program, position: int) -> int:
    """Picoseconds of the step that takes the token at a position."""
    bucket = bucket_of(decode.manifest.contexts, position)
    return cycles_ps(decode.manifest.cycles[bucket], decode.manifest.clock_hz)
