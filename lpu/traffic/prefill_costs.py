"""What a prefill on GPUs takes for a compiled program, and the hand-over of the KV and states that it leaves.

The arithmetic is that of `lpu.afd.times.pd`: each layer that keeps something has a message and a slot.
"""

from dataclasses import dataclass, field, replace
from functools import cache
from itertools import accumulate
from math import lcm

from compiler.moves.handover import compile_ingest, layer_slots
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.manifest import Step
from compiler.program.program import Program
from fabric.bridge import BridgeSpec
from lpu.afd.times.handover import stream
from lpu.gpu.share import GpuShare
from lpu.gpu.units import PS_PER_SECOND, cycles_ps
from lpu.traffic.served import Prompt

ROUND_TOKENS = 128  # of hand-overs whose slots do not grow evenly
Slots = tuple[int, ...]
"""Cycles of each layer's slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSlots:
    """The slots of all layers by the tokens of a message.

    one: of 1 token. more: what each further token adds. table: of 128, 256, ... tokens, where slots do not
    grow evenly.
    """

    one: Slots
    more: Slots
    table: tuple[Slots, ...] = ()

    def of(self, tokens: int) -> Slots:
        """Of a message; rounded up to 128 tokens where slots do not grow evenly."""
        if self.table:
            return self.table[(tokens - 1) // ROUND_TOKENS]
        return _grown(self.one, self.more, tokens - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillCosts:
    """What a prefill on the GPUs and the hand-over of what it leaves take, by (tokens, of which are known).

    chips: of each layer that keeps KV or states, those that take them. Of known tokens the GPUs have the KV,
    and the states behind the last of them. The LPUs take the last token of a prompt, so all before it are
    prefilled and handed over.
    """

    share: GpuShare
    clock_hz: int
    slots: LayerSlots
    chips: tuple[tuple[int, ...], ...]
    known: dict[tuple[int, int], Prompt] = field(default_factory=dict[tuple[int, int], Prompt], compare=False)

    def __call__(self, tokens: int, held: int) -> Prompt:
        """Cycles of a prompt, kept once computed."""
        key = tokens, held
        if (found := self.known.get(key)) is None:
            found = self.known[key] = self._cost(tokens - 1, min(held, tokens - 1))
        return found

    def kept(self, tokens: int, held: int, there: int) -> Prompt:
        """The same where the KV of the first tokens lies in the slot already: the rest is handed over."""
        return self._cost(tokens - 1, min(held, tokens - 1), min(there, tokens - 2))

    def _cost(self, handed: int, held: int, there: int = 0) -> Prompt:
        if not handed:
            return Prompt(1, 0, 0, 0)
        share, moved = self.share, handed - there
        kept = share.config.kept_bytes(1 if share.kv == "fp8" else 2)
        wires = [share.wire(moved * token + state, 1) for _, token, state in kept]
        slots = [cycles_ps(cycles, self.clock_hz) for cycles in self.slots.of(moved)]
        ends = [0] * share.config.layers
        if held < handed:
            begin, every = share.embed(handed - held), share.prefill_layers(handed - held, held, 1)
            ends = list(accumulate(every, initial=begin))[1:]
        computed = [ends[layer] for layer, _, _ in kept]
        behind = stream(computed, wires, share.latency, slots, self.chips)
        after = stream([0] * len(kept), wires, share.latency, slots, self.chips)
        return Prompt(
            compute=max(self._cycles(computed[-1]), 1),
            exposed=self._cycles(behind.exposed),
            handover=self._cycles(after.exposed),
            wire=self._cycles(sum(wires)),
        )

    def _cycles(self, picoseconds: int) -> int:
        return -(-picoseconds * self.clock_hz // PS_PER_SECOND)


def prefill_costs(share: GpuShare, program: Program) -> PrefillCosts:
    """The costs of prefills for a program. Raises CompileError for one that takes no hand-overs."""
    return PrefillCosts(
        share=share,
        clock_hz=program.manifest.clock_hz,
        slots=slots_of(program, share.bridge),
        chips=tuple(_chips(program, share.bridge)),
    )


def slots_of(program: Program, bridge: BridgeSpec) -> LayerSlots:
    """The slots of a program's layers: even ones are looked at in four places.

    Others are those of compiled hand-overs. Tokens that are dealt to stripes of KV in runs grow evenly from
    round to round: where that is so in three places, only hand-overs of the first round are compiled.
    """
    most, decode = program.manifest.longest, _one_by_one(program)

    @cache
    def compiled(tokens: int) -> Slots:
        return layer_slots(decode, tokens, bridge)

    one = compiled(1)
    more = _less(compiled(min(2, most)), one)
    if all(compiled(tokens) == _grown(one, more, tokens - 1) for tokens in (min(129, most), most)):
        return LayerSlots(one=one, more=more)
    kernels = [k for k in program.manifest.kernels if isinstance(k, AttentionKernel) and k.stripes > 1]
    period = lcm(ROUND_TOKENS, *(k.stripes * k.run for k in kernels))

    def by_round(tokens: int) -> Slots:
        rounds, before = divmod(tokens - 1, period)
        a_round = _less(compiled(2 * period), compiled(period)) if rounds else one
        return _grown(compiled(before + 1), a_round, rounds)

    places = (period + ROUND_TOKENS, min(2 * period + ROUND_TOKENS, most), most)
    even = 2 * period <= most and all(compiled(tokens) == by_round(tokens) for tokens in places)
    counts = range(ROUND_TOKENS, most + ROUND_TOKENS, ROUND_TOKENS)
    table = tuple((by_round if even else compiled)(min(tokens, most)) for tokens in counts)
    return LayerSlots(one=one, more=more, table=table)


def _grown(slots: Slots, each: Slots, times: int) -> Slots:
    return tuple(one + times * more for one, more in zip(slots, each, strict=True))


def _less(slots: Slots, others: Slots) -> Slots:
    return tuple(one - other for one, other in zip(slots, others, strict=True))


def _one_by_one(program: Program) -> Program:
    """A program that takes hand-overs; of one with waves that of its first user, all lie alike."""
    manifest = program.manifest
    return program if manifest.waves is None else replace(program, manifest=replace(manifest, body=Step()))


def _chips(program: Program, bridge: BridgeSpec) -> list[tuple[int, ...]]:
    """The chips that take what each layer hands over."""
    ingest = compile_ingest(_one_by_one(program), 1, bridge)
    (context,) = ingest.manifest.contexts
    return [tuple(sorted(set(ingest.expand_call(call, context).chip.tolist()))) for call in ingest.calls]
