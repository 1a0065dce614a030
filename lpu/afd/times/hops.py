"""The pace of hops: a decode step of micro-batches in ping-pong between GPUs and LPUs, in steady state.

The times of hops are cycles of their programs; GPUs and links are modelled.
Source: facts/afd.md sections 0, 1 and 3.3.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import inf

from compiler.errors import OptionError
from compiler.program.program import Program
from compiler.split import Split
from lpu.gpu.share import GpuShare
from lpu.gpu.units import PS_PER_SECOND, cycles_ps
from lpu.pingpong import closed_forms
from lpu.pingpong.boundary import Boundary, SlotReport, slack_for, slots
from lpu.pingpong.pingpong import exposed_transfer, period_bounds, run, steady_period
from lpu.pingpong.stages import PingPongPlan, StageError, Stages, Timeline

DRAWN_STEPS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class HopTimes:
    """What a hop of each layer is: cycles of its program at `clock_hz`, and bytes per row each way.

    wire_down: what the link can carry is `fp16` or `fp8` values; wire_up `f32` or `fp16`.
    """

    cycles: tuple[int, ...]
    clock_hz: int
    down_bytes: int
    up_bytes: int
    wire_down: str
    wire_up: str


def hop_times(program: Program, split: Split) -> HopTimes:
    """The times and bytes of a program's hops."""
    hops = program.manifest.hops
    return HopTimes(
        cycles=tuple(hop.cycles for hop in hops),
        clock_hz=program.manifest.clock_hz,
        down_bytes=split.hops[0].down_bytes // split.rows,
        up_bytes=split.hops[0].up_bytes // split.rows,
        wire_down=split.hops[0].wire_down,
        wire_up=split.hops[0].wire_up,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRule:
    """How slots are chosen: the slack is such that a hop misses its slot with probability `target`.

    jitter: standard deviation over mean of the GPUs' times; there is no slack without it.
    """

    jitter: float = 0.0
    target: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.jitter < inf:
            raise StageError(f"boundary: --gpu-jitter is {self.jitter}, must be at least 0 and finite.")
        if not 0 < self.target < 1:
            raise StageError(f"boundary: --miss-probability is {self.target}, must be between 0 and 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A decode step of all micro-batches at one length of the KV, in steady state.

    plan: its stages. period: picoseconds from
    token to token. exposed: of one step, by which the links make it longer. alone: of the GPUs without LPUs.
    """

    plan: PingPongPlan
    period: Fraction
    exposed: int
    boundary: SlotReport
    alone: int
    rows: int

    @property
    def timeline(self) -> Timeline:
        """The events of one step from an empty pipeline."""
        return run(self.plan)

    @property
    def missed(self) -> int:
        """Mean picoseconds that missed slots add to a token: hops x probability of a miss x slot period."""
        one = self.boundary.boundary
        late = self.boundary.hops * one.miss_probability * one.period_cycles
        return round(late * PS_PER_SECOND / one.clock_hz)

    @property
    def binding(self) -> str:
        """The resource that sets the period, or `latency` where one micro-batch's way does."""
        bounds = period_bounds(self.plan)
        return max(bounds, key=lambda name: bounds[name])

    @property
    def estimate(self) -> int | None:
        """The step by aiconfigurator's closed form, picoseconds; None where layers differ."""
        layers, m = self.plan.layers, self.plan.micro_batches
        if len(set(layers)) > 1:
            return None
        return int(closed_forms.aiconfigurator(len(layers), m, in_one(layers[len(layers) // 2])).step)


def check_micro_batches(batch: int, micro_batches: int) -> int:
    """Rows of a micro-batch. Raises OptionError unless 1 to 4 of them divide the batch."""
    if not 1 <= micro_batches <= 4 or batch % micro_batches:
        raise OptionError(
            "afd",
            f"--micro-batches {micro_batches}",
            f"a batch of {batch} is cut into equal parts, 1 to 4 of them",
            "Give a number of micro-batches that divides --batch.",
        )
    return batch // micro_batches


def pace(
    share: GpuShare,
    hops: HopTimes,
    batch: int,
    micro_batches: int,
    kv_len: int,
    rule: SlotRule | None = None,
    alone: int | None = None,
) -> Pace:
    """A decode step over `kv_len` tokens of each sequence; layers without a hop, the first, stay on the GPUs.

    alone: of the GPUs without LPUs, dealt as is best for that; as `share` deals them if not given.
    """
    rule = rule or SlotRule()
    rows = check_micro_batches(batch, micro_batches)
    attention = share.before_hops(rows, kv_len, share.config.layers - len(hops.cycles))
    down = share.wire(rows * hops.down_bytes, rows)
    up = share.copied(rows * hops.up_bytes, rows)
    clock, jitter = hops.clock_hz, rule.jitter
    slack = [slack_for(rule.target, one, jitter, clock) if jitter else 0 for one in attention]
    stages = [
        Stages(before, down, cycles_ps(cycles, clock), up, share.latency, cycles_ps(wait, clock))
        for before, cycles, wait in zip(attention, hops.cycles, slack, strict=True)
    ]
    plan = PingPongPlan(
        layers=tuple(stages),
        micro_batches=micro_batches,
        embed=share.embed(rows),
        head=share.head(rows),
    )
    period = steady_period(plan)
    boundary = Boundary(
        gpu_ps=attention[-1],
        jitter=rule.jitter,
        period_cycles=max(1, -(-int(period) * hops.clock_hz // (PS_PER_SECOND * len(stages)))),
        slack_cycles=slack[-1],
        lpu_cycles=max(hops.cycles),
        clock_hz=hops.clock_hz,
    )
    return Pace(
        plan=plan,
        period=period,
        exposed=exposed_transfer(plan),
        boundary=slots(boundary, steps=DRAWN_STEPS, hops=len(stages), seed=rule.seed),
        alone=share.step(batch, kv_len) if alone is None else alone,
        rows=rows,
    )


def in_one(layer: Stages) -> Stages:
    """The stages as closed forms count them: a link's latency is part of its time."""
    return Stages(layer.attention, layer.down + layer.latency, layer.ffn, layer.up + layer.latency)
