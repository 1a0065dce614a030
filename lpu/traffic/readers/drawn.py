"""Requests drawn from distributions that a user's YAML file states; the same seed gives the same requests."""

from dataclasses import dataclass
from math import inf, log
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from compiler.errors import OptionError
from lpu.inputs.document import parse, read_document
from lpu.traffic.trace import Trace

MOST_REQUESTS = 100_000_000
MOST_CLASSES = 16
MOST_TOKENS = 1 << 31
MOST_SPAN = 100 * 365 * 86400 * 10**9  # nanoseconds
NS_PER_SECOND = 10**9
Numbers = Float64[np.ndarray, " requests"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """When requests come. rate: a second, on average. cv: deviation of the gaps over their mean, of gamma.

    closed: `users` users, each of which sends its next request think_seconds after an answer (exactly, or on
    average with think: exponential).
    """

    kind: Literal["poisson", "gamma", "constant", "closed"]
    rate: float | None = None
    cv: float | None = None
    users: int | None = None
    think_seconds: float = 0.0
    think: Literal["fixed", "exponential"] = "fixed"

    def __post_init__(self) -> None:
        closed = self.kind == "closed"
        if closed != (self.rate is None):
            raise ValueError("rate: is what a closed loop has not" if closed else "rate: is required")
        if closed != (self.users is not None):
            raise ValueError("users: is required" if closed else "users: only a closed loop has them")
        if (self.kind == "gamma") != (self.cv is not None):
            raise ValueError("cv: is required of gamma, and of nothing else")
        for name in ("rate", "cv"):
            value = getattr(self, name)
            if value is not None and not 1e-9 <= value <= 1e9:
                raise ValueError(f"{name}: is {value:g}, must be 1e-9 to 1e9")
        if self.users is not None and not 1 <= self.users <= MOST_REQUESTS:
            raise ValueError(f"users: is {self.users}, must be 1 to {MOST_REQUESTS}")
        if not 0 <= self.think_seconds <= 1e6:
            raise ValueError(f"think_seconds: is {self.think_seconds:g}, must be 0 to 1,000,000")
        if self.kind != "closed" and (self.think_seconds or self.think != "fixed"):
            raise ValueError("think_seconds: only a closed loop has it")

    def gaps(self, count: int, draw: np.random.Generator) -> Numbers:
        """Seconds before each request: since the one before it, or since its user's last answer."""
        if self.kind == "closed":
            if self.think == "exponential":
                return draw.exponential(self.think_seconds, count)
            return np.full(count, self.think_seconds)
        assert self.rate is not None
        if self.kind == "constant":
            return np.full(count, 1 / self.rate)
        if self.kind == "poisson":
            return draw.exponential(1 / self.rate, count)
        assert self.cv is not None
        return draw.gamma(self.cv**-2, self.cv**2 / self.rate, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How many tokens. fixed: mean. normal, lognormal: mean and sd of the tokens; exponential: mean.

    empirical: one of `values`, each as likely or by `weights`. What is drawn is rounded, and brought into
    `least` to `most`.
    """

    kind: Literal["fixed", "normal", "lognormal", "exponential", "empirical"]
    mean: float | None = None
    sd: float | None = None
    values: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    least: int = 1
    most: int = MOST_TOKENS - 1

    def __post_init__(self) -> None:
        drawn = self.kind != "empirical"
        if drawn != (self.mean is not None):
            raise ValueError("mean: is required" if drawn else "mean: empirical lengths have values")
        if (self.kind in ("normal", "lognormal")) != (self.sd is not None):
            raise ValueError("sd: is required of normal and lognormal, and of nothing else")
        if drawn == bool(self.values) or (drawn and self.weights):
            raise ValueError("values: are required of empirical lengths, and of nothing else")
        if not 1 <= self.least <= self.most < MOST_TOKENS:
            raise ValueError(
                f"least: is {self.least}, most is {self.most}: 1 <= least <= most < {MOST_TOKENS}"
            )
        if self.mean is not None and not 1 <= self.mean < MOST_TOKENS:
            raise ValueError(f"mean: is {self.mean:g}, must be 1 to {MOST_TOKENS - 1}")
        if self.sd is not None and not 0 <= self.sd < MOST_TOKENS:
            raise ValueError(f"sd: is {self.sd:g}, must be 0 to {MOST_TOKENS - 1}")
        if any(not 1 <= value < MOST_TOKENS for value in self.values):
            raise ValueError(
                f"values: hold {min(self.values)} to {max(self.values)}, each must be at least 1"
            )
        if self.weights and (
            len(self.weights) != len(self.values)
            or not all(0 <= weight < inf for weight in self.weights)
            or not 0 < sum(self.weights) < inf
        ):
            raise ValueError(
                f"weights: {len(self.weights)} of {len(self.values)} values, at least 0, not all 0"
            )

    def tokens(self, count: int, draw: np.random.Generator) -> Int64[np.ndarray, " requests"]:
        """Tokens of `count` requests."""
        found = np.clip(np.rint(self._drawn(count, draw)), self.least, self.most)
        return found.astype(np.int64)

    def _drawn(self, count: int, draw: np.random.Generator) -> Numbers:
        if self.kind == "empirical":
            weights = np.array(self.weights or (1.0,) * len(self.values))
            return draw.choice(np.array(self.values, np.float64), count, p=weights / weights.sum())
        assert self.mean is not None
        if self.kind == "fixed":
            return np.full(count, self.mean)
        if self.kind == "exponential":
            return draw.exponential(self.mean, count)
        assert self.sd is not None
        if self.kind == "normal":
            return draw.normal(self.mean, self.sd, count)
        spread = log(1 + (self.sd / self.mean) ** 2)
        return draw.lognormal(log(self.mean) - spread / 2, spread**0.5, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnTraffic:
    """A file of distributions. classes: shares of requests by class, the first is served first."""

    requests: int
    arrivals: Arrivals
    input: Lengths
    output: Lengths
    seed: int = 0
    name: str = "drawn"
    classes: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.requests <= MOST_REQUESTS:
            raise ValueError(f"requests: is {self.requests}, must be 1 to {MOST_REQUESTS}")
        if self.classes and not (
            len(self.classes) <= MOST_CLASSES
            and all(0 < share < inf for share in self.classes)
            and sum(self.classes) < inf
        ):
            raise ValueError(f"classes: are shares above 0 of at most {MOST_CLASSES} classes")
        span = self.requests / (self.arrivals.rate or inf)
        if span > MOST_SPAN // NS_PER_SECOND:
            reason = f"take {span:.4g} seconds at this rate"
            raise ValueError(f"requests: {self.requests} {reason}, the most are {MOST_SPAN // NS_PER_SECOND}")
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed: is {self.seed}, must be 0 to 2^63 - 1")

    def trace(self, seed: int | None = None) -> Trace:
        """The requests of a seed, or the file's own. Raises OptionError where they take too long."""
        chosen = self.seed if seed is None else seed
        gaps, prompts, news, ranks = (np.random.default_rng((chosen, stream)) for stream in range(4))
        moments = self.arrivals.gaps(self.requests, gaps) * NS_PER_SECOND
        users = self.arrivals.users or 0
        if not users:
            moments = np.cumsum(moments) - moments[0]
        if not moments.max(initial=0) <= MOST_SPAN:
            seconds = float(moments.max()) / NS_PER_SECOND
            reason = f"take {seconds:.4g} seconds, the most are {MOST_SPAN // NS_PER_SECOND} (100 years)"
            raise OptionError("replay", f"{self.requests} requests", reason, "Give fewer, or a higher rate.")
        return Trace(
            name=f"{self.name}, seed {chosen}",
            arrivals=np.rint(moments).astype(np.int64),
            inputs=self.input.tokens(self.requests, prompts),
            outputs=self.output.tokens(self.requests, news),
            users=min(users, self.requests),
            priorities=self._priorities(ranks),
        )

    def _priorities(self, draw: np.random.Generator) -> Int64[np.ndarray, " requests"] | None:
        if not self.classes:
            return None
        shares = np.array(self.classes)
        return draw.choice(len(shares), self.requests, p=shares / shares.sum()).astype(np.int64)


def drawing_of(path: Path) -> DrawnTraffic:
    """What the file says. Raises FileError, at file, line and column."""
    return parse(DrawnTraffic, read_document(path))
