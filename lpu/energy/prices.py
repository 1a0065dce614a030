"""The prices of events as the package states them, and with what a user changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

from lpu.energy.spread import Spread
from lpu.inputs.document import FileError, parse, read_document

PRICES = Path(__file__).parent / "prices.yaml"
Kind = Literal["published", "derived", "assumed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One input. band: as three numbers, in `unit`. of: what it is the price of."""

    name: str
    band: list[float]
    unit: str
    of: str
    kind: Kind
    source: str

    def __post_init__(self) -> None:
        if len(self.band) != 3:
            raise ValueError(f"band: {self.band} needs low, mid and high")
        Spread(*self.band)

    @property
    def value(self) -> Spread:
        """The band."""
        return Spread(*self.band)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name, "unit": self.unit, "of": self.of, "kind": self.kind, "source": self.source
        } | self.value.to_json()  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPrice:
    """A GPU by published power: of the chip alone, and of its share of the system. capex: of that share."""

    name: str
    chip_w: list[float]
    system_w: list[float]
    capex_usd: list[float]
    kind: Kind
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    prices: list[Price]
    gpus: list[GpuPrice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """All prices, by name."""

    every: tuple[Price, ...]
    gpus: tuple[GpuPrice, ...]

    def __getitem__(self, name: str) -> Spread:
        return next(price for price in self.every if price.name == name).value

    def with_bands(self, **bands: Spread) -> "Prices":
        """The same with other bands, marked as assumed. Raises FileError for a name that is not there."""
        known = [price.name for price in self.every]
        for name in bands:
            if name not in known:
                near = get_close_matches(name, known, n=1, cutoff=0.0)[0]
                raise FileError(f"energy: {name!r} is no price. Did you mean {near}? See docs/energy.md.")
        changed = [
            replace(p, band=[b.low, b.mid, b.high], kind="assumed", source="set by the user")
            if (b := bands.get(p.name)) is not None
            else p
            for p in self.every
        ]
        return replace(self, every=tuple(changed))

    def gpu(self, name: str) -> GpuPrice:
        """The price of a GPU of the catalog. Raises FileError."""
        for price in self.gpus:
            if price.name == name:
                return price
        raise FileError(
            f"energy: no power of {name} is stated. There are {', '.join(p.name for p in self.gpus)}."
        )


@cache
def prices() -> Prices:
    """Those of the package."""
    found = parse(_File, read_document(PRICES))
    return Prices(every=tuple(found.prices), gpus=tuple(found.gpus))


def parse_bands(texts: Sequence[str]) -> dict[str, Spread]:
    """`static_w=30,105,300`, or one number for all three, by name. Raises FileError."""
    out: dict[str, Spread] = {}
    for text in texts:
        name, _, rest = text.partition("=")
        try:
            numbers = [float(word.replace("_", "")) for word in rest.split(",")]
            out[name.strip()] = Spread(*(numbers * 3 if len(numbers) == 1 else numbers))
        except (ValueError, TypeError) as error:
            why = f" ({error})" if "needs" in str(error) or "ascend" in str(error) else ""
            raise FileError(
                f"energy: --set {text}: is no band{why}. Write --set static_w=30,105,300."
            ) from None
    return out
