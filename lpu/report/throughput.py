"""Throughput of a program whose waves follow one another: interval, users, tokens per second."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compiler.program.program import Program
from lpu.report.words import EXACT, kind, label_of
from lpu.screen import OnScreen

HEADERS = (
    "program",
    "step us",
    "interval us",
    "/ bound",
    "users",
    "tokens/s",
    "each",
    "tokens/s at the interval",
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Throughput(OnScreen):
    """Throughput of one context bucket of a program; every figure is exact for the stated machine.

    cycles: length of one step. interval: cycles from one step to the next. bound: lower bound of the interval
    for these rows on these chips, set by `bound_of` (None: one step at a time, the interval is the step).
    users: groups of `batch` sequences whose KV fits. turn: intervals after which a user may step again.
    """

    name: str
    context: int
    batch: int
    chip: str
    cycles: int
    interval: int
    bound: int | None
    bound_of: str
    users: int
    turn: int
    clock_hz: int

    @property
    def tokens_per_second_of_interval(self) -> float:
        """Tokens per second if a step of some user enters at every interval."""
        return self.batch * self.clock_hz / self.interval

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of the users whose KV fits: each of them steps once per turn."""
        return self.users * self.batch * self.clock_hz / (self.turn * self.interval)

    @property
    def tokens_per_second_of_sequence(self) -> float:
        """Tokens per second of one sequence."""
        return self.clock_hz / (self.turn * self.interval)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        names = ("tokens_per_second", "tokens_per_second_of_interval", "tokens_per_second_of_sequence")
        derived = {name: getattr(self, name) for name in names}
        over = None if self.bound is None else self.interval / self.bound
        return {
            "kind": EXACT,
            "label": label_of(self.chip),
            **asdict(self),
            "interval_over_bound": over,
            **derived,
        }

    def row(self) -> list[str]:
        """A line of the table that HEADERS names."""
        return [
            self.name,
            f"{self.cycles * 1e6 / self.clock_hz:.1f}",
            f"{self.interval * 1e6 / self.clock_hz:.2f}",
            "" if self.bound is None else f"{self.interval / self.bound:.3f}",
            f"{self.users * self.batch:,}",
            f"{self.tokens_per_second:,.0f}",
            f"{self.tokens_per_second_of_sequence:,.0f}",
            f"{self.tokens_per_second_of_interval:,.0f}",
        ]

    def __str__(self) -> str:
        us = 1e6 / self.clock_hz
        over = (
            "" if self.bound is None else f", {self.interval / self.bound:.3f} x the bound of {self.bound:,}"
        )
        return "\n".join(
            [
                f"throughput ({kind(self.chip)}): context {self.context}, batch {self.batch}: a step enters "
                f"every {self.interval:,} cycles = {self.interval * us:.2f} us{over} ({self.bound_of})",
                f"  step      {self.cycles:,} cycles = {self.cycles * us:.2f} us from token to token",
                f"  users     {self.users * self.batch:,} fit by their KV ({self.users:,} x batch "
                f"{self.batch}); "
                f"{-(-self.cycles // self.interval) * self.batch:,} would fill the pipeline",
                f"  tokens/s  {self.tokens_per_second:,.0f} with the users that fit, "
                f"{self.tokens_per_second_of_sequence:,.0f} each; "
                f"{self.tokens_per_second_of_interval:,.0f} if every interval had a step",
            ]
        )


def of(program: Program, context: int) -> Throughput:
    """The throughput of one context bucket; a program without waves runs one step of one user at a time."""
    manifest = program.manifest
    cycles = manifest.cycles[context]
    waves = manifest.waves
    entry = waves.contexts[context] if waves else None
    slack, where = manifest.options.interval_slack, f"tp {manifest.tp}, {len(manifest.groups)} groups"
    return Throughput(
        name=("throughput" if waves else "latency")
        + (f", slack {slack:g}" if slack is not None else "")
        + f", {where}",
        context=context,
        batch=manifest.rows,
        chip=manifest.chip.name,
        cycles=cycles,
        interval=entry.interval if entry else cycles,
        bound=entry.bound if entry else None,
        bound_of=entry.bound_of if entry else "one step at a time",
        users=waves.users if waves else 1,
        turn=entry.turn if entry else 1,
        clock_hz=manifest.clock_hz,
    )


def throughput(program: Program) -> list[Throughput]:
    """The throughput of every context bucket of a program that has waves of users; empty for others."""
    manifest = program.manifest
    users = manifest.waves is not None and manifest.chunk == 1
    return [of(program, context) for context in manifest.contexts if users]


def non_dominated(found: Sequence[Throughput]) -> list[Throughput]:
    """Those that no other dominates in tokens/s and tokens/s of each sequence, the fastest for each first.

    Of programs that are equal in both, the first stays.
    """

    def worth(one: Throughput) -> tuple[float, ...]:
        return (one.tokens_per_second, one.tokens_per_second_of_sequence)

    first = {worth(one): one for one in reversed(found)}
    kept = [
        one
        for mine, one in first.items()
        if not any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in first)
    ]
    return sorted(kept, key=lambda one: (-one.tokens_per_second_of_sequence, one.tokens_per_second, one.name))
