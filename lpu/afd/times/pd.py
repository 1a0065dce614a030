"""Mode pd in time: GPUs prefill, KV goes to the LPUs layer by layer behind the prefill, the LPUs decode.

A turn's first token is the LPUs' step of the last token of its prompt. Source: facts/afd.md section 3.3.
"""

from dataclasses import dataclass
from itertools import accumulate

from compiler.moves.handover import compile_egress, compile_ingest
from compiler.program.manifest import Move, Slot
from compiler.program.program import Call, Program
from lpu.afd.machines import best
from lpu.afd.question import Question, Timed
from lpu.afd.report import Figure
from lpu.afd.times.handover import HandoverTimes, events, stream
from lpu.afd.turn import Turn
from lpu.check.check import require
from lpu.check.memory_image import check_handover
from lpu.gpu.request import Request
from lpu.gpu.share import GpuShare
from lpu.gpu.units import Part, cycles_ps, picoseconds
from lpu.report.words import EXACT
from lpu.run.step_inputs import bucket_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnWork:
    """What a turn has to do, in tokens of each sequence.

    prefix: tokens whose KV the GPUs have. prefilled: those that they compute. handed: those whose KV goes to
    the LPUs, which take the last token of the prompt themselves. returned: decoded ones that come back.
    """

    prefix: int
    prefilled: int
    handed: int
    returned: int


def work(request: Request, copy_back: bool, number: int) -> TurnWork:
    """The work of a turn: GPUs lack the KV of what the LPUs took in the turn before it.

    copy_back: the LPUs send the KV of what they decoded, else the GPUs prefill those tokens again.
    """
    before, brings = request.before(number), request.brings(number)
    if not number:
        known = request.cached_tokens
        return TurnWork(prefix=known, prefilled=brings - 1 - known, handed=brings - 1, returned=0)
    again = 0 if copy_back else request.new_tokens
    return TurnWork(
        prefix=before - 1 - request.new_tokens,
        prefilled=brings + again,
        handed=brings,
        returned=request.new_tokens - again,
    )


def timed(asked: Question, request: Request, copy_back: bool) -> Timed:
    """The whole mode in time. request: with the tokens of the first prompt whose KV the GPUs have."""
    first, last = (work(request, copy_back, number) for number in (0, request.turns - 1))
    gpus = best(
        asked.shares(), request, lambda one: one.prefill(first.prefilled, first.prefix, request.batch)
    )
    program = asked.compiled(asked.model)
    made, handovers = turns(request, gpus, program, copy_back, asked.check)
    ops = gpus.pool.prefill_layer(
        gpus.config, last.prefilled, last.prefix + last.returned, gpus.rows(request.batch), gpus.kv
    ).ops
    slot = handovers[-1].ends[-1] - handovers[-1].begins[-1]
    return Timed(
        program=program,
        gpus=gpus,
        rows=request.batch,
        turns=made,
        layer=(
            *(Part(name=op.name, picoseconds=picoseconds(op.seconds), basis=op.basis) for op in ops),
            Part(name="KV slot on the LPUs, behind it", picoseconds=slot, basis=EXACT),
        ),
        figures=(
            Figure(
                name="LPU cycles per token",
                value=max(program.manifest.cycles.values()),
                unit="cycles, longest bucket",
                basis=EXACT,
            ),
            Figure(
                name="hand-over hidden",
                value=100 * handovers[-1].hidden,
                unit="% of its time",
                basis="modelled",
            ),
            Figure(
                name="KV of decoded tokens",
                value="copy-back" if copy_back else "recompute",
                unit="",
                basis=EXACT,
            ),
            *_state_figures(gpus),
        ),
        events=tuple(events(handovers[-1], made[-1].first[-1].picoseconds, _kept(gpus))),
    )


def turns(
    request: Request, share: GpuShare, decode: Program, copy_back: bool, check: bool = True
) -> tuple[tuple[Turn, ...], tuple[HandoverTimes, ...]]:
    """The turns of a request in time, and the hand-over of each.

    check: the programs that move KV too. Raises HazardError if one breaks a rule.
    """
    found = [_turn(request, share, decode, copy_back, number, check) for number in range(request.turns)]
    return tuple(turn for turn, _ in found), tuple(handover for _, handover in found)


def _turn(
    request: Request, share: GpuShare, decode: Program, copy_back: bool, number: int, check: bool
) -> tuple[Turn, HandoverTimes]:
    todo = work(request, copy_back, number)
    ingest = compile_ingest(decode, todo.handed, share.bridge)
    egress = compile_egress(decode, todo.returned, share.bridge) if todo.returned else None
    if check:
        require(check_handover(decode, ingest, egress))
    handover = _handover(share, ingest, todo, request.batch)
    last = request.before(number) + request.brings(number) - 1
    steps = [_step(decode, last + i) for i in range(request.new_tokens)]
    later = steps[1:] or steps
    token, state = (request.batch * one for one in _sizes(share))
    crossed = {"kv_down": todo.handed * token, "kv_up": todo.returned * token}
    if state:
        crossed |= {"state_down": state, "state_up": state if todo.returned else 0}
    turn = Turn(
        number=number,
        first=(
            Part(name="queue", picoseconds=picoseconds(request.queue_seconds), basis="assumed"),
            *_returned(share, egress, todo.returned, request.batch),
            Part(name="prefill", picoseconds=handover.computed[-1], basis=share.basis),
            Part(name="hand-over, exposed", picoseconds=handover.exposed, basis="modelled"),
            Part(name="first token", picoseconds=steps[0], basis=EXACT),
        ),
        step=(Part(name="LPU step", picoseconds=sum(later) // len(later), basis=EXACT),),
        tokens=request.new_tokens,
        reused=todo.prefix + todo.returned,
        crossed=crossed,
    )
    return turn, handover


def _handover(share: GpuShare, ingest: Program, todo: TurnWork, batch: int) -> HandoverTimes:
    clock, kept = ingest.manifest.clock_hz, _kept(share)
    every = share.prefill_layers(todo.prefilled, todo.prefix + todo.returned, batch)
    ends = list(accumulate(every, initial=share.embed(batch * todo.prefilled)))[1:]
    return stream(
        [ends[layer] for layer, _, _ in kept],
        [share.wire(batch * (todo.handed * token + state), batch) for _, token, state in kept],
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
    token, state = _sizes(share)
    wired = share.latency + share.wire(batch * (tokens * token + state), batch)
    return (
        Part(name="kv read from SRAM", picoseconds=given, basis=EXACT),
        Part(name="kv to the GPUs", picoseconds=wired, basis="modelled"),
    )


def _kept(share: GpuShare) -> tuple[tuple[int, int, int], ...]:
    """The layers that hand something over: number, bytes of a token, bytes of states."""
    return share.config.kept_bytes(1 if share.kv == "fp8" else 2)


def _sizes(share: GpuShare) -> tuple[int, int]:
    """Bytes of a token and of the states of a sequence, in all layers."""
    kept = _kept(share)
    return sum(token for _, token, _ in kept), sum(state for _, _, state in kept)


def _state_figures(share: GpuShare) -> tuple[Figure, ...]:
    """What states cross, if there are any."""
    state = _sizes(share)[1]
    if not state:
        return ()
    name = "states handed over, a sequence and turn"
    return (Figure(name=name, value=state, unit="bytes, whatever its length", basis=EXACT),)


def _step(decode: Program, position: int) -> int:
    """Picoseconds of the step that takes the token at a position."""
    bucket = bucket_of(decode.manifest.contexts, position)
    return cycles_ps(decode.manifest.cycles[bucket], decode.manifest.clock_hz)
