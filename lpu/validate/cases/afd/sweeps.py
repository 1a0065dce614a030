"""Cases 108 and 111: upper limits of the gain from more micro-batches, and from a split into equal pools."""

from fractions import Fraction

from lpu.pingpong.pingpong import steady_period
from lpu.pingpong.stages import PingPongPlan, Stages
from lpu.validate.cases.point import PublishedPoint

MEGASCALE_CASE, PARITY_CASE = 108, 111
SECOND = 1.9  # m 1 -> 2; facts/afd.md section 1.1
THIRD = {"Mixtral-8x22B": 1.10, "DBRX": 1.28, "Scaled-MoE 317B": 1.38}  # m 2 -> 3
UNIT = 1000  # picoseconds of a compute stage in the sweep; only ratios matter
PARITY_MS = (98.88, 100.13)  # TPOT, two deployments of eight devices; facts/afd.md section 2, AFD-11


def megascale_points() -> tuple[PublishedPoint, ...]:
    """No sweep over t_c / T_f reaches less than was measured: a schedule that serialised would."""
    out = [_limit(MEGASCALE_CASE, "m 1 to 2, most of any t_c", SECOND, max(gains(2)))]
    out += [
        _limit(MEGASCALE_CASE, f"m 2 to 3, most of any t_c; {name}", gain, max(gains(3)))
        for name, gain in THIRD.items()
    ]
    for name, published in THIRD.items():
        found = gain(3, _transfer_for(published))
        out.append(
            PublishedPoint(
                case=MEGASCALE_CASE,
                name=f"m 2 to 3 where t_c / T_f is {published - 1:.2f}; {name}",
                kind="shown",
                unit="x",
                published=published,
                modelled=float(found),
                tolerance_percent=None,
            )
        )
    return tuple(out)


def gains(micro_batches: int) -> list[Fraction]:
    """Throughput of m over m - 1 micro-batches of one size, t_a = t_f, for t_c from 0 to T_f in 20 steps."""
    return [gain(micro_batches, transfer) for transfer in range(0, UNIT + 1, UNIT // 20)]


def gain(micro_batches: int, transfer: int) -> Fraction:
    """Throughput of m over m - 1 micro-batches for one t_c, in thousandths of T_f."""
    fewer, more = (_period(m, transfer) for m in (micro_batches - 1, micro_batches))
    return Fraction(micro_batches, micro_batches - 1) * fewer / more


def parity_points() -> tuple[PublishedPoint, ...]:
    """Half of the devices for attention, half for experts, twice the tokens each: balanced, it is a draw.

    The links are free here; what they take comes on top. Which deployment had which TPOT is not in the facts.
    """
    colocated = PingPongPlan(layers=(Stages(UNIT, 0, UNIT, 0),), micro_batches=1)
    split = PingPongPlan(layers=(Stages(UNIT, 0, UNIT, 0),), micro_batches=2)
    return (
        PublishedPoint(
            case=PARITY_CASE,
            name="4A4F against 8 devices: one TPOT over the other, at best",
            kind="shown",
            unit="x",
            published=round(PARITY_MS[0] / PARITY_MS[1], 4),
            modelled=float(steady_period(colocated) / steady_period(split)),
            tolerance_percent=None,
        ),
    )


def _period(micro_batches: int, transfer: int) -> Fraction:
    return steady_period(
        PingPongPlan(layers=(Stages(UNIT, transfer, UNIT, transfer),), micro_batches=micro_batches)
    )


def _transfer_for(published: float) -> int:
    return round((published - 1) * UNIT)


def _limit(case: int, name: str, published: float, modelled: Fraction) -> PublishedPoint:
    return PublishedPoint(
        case=case,
        name=name,
        kind="check",
        unit="x",
        published=published,
        modelled=float(modelled),
        tolerance_percent=0,
        at_least=True,
    )
