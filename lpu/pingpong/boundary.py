"""The boundary between GPU and LPU: fixed slots in LPU cycles, whatever time the GPU takes for an AFD hop.

The GPU's time varies, the LPU's does not. After each AFD hop the LPU waits for the slot at `offset_cycles`:
the nominal GPU time plus slack. Work that arrives later takes the next slot, one whole period later. So the
LPU executes the same cycles for every token; lateness costs whole periods between programs, and is counted.
Jitter is a model, not a measurement. Source: assumed: lognormal, because times are never negative and have a
tail of late ones, and independent from hop to hop.
"""

from dataclasses import asdict, dataclass
from fractions import Fraction
from math import ceil, exp, log, log1p, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from lpu.pingpong.stages import StageError

PS_PER_SECOND = 10**12
LONGEST = 2**62  # upper limit of a product of picoseconds and cycles, so that it fits int64


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """One AFD hop: the LPU hands over, the GPU works (links included), the LPU takes the result at a slot.

    gpu_ps: nominal (mean) GPU time. jitter: standard deviation over mean. period_cycles: from a slot to the
    next slot of the same hop. slack_cycles: from the nominal time to the slot; may be negative.
    lpu_cycles: length of the LPU's program for a hop, from its slot on. clock_hz: clock of these cycles.
    """

    gpu_ps: int
    jitter: int | float
    period_cycles: int
    slack_cycles: int
    lpu_cycles: int
    clock_hz: int

    def __post_init__(self) -> None:
        leasts = {"gpu_ps": 1, "jitter": 0, "period_cycles": 1, "lpu_cycles": 0, "clock_hz": 1}
        for name, least in leasts.items():
            value = getattr(self, name)
            if not value >= least:
                raise StageError(f"boundary: {name}: is {value}, needs {least} or more. Raise it.")
        if self.offset_cycles < 0:
            raise StageError(
                f"boundary: slack_cycles: is {self.slack_cycles}, needs {-self.nominal_cycles} or more: "
                "the slot would be before the hop begins. Raise it."
            )

    @property
    def nominal_cycles(self) -> int:
        """The nominal GPU time in whole cycles, rounded up."""
        return ceil(Fraction(self.gpu_ps * self.clock_hz, PS_PER_SECOND))

    @property
    def offset_cycles(self) -> int:
        """From the LPU's hand-over to the first slot."""
        return self.nominal_cycles + self.slack_cycles

    @property
    def miss_probability(self) -> float:
        """Probability, from the distribution, that a hop misses its first slot."""
        return miss_probability(
            Fraction(self.offset_cycles * PS_PER_SECOND, self.clock_hz), self.gpu_ps, self.jitter
        )

    def cycles(self, gpu_ps: Int64[np.ndarray, "*shape"]) -> Int64[np.ndarray, "*shape"]:
        """GPU times in whole cycles, rounded up: the LPU sees an arrival at a cycle. Raises StageError."""
        rate = Fraction(self.clock_hz, PS_PER_SECOND)
        most = LONGEST // rate.numerator
        if gpu_ps.size and int(gpu_ps.max()) > most:
            raise StageError(
                f"boundary: a hop takes {int(gpu_ps.max())} ps, int64 holds {most}. Give less time or jitter."
            )
        return -(-gpu_ps * rate.numerator // rate.denominator)

    def missed(self, arrivals: Int64[np.ndarray, "*shape"]) -> Int64[np.ndarray, "*shape"]:
        """Slots that each arrival, in cycles since the hand-over, misses."""
        return np.maximum(0, -(-(arrivals - self.offset_cycles) // self.period_cycles))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlotReport:
    """`hops` hops for each of `steps` tokens at a boundary, drawn with `seed`.

    misses: slots missed; late_hops: hops that missed at least one. Per token: lpu_cycles of its programs,
    elapsed_cycles with all waiting, waiting_cycles from arrivals to slots.
    """

    boundary: Boundary
    seed: int
    hops: int
    misses: int
    late_hops: int
    lpu_cycles: Int64[np.ndarray, " steps"]
    elapsed_cycles: Int64[np.ndarray, " steps"]
    waiting_cycles: Int64[np.ndarray, " steps"]

    @property
    def late_share(self) -> float:
        """Share of the drawn hops that missed their first slot; compare with miss_probability."""
        return self.late_hops / (self.hops * len(self.lpu_cycles))

    @property
    def added_cycles(self) -> int:
        """Cycles that misses add: one period each."""
        return self.misses * self.boundary.period_cycles

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; keys carry units, and whether a probability is analytic or counted."""
        return {
            "label": "modelled",
            "boundary": asdict(self.boundary) | {"offset_cycles": self.boundary.offset_cycles},
            "seed": self.seed,
            "steps": len(self.lpu_cycles),
            "hops": self.hops,
            "miss_probability_analytic": self.boundary.miss_probability,
            "late_share_counted": self.late_share,
            "misses": self.misses,
            "added_cycles": self.added_cycles,
            "waiting_cycles_mean": float(self.waiting_cycles.mean()),
            "lpu_cycles_per_token": int(self.lpu_cycles[0]),
            "lpu_cycles_variance": float(self.lpu_cycles.var()),
            "elapsed_cycles_mean": float(self.elapsed_cycles.mean()),
            "elapsed_cycles_most": int(self.elapsed_cycles.max()),
        }

    def __str__(self) -> str:
        one = self.boundary
        return (
            f"boundary (modelled, jitter {one.jitter:g}): slot at {one.offset_cycles:,} cycles with slack "
            f"{one.slack_cycles:,}, period {one.period_cycles:,}; a miss has probability "
            f"{one.miss_probability:.2e} (analytic), {self.late_share:.2e} (counted)\n"
            f"  {self.misses:,} slots missed in {len(self.lpu_cycles):,} tokens of {self.hops} hops: "
            f"{self.added_cycles:,} cycles; LPU {self.lpu_cycles[0]:,} cycles a token, variance "
            f"{self.lpu_cycles.var():g} (by construction: a program's cycles know no arrival)"
        )


def slots(boundary: Boundary, *, steps: int, hops: int, seed: int) -> SlotReport:
    """Draw the GPU's time of every hop, and find the slots that the LPU takes. Raises StageError."""
    if min(steps, hops) < 1:
        raise StageError(f"boundary: steps {steps} and hops {hops}: both need 1 or more. Raise them.")
    factors = lognormal(boundary.jitter, steps * hops, seed).reshape(steps, hops)
    arrivals = boundary.cycles(np.rint(boundary.gpu_ps * factors).astype(np.int64))
    missed = boundary.missed(arrivals)
    taken = boundary.offset_cycles + missed * boundary.period_cycles
    ends = np.cumsum(taken + boundary.lpu_cycles, axis=1)
    starts = ends - boundary.lpu_cycles  # the slots, in cycles since the token began
    return SlotReport(
        boundary=boundary,
        seed=seed,
        hops=hops,
        misses=int(missed.sum()),
        late_hops=int(np.count_nonzero(missed)),
        lpu_cycles=(ends - starts).sum(axis=1),
        elapsed_cycles=ends[:, -1],
        waiting_cycles=(taken - arrivals).sum(axis=1),
    )


def lognormal(jitter: int | float, count: int, seed: int) -> Float64[np.ndarray, " count"]:
    """Factors with mean 1 and standard deviation `jitter`; the same seed gives the same bytes."""
    sigma = _sigma(jitter)
    return np.exp(sigma * np.random.default_rng(seed).standard_normal(count) - sigma * sigma / 2)


def miss_probability(slot_ps: Fraction | int, gpu_ps: int, jitter: int | float) -> float:
    """Probability that a lognormal time of mean `gpu_ps` exceeds `slot_ps`; 0 or 1 without jitter."""
    if not jitter or slot_ps <= 0:
        return float(gpu_ps > slot_ps)
    sigma = _sigma(jitter)
    return 1 - NormalDist().cdf(log(slot_ps / gpu_ps) / sigma + sigma / 2)


def slack_for(target: float, gpu_ps: int, jitter: int | float, clock_hz: int) -> int:
    """The least slack in cycles, 0 or more, with which `target` of the hops miss. Raises StageError."""
    if not 0 < target < 1:
        raise StageError(f"boundary: a miss probability of {target}: needs to be between 0 and 1.")
    sigma = _sigma(jitter)
    slot_ps = gpu_ps * exp(sigma * NormalDist().inv_cdf(1 - target) - sigma * sigma / 2)
    nominal = ceil(Fraction(gpu_ps * clock_hz, PS_PER_SECOND))
    return max(0, ceil(Fraction(slot_ps) * clock_hz / PS_PER_SECOND) - nominal)


def _sigma(jitter: int | float) -> float:
    """Standard deviation of the logarithm, for a relative standard deviation `jitter`."""
    return sqrt(log1p(jitter * jitter))
