"""Published closed forms of attention/FFN disaggregation, exact in integers and Fractions.

Those that are limits of the schedule of `lpu/pingpong/pingpong.py`, and nothing else, are in
`tests/lpu/closed_schedules.py`.
Times are picoseconds unless a name says otherwise; t_c is one direction of the link where a paper has one
number for both. Source: facts/afd.md sections 1 and 4.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

from lpu.pingpong.stages import StageError, Stages


def step3_least_sparsity(
    hidden: int, layers: int, flops: int, memory_bytes: int, network_bytes: int, tpot: Fraction
) -> Fraction:
    """Least share of active experts K / E that the network can feed: S >= H F L / (Net BW 2/9 tpot).

    flops, memory_bytes: of a device, per second; F / (2 BW) tokens make an expert's weights worth reading.
    network_bytes: of all NICs of the server that holds the experts, per second and direction. tpot: seconds;
    a third of it is for 1 byte down and 2 bytes up per element, which makes 11.1 ms of 50 ms.
    Source: arXiv 2507.19427; facts/afd.md section 1.2.
    """
    return Fraction(hidden * flops * layers, network_bytes * memory_bytes) / (Fraction(2, 9) * tpot)


def step3_rate(tokens: int, hidden: int, bytes_per_element: int, seconds: Fraction) -> Fraction:
    """Bits per second that carry the activations of `tokens` in `seconds`. Source: facts/afd.md 1.2."""
    return 8 * tokens * hidden * bytes_per_element / seconds


def fastafd_step(batch_ratio: Fraction, fmha: Fraction, dense: Fraction, micro_batches: int) -> Fraction:
    """T_AFD = B_AFD / B T_FMHA + m T_dense, while the experts hide behind attention.

    fmha, dense: times, or shares of the step, at the batch B of the colocated system. Dense layers read all
    their weights for every micro-batch; FMHA reads each sequence's KV once. Source: facts/afd.md section 1.3.
    """
    return batch_ratio * fmha + micro_batches * dense


def fastafd_speedup(
    batch_ratio: Fraction, fmha: Fraction, dense: Fraction, micro_batches: int, ratio: int
) -> Fraction:
    """Tokens/s per device over the colocated system's: B_AFD / B T / T_AFD M / (M + N), shares of T = 1.

    ratio: attention devices per FFN device, M : N = ratio : 1. Source: facts/afd.md section 1.3.
    """
    step = fastafd_step(batch_ratio, fmha, dense, micro_batches)
    return batch_ratio / step * Fraction(ratio, ratio + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEstimate:
    """aiconfigurator's step: fill + t_cycle (m L - 1). optimistic: whether t_cycle hides the transfers."""

    t_cycle: int
    step: int
    optimistic: bool


def aiconfigurator(layers: int, micro_batches: int, stages: Stages) -> StepEstimate:
    """t_cycle = max(t_a, t_f, t_c) if m >= 2 + t_c / max(t_a, t_f), else max(t_a + t_a2f, t_f + t_f2a).

    t_c = t_a2f + t_f2a: one link for both directions, where the event schedule has one each.
    Source: facts/afd.md section 1.6.
    """
    t_a, t_a2f, t_f, t_f2a = stages.times
    t_c, most = t_a2f + t_f2a, max(t_a, t_f)
    optimistic = micro_batches * most >= 2 * most + t_c
    t_cycle = max(most, t_c) if optimistic else max(t_a + t_a2f, t_f + t_f2a)
    fill = sum(stages.times)
    return StepEstimate(
        t_cycle=t_cycle, step=fill + t_cycle * (micro_batches * layers - 1), optimistic=optimistic
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearTime:
    """A time that grows linearly with a size: slope x size + fixed, in one unit throughout."""

    slope: Fraction
    fixed: Fraction

    def at(self, size: Fraction | int) -> Fraction:
        """The time at `size`."""
        return self.slope * size + self.fixed


def best_ratio(
    attention: LinearTime, ffn: LinearTime, transfer: LinearTime, kv_tokens: Fraction, batch: int
) -> Fraction:
    """Attention devices per FFN device with the most throughput per device, r*; not rounded.

    attention: by expected KV tokens of its batch, `kv_tokens` = B (mu_P + mu_D). ffn: by tokens, r B.
    transfer: by tokens, B. The root is exact to 1e-9. Raises StageError where the FFN does not grow.
    Source: arXiv 2601.21351; facts/afd.md section 1.4.
    """
    if ffn.slope <= 0 or batch < 1:
        raise StageError(
            f"closed forms: ffn slope {float(ffn.slope)}, batch {batch}: both need to be above 0. Raise them."
        )
    grows = ffn.slope * batch
    return max(
        (attention.at(kv_tokens) - ffn.fixed) / grows,
        (transfer.at(batch) - ffn.fixed) / grows,
        _root(ffn.fixed / grows),
    )


def dead_zone(stages: Stages, slot: int) -> tuple[str, ...]:
    """Which conditions for AFD at a target fail, with their numbers; empty: none.

    slot: t_B, the budget of a stage, picoseconds; see `dead_zone_slot`. Meant as a warning.
    Source: arXiv 2602.09721; facts/afd.md section 1.7.
    """
    t_a, t_f, t_c = stages.attention, stages.ffn, stages.down + stages.up
    conditions = (
        ("max(t_a, t_f, t_c) <= t_B", max(t_a, t_f, t_c), slot),
        ("t_f + t_c <= 2 t_a", t_f + t_c, 2 * t_a),
        ("t_a + t_c <= 2 t_f", t_a + t_c, 2 * t_f),
    )
    return tuple(
        f"dead zone: {name} fails: {left:,} ps > {right:,} ps"
        for name, left, right in conditions
        if left > right
    )


def dead_zone_slot(tpot: int, tokens_per_step: Fraction, fixed: int, layers: int) -> Fraction:
    """t_B of SLO x L_accept = t_g + 3 N_layers t_B, picoseconds. Source: facts/afd.md section 1.7."""
    return (tpot * tokens_per_step - fixed) / (3 * layers)


def tokens_per_verify(acceptance: Fraction, drafts: int) -> Fraction:
    """Expected tokens of a verify step, (1 - a^(k+1)) / (1 - a); k + 1 for a = 1. facts/afd.md section 4."""
    return sum((acceptance**k for k in range(drafts + 1)), Fraction(0))


def _root(value: Fraction) -> Fraction:
    """Square root, rounded down to a multiple of 1e-9."""
    return Fraction(isqrt(int(value * 10**18)), 10**9)
