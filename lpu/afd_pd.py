"""Mode pd: GPUs prefill, KV goes to the LPUs layer by layer behind the prefill, the LPUs decode.

A turn's first token is the LPUs' step of the last token of its prompt. Source: facts/afd.md section 3.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compiler.ingest import compile_egress, compile_ingest
from compiler.program import Program
from lpu.gpu_share import GpuShare
from lpu.request import Part, Request, cycles_ps
from lpu.run import bucket_of
from lpu.turn import Turn

Policy = Literal["recompute", "copy-back"]
POLICIES: tuple[Policy, ...] = ("recompute", "copy-back")
"""How GPUs get the KV of what the LPUs decoded: they prefill those tokens again, or the LPUs send it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """When the layers of a turn's KV are there: picoseconds after the prefill began.

    computed: on the GPUs. arrived: at the FPGAs, all bytes. begins, ends: of the slot in which the chips of
    the layer take it; a slot is as many cycles as its rows, whatever arrives.
    """

    computed: tuple[int, ...]
    arrived: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def exposed(self) -> int:
        """Picoseconds from the end of the prefill to the last word in SRAM."""
        return self.ends[-1] - self.computed[-1]


def stream(computed: Sequence[int], wire: int, latency: int, slot: Sequence[int]) -> Handover:
    """Layers one behind the other over the NICs (`wire` each), the latency, and their slots in SRAM."""
    arrived: list[int] = []
    begins: list[int] = []
    ends: list[int] = []
    sent = taken = 0
    for ready, takes in zip(computed, slot, strict=True):
        sent = max(sent, ready) + wire
        arrived.append(sent + latency)
        begins.append(max(taken, sent + latency))
        taken = begins[-1] + takes
        ends.append(taken)
    return Handover(computed=tuple(computed), arrived=tuple(arrived), begins=tuple(begins), ends=tuple(ends))


def turns(
    request: Request, share: GpuShare, decode: Program, policy: Policy
) -> tuple[tuple[Turn, ...], tuple[Handover, ...]]:
    """The turns of a request in time, and the hand-over of each."""
    found = [_turn(request, share, decode, policy, number) for number in range(request.turns)]
    return tuple(turn for turn, _ in found), tuple(handover for _, handover in found)


def _turn(
    request: Request, share: GpuShare, decode: Program, policy: Policy, number: int
) -> tuple[Turn, Handover]:
    config, batch, clock = share.config, request.batch, decode.manifest["clock_hz"]
    before, brings = request.before(number), request.brings(number)
    again = request.new_tokens if number and policy == "recompute" else 0
    prefilled = brings + again - (0 if number else 1)
    handed = brings - (0 if number else 1)
    token_bytes = 2 * config.kv_heads * config.head_dim * (1 if share.kv == "fp8" else 2)
    layer = share.prefill_layer(prefilled, before + brings - 1 - prefilled, batch)
    begin = share.embed(batch * prefilled)
    computed = [begin + layer * (i + 1) for i in range(config.layers)]
    ingest = compile_ingest(decode, handed, share.bridge).manifest["slots"]
    slot = [batch * cycles_ps(cycles, clock) for _, _, cycles in ingest]
    handover = stream(computed, share.wire(batch * handed * token_bytes, batch), share.latency, slot)
    back: tuple[Part, ...] = ()
    crossed = {"kv_down": batch * handed * token_bytes * config.layers}
    if number and policy == "copy-back":
        size = batch * request.new_tokens * token_bytes * config.layers
        egress = compile_egress(decode, request.new_tokens, share.bridge).manifest["slots"]
        given = batch * sum(cycles_ps(cycles, clock) for _, _, cycles in egress)
        crossed["kv_up"] = size
        back = (
            Part(name="kv read from SRAM", picoseconds=given, basis="exact"),
            Part(
                name="kv to the GPUs", picoseconds=share.latency + share.wire(size, batch), basis="modelled"
            ),
        )
    steps = [_step(decode, before + brings - 1 + i) for i in range(request.new_tokens)]
    later = steps[1:] or steps
    turn = Turn(
        number=number,
        first=(
            Part(name="queue", picoseconds=round(request.queue_seconds * 10**12), basis="assumed"),
            *back,
            Part(name="prefill", picoseconds=computed[-1], basis="modelled"),
            Part(name="hand-over, exposed", picoseconds=handover.exposed, basis="modelled"),
            Part(name="first token", picoseconds=steps[0], basis="exact"),
        ),
        step=(Part(name="LPU step", picoseconds=sum(later) // len(later), basis="exact"),),
        tokens=request.new_tokens,
        reused=before + brings - 1 - prefilled,
        crossed=crossed,
    )
    return turn, handover


def _step(decode: Program, position: int) -> int:
    """Picoseconds of the step that takes the token at a position."""
    bucket = bucket_of(decode.manifest["contexts"], position)
    return cycles_ps(int(decode.manifest["cycles"][str(bucket)]), decode.manifest["clock_hz"])
