"""Case 110: DeepSeek-V3.2 on Ascend 910C, where splitting off the experts loses or wins with the ratio.

All three deployments are the same event schedule: EP64 with one micro-batch on one pool, the others with two
micro-batches on two pools. Only sign and order are held against the measurement.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lpu.pingpong.pingpong import steady_period
from lpu.pingpong.stages import PingPongPlan, Stages
from lpu.validate.cases.afd import ascend_910c_operators as operators
from lpu.validate.cases.afd.ascend_910c_operators import DENSE_LAYERS, LAYERS, Inputs
from lpu.validate.cases.point import Kind, PublishedPoint

CASE = 110
INPUTS = Inputs()
PICO = 10**12
OUTPUTS = (512, 1536)  # uniform


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Dies for attention and for experts (0: the same dies), and tokens per attention die by input length.

    published: tokens per second and die. Source: facts/afd.md section 2, AFD-10; batches: afd-plugin,
    recipe/npu/CAMP2pAFDConnector/deepseek_v3_2/README.md.
    """

    attention_dies: int
    expert_dies: int
    batch: dict[int, int]
    published: dict[int, float]

    @property
    def micro_batches(self) -> int:
        """Two where there are two pools (dual batch overlap), otherwise one."""
        return 2 if self.expert_dies else 1


DEPLOYMENTS = {
    "EP64": Deployment(
        attention_dies=64, expert_dies=0, batch={16: 16, 32: 8}, published={16: 232.6, 32: 168.2}
    ),
    "48A16F": Deployment(
        attention_dies=48, expert_dies=16, batch={16: 28, 32: 14}, published={16: 220.3, 32: 151.4}
    ),
    "64A16F": Deployment(
        attention_dies=64, expert_dies=16, batch={16: 28, 32: 14}, published={16: 258.9, 32: 183.3}
    ),
}
SPLIT = ("48A16F", "64A16F")


def points(one: Inputs = INPUTS) -> tuple[PublishedPoint, ...]:
    """Rates with their verdicts; for which inputs the order holds; what other inputs would change."""
    return (*verdicts(one), *ranges(one), *variants(one))


def verdicts(one: Inputs = INPUTS) -> tuple[PublishedPoint, ...]:
    """Rates, their change against EP64, its sign and the order."""
    out: list[PublishedPoint] = []
    for length in (16, 32):
        rates = {name: tokens_per_die(name, length, one) for name in DEPLOYMENTS}
        published = {name: deployment.published[length] for name, deployment in DEPLOYMENTS.items()}
        for name in DEPLOYMENTS:
            out.append(_point(f"{length}K, {name}", "shown", "tokens/s/die", published[name], rates[name]))
        for name in SPLIT:
            theirs, ours = (_change(r[name], r["EP64"]) for r in (published, rates))
            out.append(_point(f"{length}K, {name} against EP64", "shown", "%", round(theirs, 1), ours))
            out.append(_point(f"{length}K, {name}, its sign", "check", "sign", _sign(theirs), _sign(ours)))
        ranks = [sorted(r.values()).index(r["EP64"]) + 1 for r in (published, rates)]
        out.append(_point(f"{length}K, EP64 from below", "check", "rank", *ranks))
    return tuple(out)


def ranges(one: Inputs = INPUTS) -> tuple[PublishedPoint, ...]:
    """Least and most of one input for which EP64 lies between the two, beside the value of its source."""
    sweeps: tuple[tuple[str, float, Callable[[int], Inputs]], ...] = (
        ("links, down and up", 1e6 * (one.a2e + one.e2a), lambda us: _with_links(one, us)),
        (
            "fixed time of attention",
            1e6 * one.attention_fixed,
            lambda us: replace(one, attention_fixed=us / 1e6),
        ),
    )
    out: list[PublishedPoint] = []
    for length in (16, 32):
        for name, sourced, change in sweeps:
            held = [us for us in range(0, 601, 5) if order_holds(length, change(us))]
            for end, value in (("least", min(held, default=-1)), ("most", max(held, default=-1))):
                out.append(_point(f"{length}K, {name}: {end} with this order", "shown", "us", sourced, value))
    return tuple(out)


def variants(one: Inputs = INPUTS) -> tuple[PublishedPoint, ...]:
    """Other published statements about the inputs, and the result with them: no verdict.

    Two experts: with the launcher of the recipe EP64 may have read two of its four experts (afd-plugin issue
    156). Wires: the simulator's own model of the links, 3 us and the bytes, instead of the measured times.
    """
    out: list[PublishedPoint] = []
    two = replace(one, experts_read=2)
    for length in (16, 32):
        for name in SPLIT:
            split = DEPLOYMENTS[name]
            tokens, fan_in = split.batch[length] / 2, split.attention_dies / split.expert_dies
            wire = operators.wire_seconds(one, tokens, fan_in)
            cases = {
                "EP64 reads two experts": (two, one),
                "links are wires": (one, replace(one, a2e=wire, e2a=wire)),
            }
            theirs = _change(split.published[length], DEPLOYMENTS["EP64"].published[length])
            for what, (together, apart) in cases.items():
                ours = _change(tokens_per_die(name, length, apart), tokens_per_die("EP64", length, together))
                out.append(_point(f"{length}K, {name}, if {what}", "shown", "%", round(theirs, 1), ours))
    return tuple(out)


def order_holds(length: int, one: Inputs) -> bool:
    """Whether 48A16F < EP64 < 64A16F."""
    low, middle, high = (tokens_per_die(name, length, one) for name in ("48A16F", "EP64", "64A16F"))
    return low < middle < high


def tokens_per_die(name: str, length: int, one: Inputs = INPUTS) -> float:
    """Tokens per second over all dies of the deployment, from the steady period of its schedule."""
    deployment = DEPLOYMENTS[name]
    dies = deployment.attention_dies + deployment.expert_dies
    tokens = deployment.batch[length] * deployment.attention_dies
    return float(tokens * PICO / (dies * steady_period(plan(deployment, length, one))))


def plan(deployment: Deployment, length: int, one: Inputs = INPUTS) -> PingPongPlan:
    """Stage times of a micro-batch in picoseconds; the head is for all micro-batches at once, so shared."""
    tokens = deployment.batch[length] / deployment.micro_batches
    context = length * 1024 + mean_position()
    attention = operators.attention_seconds(one, tokens, context)
    if deployment.expert_dies:
        down, up = one.a2e, one.e2a
        arriving = tokens * deployment.attention_dies / deployment.expert_dies
    else:
        down, up = operators.exchange_seconds(one, tokens)
        arriving = tokens
    experts, dense = operators.experts_seconds(one, arriving), operators.dense_seconds(one, arriving)
    crossing = (down, up) if deployment.expert_dies else (0.0, 0.0)  # a die has its own dense FFN
    first = _stages(attention, crossing[0], dense, crossing[1])
    later = _stages(attention, down, experts, up)
    head = operators.head_seconds(one, deployment.batch[length]) / deployment.micro_batches
    return PingPongPlan(
        layers=(first,) * DENSE_LAYERS + (later,) * (LAYERS - DENSE_LAYERS),
        micro_batches=deployment.micro_batches,
        head=round(head * PICO),
    )


def mean_position() -> float:
    """Tokens already written, on average over all tokens written, for uniform lengths: E[n^2] / (2 E[n])."""
    least, most = OUTPUTS
    mean = (least + most) / 2
    return (mean**2 + (most - least) ** 2 / 12) / (2 * mean)


def _with_links(one: Inputs, us: int | float) -> Inputs:
    """Links that take `us` microseconds both ways together, in the present proportion."""
    scale = us / 1e6 / (one.a2e + one.e2a)
    return replace(one, a2e=one.a2e * scale, e2a=one.e2a * scale)


def _stages(*seconds: float) -> Stages:
    attention, down, ffn, up = (round(time * PICO) for time in seconds)
    return Stages(attention, down, ffn, up)


def _change(value: float, base: float) -> float:
    """Percent."""
    return 100 * (value / base - 1)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _point(name: str, kind: Kind, unit: str, published: int | float, modelled: int | float) -> PublishedPoint:
    return PublishedPoint(
        case=CASE,
        name=name,
        kind=kind,
        unit=unit,
        published=published,
        modelled=modelled,
        tolerance_percent=0 if kind == "check" else None,
    )
