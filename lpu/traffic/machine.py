"""A compiled program and the GPUs beside it as the simulation takes them: paces, slots, costs of prefills."""

from dataclasses import dataclass, field, replace
from functools import cache
from math import lcm

from compiler.errors import CompileError, OptionError
from compiler.moves.early import block_in
from compiler.moves.handover import compile_ingest, longest_slot
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.manifest import Manifest, Step, Waves
from compiler.program.program import Program
from fabric.bridge import BridgeSpec
from lpu.afd.machines import Machines, best, lpus_of
from lpu.afd.times.handover import stream
from lpu.gpu.request import Request
from lpu.gpu.share import GpuShare, shares
from lpu.gpu.units import PS_PER_SECOND, cycles_ps
from lpu.inputs.model import numbers_of, refuse_encoder
from lpu.traffic.served import Prefiller, Prompt, Served, SlotTier, StepPace
from lpu.traffic.tiers import DISK, HOST, LowerTier, TierRate, beside_lpus, lower_tier
from models.families.registry import config_of

ROUND_TOKENS = 128  # of hand-overs whose slots do not grow evenly


def paces_of(manifest: Manifest) -> tuple[StepPace, ...]:
    """The context buckets in time; a program without waves takes one step at a time."""
    waves = manifest.waves
    found: list[StepPace] = []
    for context in manifest.contexts:
        step = manifest.cycles[context]
        if waves is None:
            found.append(StepPace(context, step, step, step))
        else:
            entry = waves.contexts[context]
            found.append(StepPace(context, entry.interval, entry.turn * entry.interval, step))
    return tuple(found)


def served(
    program: Program,
    prefill: Prefiller | None = None,
    queue: int | None = None,
    *,
    by_load: bool = False,
    keeps: bool = False,
    ddr5: LowerTier | None = None,
) -> Served:
    """The machine that runs a decode program, see `Served`. Raises OptionError for one of another kind."""
    manifest = program.manifest
    refuse_encoder("replay", manifest.model.name, numbers_of(manifest))
    if not isinstance(manifest.body, Step | Waves) or manifest.chunk != 1:
        reason = f"is of kind {manifest.kind!r}, requests need one that decodes"
        raise OptionError("replay", "program", reason, "Compile one with lpu compile.")
    return Served(
        clock_hz=manifest.clock_hz,
        groups=manifest.waves.users if manifest.waves else 1,
        rows=manifest.rows,
        paces=paces_of(manifest),
        prefill=prefill,
        queue=queue,
        by_load=by_load,
        keeps=keeps,
        ddr5=ddr5,
    )


def ddr5_of(program: Program, blocks: int, block_tokens: int) -> LowerTier | None:
    """The DDR5 beside the LPUs that have work, for this many blocks; None for 0. Raises OptionError.

    A block takes the cycles of a program that brings it in, or bytes over a rate where there is none.
    """
    manifest = program.manifest
    if not blocks:
        return None
    config = numbers_of(manifest)
    if config is None:
        reason = "is a module of its own, so the bytes of its KV are not known"
        raise OptionError("replay", manifest.model.name, reason, "Leave out --ddr5-blocks.")
    size = config.layers * config.cached_lanes * (1 if manifest.model.kv == "fp8" else 2) * block_tokens
    modelled = beside_lpus(blocks, size, lpus_of(program), manifest.clock_hz)
    try:
        cycles = max(block_in(program, block_tokens).manifest.cycles.values())
    except CompileError as error:
        return replace(modelled, unscheduled=error.reason)
    return replace(modelled, block_cycles=cycles, modelled_cycles=modelled.block_cycles)


def shares_for(program: Program, there: Machines) -> tuple[GpuShare, ...]:
    """The ways to deal the GPUs for the model of a program. Raises OptionError."""
    model = program.manifest.model
    if model.config is None:
        reason = "is a module of its own, so the GPU model does not know its layers"
        raise OptionError("replay", model.name, reason, "Give --gpus 0.")
    about = config_of(model.config), there.gpu, there.gpus, there.bridge
    return shares(*about, kv=model.kv, gemm=there.gemm, tp=there.gpu_tp, table=there.table)


def dealt(program: Program, there: Machines, prompt_tokens: int) -> GpuShare:
    """The division of the GPUs that prefills a prompt of this length fastest for a program.

    Raises OptionError, CapacityError.
    """
    tokens = max(prompt_tokens, 2)
    about = Request(prompt_tokens=tokens, new_tokens=max(program.manifest.longest - tokens, 1))
    return best(shares_for(program, there), about, lambda one: one.prefill(about.prompt_tokens - 1, 0, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillCosts:
    """What a prefill on the GPUs and the hand-over of its KV take, by (tokens, of which the KV is known).

    slots: cycles of one layer's hand-over slot by tokens, see `slot_cycles`. chips: of each layer, those that
    take its KV. The LPUs take the last token of a prompt, so all before it are prefilled and handed over.
    """

    share: GpuShare
    clock_hz: int
    slots: tuple[int, ...]
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
        share, layers = self.share, len(self.chips)
        wire = share.wire((handed - there) * _token_bytes(share), 1)
        slot = cycles_ps(slot_of(self.slots, handed - there), self.clock_hz)
        layer = begin = 0
        if held < handed:
            layer, begin = share.prefill_layer(handed - held, held, 1), share.embed(handed - held)
        computed = [begin + layer * (i + 1) for i in range(layers)]
        behind = stream(computed, wire, share.latency, [slot] * layers, self.chips)
        after = stream([0] * layers, wire, share.latency, [slot] * layers, self.chips)
        return Prompt(
            compute=max(self._cycles(computed[-1]), 1),
            exposed=self._cycles(behind.exposed),
            handover=self._cycles(after.exposed),
            wire=self._cycles(wire * layers),
        )

    def _cycles(self, picoseconds: int) -> int:
        return -(-picoseconds * self.clock_hz // PS_PER_SECOND)


def prefiller(
    share: GpuShare,
    program: Program,
    cache: str,
    block_tokens: int,
    *,
    host: int = 0,
    disk: int = 0,
    keeps: bool = False,
) -> Prefiller:
    """GPUs that prefill for a program. cache: prefix blocks that they keep: none, infinite, hbm, or how many.

    host, disk: blocks that are kept below, see `lpu.traffic.tiers`. keeps: slots are asked, too.

    Half of the memory that weights leave is for KV that waits to be handed over, half for the prefix cache.
    """
    if any(state for _, _, state in share.config.kept_bytes(1)):
        reason = "keeps states, which a queue of prefills and its prefix cache do not count"
        raise OptionError("traffic", share.config.name, reason, "Use --gpus 0, or lpu afd for one request.")
    token = share.pool.kv_bytes(share.config, 1, 1, share.kv)
    left = max(share.pool.memory_bytes - share.pool.weight_bytes(share.config), 0) * share.replicas
    room = left // token // 2
    blocks = {"none": 0, "infinite": None, "hbm": room // block_tokens}
    costs = PrefillCosts(
        share=share,
        clock_hz=program.manifest.clock_hz,
        slots=slot_cycles(program, share.bridge),
        chips=tuple(_chips(program, share.bridge)),
    )
    hz, size = program.manifest.clock_hz, token * block_tokens
    nics = int(share.pool.gpus * share.pool.spec.nic_bytes_per_second)
    sram = TierRate("sram", nics, per_gpu=False, latency_ns=share.bridge.latency_ns)
    return Prefiller(
        replicas=share.replicas,
        cost=costs,
        room_tokens=max(room, 1),
        cache_blocks=blocks[cache] if cache in blocks else int(cache),
        tiers=tuple(
            lower_tier(rate, count, size, share.pool.gpus, hz)
            for rate, count in ((HOST, host), (DISK, disk))
            if count
        ),
        slots=SlotTier(cost=costs.kept, fetch=lower_tier(sram, 0, size, 1, hz)) if keeps else None,
    )


def _token_bytes(share: GpuShare) -> int:
    """K and V of one token and layer."""
    return share.config.cached_lanes * (1 if share.kv == "fp8" else 2)


def _one_by_one(program: Program) -> Program:
    """A program that takes hand-overs; of one with waves that of its first user, all lie alike."""
    manifest = program.manifest
    return program if manifest.waves is None else replace(program, manifest=replace(manifest, body=Step()))


def slot_cycles(program: Program, bridge: BridgeSpec) -> tuple[int, ...]:
    """Cycles of one layer's slot, of 1 token where they grow evenly (looked at in four places).

    Where they do not: of 128, 256, ... tokens up to the longest, from compiled hand-overs. Tokens that are
    dealt to stripes of KV in runs grow evenly from round to round: where that is so in three places, only
    hand-overs of the first round are compiled.
    """
    most, decode = program.manifest.longest, _one_by_one(program)

    @cache
    def compiled(tokens: int) -> int:
        return longest_slot(decode, tokens, bridge)

    one = compiled(1)
    if all(compiled(tokens) == one * tokens for tokens in (min(2, most), min(129, most), most)):
        return (one,)
    kernels = [one for one in program.manifest.kernels if isinstance(one, AttentionKernel)]
    period = lcm(ROUND_TOKENS, *(one.stripes * one.run for one in kernels if one.stripes > 1))

    def by_round(tokens: int) -> int:
        rounds, rest = divmod(tokens, period)
        return rounds * compiled(period) + (compiled(rest) if rest else 0)

    places = (period + ROUND_TOKENS, 2 * period, most)
    even = 2 * period <= most and all(compiled(tokens) == by_round(tokens) for tokens in places)
    counts = range(ROUND_TOKENS, most + ROUND_TOKENS, ROUND_TOKENS)
    return tuple((by_round if even else compiled)(min(tokens, most)) for tokens in counts)


def slot_of(slots: tuple[int, ...], tokens: int) -> int:
    """Cycles of the slot of a message, of `slot_cycles`; rounded up to 128 tokens where it has several."""
    return slots[0] * tokens if len(slots) == 1 else slots[(tokens - 1) // ROUND_TOKENS]


def _chips(program: Program, bridge: BridgeSpec) -> list[tuple[int, ...]]:
    """The chips that take each layer's KV."""
    ingest = compile_ingest(_one_by_one(program), 1, bridge)
    (context,) = ingest.manifest.contexts
    return [tuple(sorted(set(ingest.expand_call(call, context).chip.tolist()))) for call in ingest.calls]
