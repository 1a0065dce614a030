"""The bounds of a program as a result: how far each is from the schedule, where the other cycles are."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from compiler.analyse.aim import Aim, next_tenth
from compiler.analyse.bounds import Bound
from compiler.analyse.chain import Chain, chain_totals
from lpu.report.occupancy import chain_line
from lpu.report.words import EXACT, kind, label_of
from lpu.screen import OnScreen


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Bounds(OnScreen):
    """Lower bounds on the cycles of a program by context bucket, and the chains that end its blocks."""

    HEADERS: ClassVar = ("context", "bound", "cycles", "of the schedule", "reason")

    digest: str
    chip: str
    hops: int
    cycles: dict[int, int]
    bounds: dict[int, tuple[Bound, ...]]
    chains: dict[int, Sequence[Chain]]
    aims: dict[int, tuple[Aim, ...]]
    clock_hz: int

    def rows(self) -> list[list[str]]:
        """The cells of a table under HEADERS."""
        return [
            [
                f"{bucket:,}",
                one.name,
                f"{one.cycles:,}",
                f"{100 * one.cycles / max(self.cycles[bucket], 1):.1f} %",
                one.reason,
            ]
            for bucket, every in self.bounds.items()
            for one in every
        ]

    def ends(self) -> str:
        """What the schedule takes, and the chain of each bucket."""
        lines: list[str] = []
        for bucket, count in self.cycles.items():
            where = f"of {self.hops} hops one after another" if self.hops else f"at context {bucket}"
            lines.append(f"schedule    {count:,} cycles {where} ({kind(self.chip)})")
            lines.append(f"chain       {chain_line(self.chains[bucket])}")
            lines += self._next(bucket)
            lines += [self._aim(one, bucket) for one in self.aims[bucket]]
        return "\n".join(lines)

    def _next(self, bucket: int) -> list[str]:
        """Where the next tenth of the cycles would come from."""
        found = next_tenth(chain_totals(self.chains[bucket]), self.cycles[bucket])
        parts = [f"{100 * share:.0f} % of {name}" for name, share in found]
        return [f"next 10 %   {', or '.join(parts)}"] if parts else []

    def _aim(self, one: Aim, bucket: int) -> str:
        times = self.cycles[bucket] / max(one.cycles, 1)
        return (
            f"aim         {one.cycles:,} cycles = {one.cycles * 1e6 / self.clock_hz:.1f} us, the schedule is "
            f"{times:.2f} x: {one.exchanges} exchanges {one.hops:,} + hand-overs {one.handovers:,} + "
            f"installs {one.installs:,} + fills {one.fills:,} ({one.way})"
        )

    def __str__(self) -> str:
        every = [(one, bucket) for bucket, some in self.bounds.items() for one in some]
        lines = [f"bound       {one.name} {one.cycles:,} cycles at context {bucket}" for one, bucket in every]
        return "\n".join([*lines, self.ends()])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; keys carry their units."""
        return {
            "schema": "lpu-bounds/1",
            "kind": EXACT,
            "label": label_of(self.chip),
            "program_sha256": self.digest,
            "bounds": [
                {"context": bucket, "bound": one.name, "cycles": one.cycles, "reason": one.reason}
                for bucket, every in self.bounds.items()
                for one in every
            ],
            "latency_cycles": {str(bucket): count for bucket, count in self.cycles.items()},
            "chain_cycles": {str(bucket): chain_totals(found) for bucket, found in self.chains.items()},
            "aims": [
                {"context": bucket, "cycles": one.cycles, **asdict(one)}
                for bucket, every in self.aims.items()
                for one in every
            ],
        }
