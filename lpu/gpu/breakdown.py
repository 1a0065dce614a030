"""How long named operators take on GPUs, and whether that is modelled or measured."""

from dataclasses import dataclass
from typing import Any, Literal

Basis = Literal["modelled", "measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpTime:
    """Seconds of one operator. launches: kernels that it consists of."""

    name: str
    seconds: float
    launches: int = 1
    basis: Basis = "modelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """Operators that run one after another. band: relative half-width of their times (0: none is stated)."""

    ops: tuple[OpTime, ...]
    band: int | float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of all operators."""
        return sum(op.seconds for op in self.ops)

    @property
    def launches(self) -> int:
        """Kernels of all operators."""
        return sum(op.launches for op in self.ops)

    @property
    def basis(self) -> str:
        """How `seconds` is known: `modelled`, `measured`, or `measured and modelled`."""
        return " and ".join(sorted({op.basis for op in self.ops}))

    def times(self, count: int) -> "Breakdown":
        """The same operators `count` times, each as one line."""
        ops = (
            OpTime(name=o.name, seconds=count * o.seconds, launches=count * o.launches, basis=o.basis)
            for o in self.ops
        )
        return Breakdown(ops=tuple(ops), band=self.band)

    def then(self, other: "Breakdown") -> "Breakdown":
        """These operators, then the other's."""
        return Breakdown(ops=self.ops + other.ops, band=max(self.band, other.band))

    def banded(self, band: float) -> "Breakdown":
        """The same with a band of at least `band`."""
        return Breakdown(ops=self.ops, band=max(self.band, band))

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "seconds": self.seconds,
            "kind": self.basis,
            "band": self.band,
            "ops": [
                {"op": o.name, "seconds": o.seconds, "launches": o.launches, "kind": o.basis}
                for o in self.ops
            ],
        }

    def __str__(self) -> str:
        band = f" +-{100 * self.band:g} %" if self.band else ""
        lines = [f"{o.name:<16}{1e6 * o.seconds:>12,.1f} us  {o.launches:>5} launches" for o in self.ops]
        lines += [f"{'total':<16}{1e6 * self.seconds:>12,.1f} us{band}, {self.basis}"]
        return "\n".join(lines)
