"""A compiled program and the GPUs beside it as the simulation takes them: paces, slots, memory."""

from dataclasses import replace

from compiler.errors import CompileError, OptionError
from compiler.moves.early import block_in
from compiler.program.manifest import Manifest, Step, Waves
from compiler.program.program import Program
from lpu.afd.machines import Machines, best, lpus_of
from lpu.gpu.request import Request
from lpu.gpu.share import GpuShare, shares
from lpu.inputs.model import numbers_of, refuse_encoder
from lpu.traffic.prefill_costs import prefill_costs
from lpu.traffic.served import Prefiller, Served, SlotTier, StepPace
from lpu.traffic.tiers import DISK, HOST, LowerTier, TierRate, beside_lpus, lower_tier
from models.families.registry import config_of


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

    Half of the memory that weights leave is for what waits to be handed over, half for the prefix cache.
    Raises OptionError for states in a tier that keeps none: they lie behind prompts, in HBM.
    """
    state = sum(size for _, _, size in share.config.kept_bytes(1))
    for flag, given in (("--host-blocks", host), ("--disk-blocks", disk)):
        if state and given:
            reason = f"keeps states, which lie in HBM only, {flag} is {given}"
            raise OptionError("traffic", share.config.name, reason, f"Leave out {flag}.")
    token = share.pool.kv_bytes(share.config, 1, 1, share.kv) - state
    left = max(share.pool.memory_bytes - share.pool.weight_bytes(share.config), 0) * share.replicas
    room, size = left // 2, token * block_tokens
    blocks = {"none": 0, "infinite": None, "hbm": room // (size + state)}
    costs, hz = prefill_costs(share, program), program.manifest.clock_hz
    nics = int(share.pool.gpus * share.pool.spec.nic_bytes_per_second)
    sram = TierRate("sram", nics, per_gpu=False, latency_ns=share.bridge.latency_ns)
    return Prefiller(
        replicas=share.replicas,
        cost=costs,
        room=max(room, 1),
        token=token,
        state=state,
        cache_blocks=blocks[cache] if cache in blocks else int(cache),
        tiers=tuple(
            lower_tier(rate, count, size, share.pool.gpus, hz)
            for rate, count in ((HOST, host), (DISK, disk))
            if count
        ),
        slots=SlotTier(cost=costs.kept, fetch=lower_tier(sram, 0, size, 1, hz)) if keeps else None,
    )
